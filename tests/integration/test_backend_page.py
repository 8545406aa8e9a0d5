"""The backend that the page shows passes the contracts of all backends."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.contracts.scorer_contract import SCORER_CASES
from tests.contracts.trainer_contract import TRAINER_CASES, Bench

from finetune.adapters.embedded.messages import generate_messages, labels_document, to_row
from finetune.application.config import ProjectConfig
from finetune.application.labels_file import LabelsFile
from finetune.domain.examples import Example
from finetune.domain.prompts import default_prompt

PAGE = Path(__file__).parents[2] / "docs" / "backends.md"
LABELS = LabelsFile.model_validate(labels_document()).label_set()


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    [program] = re.findall(
        r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    names: dict = {}
    exec(compile(program, str(PAGE), "exec"), names)
    rows = [
        Example(row["id"], row["text"], row["label"])
        for row in (to_row(message, i) for i, message in enumerate(generate_messages(200, seed=1)))
    ]
    folder = tmp_path_factory.mktemp("words")
    config = ProjectConfig.model_validate({"backend": "words", "data": {"files": ["a.csv"]}})
    prompt = default_prompt(LABELS)
    return Bench(names["WordCounts"](), config, LABELS, prompt, rows[:150], rows[150:], folder / "run")


@pytest.mark.parametrize("case", TRAINER_CASES, ids=lambda case: case.__name__)
def test_trainer_contract(case, bench, tmp_path):
    case(bench, tmp_path)


@pytest.mark.parametrize("case", SCORER_CASES, ids=lambda case: case.__name__)
def test_scorer_contract(case, bench):
    case(bench.opened().scorer)


def test_it_has_as_many_lines_as_the_page_says():
    [program] = re.findall(
        r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    lines = [
        line for line in program.splitlines() if line.strip() and not line.startswith(("import", "from"))
    ]
    assert len(lines) <= 50
