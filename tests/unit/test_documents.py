"""What the documents say is what the program does: examples, tables and links."""

from __future__ import annotations

import doctest
import re
import runpy
from pathlib import Path

import pytest
from typer.testing import CliRunner

from finetune.cli.main import app
from finetune.container import Container

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
RECORDS = sorted((ROOT / "docs" / "adr").glob("*.md"))
LINKED = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
WITH_EXAMPLES = [page for page in PAGES if ">>>" in page.read_text(encoding="utf-8")]
FENCE = re.compile(r"^```.*$", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=name_of)
def test_examples_run(page):
    # A closing fence would be read as the last line of the expected output.
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    example = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    shown: list[str] = []
    failed, tried = doctest.DocTestRunner(optionflags=flags).run(example, out=shown.append)
    assert tried
    assert not failed, "".join(shown)


def test_embedding_is_among_the_pages_with_examples():
    assert ROOT / "docs" / "embedding.md" in WITH_EXAMPLES


def test_commands_on_probabilities_print_what_stands_there(tmp_path, monkeypatch):
    """All but the digits: those differ from one processor to the next."""
    page = read("docs/probabilities.md")
    monkeypatch.chdir(tmp_path)
    [program] = re.findall(r"^```python\n(import csv\n.*?)^```", page, re.DOTALL | re.MULTILINE)
    exec(compile(program, "docs/probabilities.md", "exec"), {})
    (tmp_path / "bad.csv").write_text("id,label,a,refill\n1,a,0.5,0.5\n2,a,0.5,n/a\n", encoding="utf-8")
    shown = re.findall(r"^```\n\$ finetune (.*?)\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(shown) == 4
    for words, output in shown:
        result = CliRunner().invoke(app, words.split(), obj=Container())
        printed = result.stderr if result.exit_code else result.stdout
        assert re.sub(r"[\d,.]+", "0", printed) == re.sub(r"[\d,.]+", "0", output), words


def test_the_configuration_page_is_what_the_script_writes():
    page = runpy.run_path(str(ROOT / "scripts" / "document_config.py"))["configuration_page"]()
    assert read("docs/configuration.md") == page, "run scripts/document_config.py"


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_links_lead_to_files(page):
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "index.md"], ids=name_of)
def test_the_index_names_every_page(page):
    assert f"({page.relative_to(ROOT / 'docs').as_posix()})" in read("docs/index.md")


def test_records_are_numbered_without_gaps_and_have_all_parts():
    assert [int(path.name[:4]) for path in RECORDS] == list(range(1, len(RECORDS) + 1))
    for path in RECORDS:
        text = path.read_text(encoding="utf-8")
        assert re.findall(r"^#+ .*$", text, re.MULTILINE)[1:] == [
            "## Context",
            "## Decision",
            "## Consequences",
        ]
        assert text.startswith(f"# {path.name[:4]} ")


def test_the_table_of_target_modules_is_that_of_the_code():
    from finetune.adapters.hf.architectures import TARGET_MODULES

    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([\w, ]+_[\w, ]+) \|$", read("docs/models.md"), re.MULTILINE)
    assert {kind: tuple(modules.split(", ")) for kind, modules in rows} == TARGET_MODULES


def test_old_model_names_are_listed_with_their_answers():
    from finetune.application.config import MISSPELT_MODELS

    rows = re.findall(r"^\| (`.+`) \| (`.+`) \|$", read("docs/models.md"), re.MULTILINE)
    listed = {
        name.lower(): tuple(re.findall(r"`([^`]+)`", answers))
        for names, answers in rows
        for name in re.findall(r"`([^`]+)`", names)
    }
    assert listed == MISSPELT_MODELS


def test_every_reason_is_explained():
    from finetune.domain.decisions import REASONS

    assert [reason for reason in REASONS[1:] if f"`{reason}`" not in read("docs/how-it-works.md")] == []
