"""The page on token trees: its picture and its numbers are what the script makes, and what scoring runs."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from finetune.adapters.hf.loading import load_base
from finetune.adapters.hf.tree_scoring import TreeEngine
from finetune.adapters.hf.trees import CachedTree
from finetune.application.config import ProjectConfig
from finetune.container import resolve_model

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "token-trees.md"
PICTURE = ROOT / "docs" / "img" / "token-tree.svg"
SCRIPT = ROOT / "scripts" / "plot_token_tree.py"
COUNTS = re.compile(r"^\| .* (?:rows|labels) \| .*\d.* \|$", re.MULTILINE)


@pytest.fixture(scope="module")
def script() -> Iterator[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))
        yield {**runpy.run_path(str(SCRIPT)), "grow": import_module("tree_picture").grow}


def words_of(picture: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", picture.read_text(encoding="utf-8"))


def lines_of(page: str, *tasks: str) -> list[str]:
    return [line for line in COUNTS.findall(page) if line.split("|")[1].split(",")[0].strip() in tasks]


def test_the_picture_and_what_it_shows_are_those_of_the_script(script, tmp_path):
    findings = script["draw_picture"](tmp_path / "one.svg")
    assert script["draw_picture"](tmp_path / "two.svg") == findings
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    block = "".join(f"{line}\n" for line in [script["COMMAND"], *findings])
    assert f"```text\n{block}```" in PAGE.read_text(encoding="utf-8")
    assert words_of(PICTURE) == words_of(tmp_path / "one.svg")
    assert PICTURE.stat().st_size < 150_000


def test_scoring_the_messages_of_the_picture_grows_that_tree(script, tmp_path, monkeypatch):
    shown = script["demo_task"](script["SHOWN"])
    trees, extend = [], CachedTree.extend

    def watched(self: CachedTree, *args: Any, **options: Any) -> Any:
        grown = extend(self, *args, **options)
        trees.append((self.tree.ids.tolist(), self.tree.parents.tolist()))
        return grown

    monkeypatch.setattr(CachedTree, "extend", watched)
    config = ProjectConfig.model_validate({"model_id": "embedded", "data": {"files": ["none"]}})
    engine = TreeEngine(load_base(config, resolve_model, "fp32"), shown.encoder, batch_size=16)
    engine.score([shown.encoder.score_ids(example.text)[0] for example in shown.examples])
    drawn = script["grow"](shown.encoder, [example.text for example in shown.examples])
    assert len(trees) == 3
    assert sorted(paths(*trees[-1])) == sorted(paths(drawn.tree.ids.tolist(), drawn.tree.parents.tolist()))
    assert f"{len(trees[-1][0])} tokens" in PAGE.read_text(encoding="utf-8")


def paths(ids: list[int], parents: list[int]) -> list[tuple[int, ...]]:
    """Return what leads to each node."""
    found: list[tuple[int, ...]] = []
    for token, parent in zip(ids, parents, strict=True):
        found.append((*(found[parent] if parent >= 0 else ()), token))
    return found


def test_the_demo_has_the_counts_of_the_page(script):
    rows = list(script["table_rows"](script["demo_task"]()))
    assert rows == lines_of(PAGE.read_text(encoding="utf-8"), "demo")


@pytest.mark.slow
def test_the_data_sets_have_the_counts_of_the_page(script, real_data):
    tasks = [task for name in ("banking77", "CLINC150") for task in script["real_tasks"](name, real_data)]
    rows = [row for task in tasks for row in script["table_rows"](task)]
    assert len(rows) == 12
    assert rows == lines_of(PAGE.read_text(encoding="utf-8"), "banking77", "CLINC150")


def test_a_data_set_that_is_not_there_is_left_out(script, tmp_path):
    assert list(script["real_tasks"]("banking77", tmp_path)) == []


def test_a_line_of_the_table_takes_the_place_of_its_own_alone(script):
    page = "| a | 8 rows | | |\n| a | 64 rows | | |\n| a, listed | 8 rows | | |\n"
    put = script["with_table_row"]
    assert put(page, "| a | 8 rows | 1 | 2 |") == page.replace("| a | 8 rows | | |", "| a | 8 rows | 1 | 2 |")
    with pytest.raises(SystemExit, match="0 lines"):
        put(page, "| b | 8 rows | 1 | 2 |")
