"""The concept pages: whole, with plots that exist, examples that run and numbers that the script printed."""

from __future__ import annotations

import importlib
import inspect
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "concepts"
PAGES = sorted(page for page in FOLDER.glob("*.md") if page.name != "index.md")
SCRIPT = ROOT / "scripts" / "plot_concepts.py"
SECTIONS = [
    "What it promises",
    "What it assumes",
    "When it breaks",
    "How to call it",
    "What it costs",
    "Source",
]
PLOT = re.compile(r"^!\[(.+)\]\(img/([\w-]+)\.svg\)$", re.MULTILINE)
FINDINGS = re.compile(
    r"^```text\n\$ python scripts/plot_concepts\.py ([\w-]+)\n(.*?)^```$", re.DOTALL | re.MULTILINE
)
CHEAP = ("intervals", "costs")
# What the package exports beside methods of uncertainty.
OTHER_THEMES = tuple(
    f"finetune.domain.{name}"
    for name in ("decisions", "errors", "examples", "labels", "parsing", "prompts", "splits")
)
PACKAGES = (
    "finetune.domain",
    "finetune.domain.accumulators",
    "finetune.domain.calibration",
    "finetune.domain.calibration.maps",
    "finetune.domain.conformal",
    "finetune.domain.objectives",
    "finetune.domain.risk",
    "finetune.domain.statistics",
)


def name_of(page: Path) -> str:
    return page.stem


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def findings_of(page: Path) -> dict[str, str]:
    return dict(FINDINGS.findall(read(page)))


def draw(folder: Path, *names: str) -> str:
    command = [sys.executable, "-W", "error", str(SCRIPT), "--to", str(folder), *names]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_has_all_sections_in_order(page):
    assert re.findall(r"^## (.*)$", read(page), re.MULTILINE) == SECTIONS


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_has_its_plots_with_the_command_and_what_it_printed(page):
    plots = [name for _, name in PLOT.findall(read(page))]
    findings = findings_of(page)
    assert plots
    assert list(findings) == plots
    assert all(findings.values())
    assert all((FOLDER / "img" / f"{name}.svg").stat().st_size < 150_000 for name in plots)


def test_every_plot_belongs_to_one_page():
    shown = [name for page in PAGES for _, name in PLOT.findall(read(page))]
    made = sorted(path.stem for path in (FOLDER / "img").iterdir())
    assert sorted(shown) == made


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_python_block_is_an_example_that_test_documents_runs(page):
    blocks = re.findall(r"^```python\n(.*?)^```$", read(page), re.DOTALL | re.MULTILINE)
    assert blocks
    assert all(block.startswith(">>> ") for block in blocks)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_index_of_the_concepts_leads_to_every_page(page):
    assert f"({page.name})" in read(FOLDER / "index.md")


def is_method(thing: object) -> bool:
    """A function, or a class that is calibrated or updated; results and records are explained by these."""
    fitted = hasattr(thing, "calibrate") or hasattr(thing, "update")
    return inspect.isfunction(thing) or (fitted and not inspect.isabstract(thing))


def is_of_another_theme(thing: object) -> bool:
    return getattr(thing, "__module__", "").startswith(OTHER_THEMES)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_exported_method_is_on_a_page(package):
    module = importlib.import_module(package)
    words = set(re.findall(r"\w+", "\n".join(read(page) for page in PAGES)))
    exported = {name: getattr(module, name) for name in module.__all__}
    methods = {
        name for name, thing in exported.items() if is_method(thing) and not is_of_another_theme(thing)
    }
    assert methods
    assert sorted(methods - words) == []


def test_the_script_prints_the_numbers_of_the_pages_and_draws_the_same_bytes_twice(tmp_path):
    (tmp_path / "again").mkdir()
    output = draw(tmp_path, *CHEAP)
    assert draw(tmp_path / "again", *CHEAP) == output
    for name in CHEAP:
        drawn = (tmp_path / f"{name}.svg").read_bytes()
        assert drawn == (tmp_path / "again" / f"{name}.svg").read_bytes()
    printed = {name: lines for page in PAGES for name, lines in findings_of(page).items() if name in CHEAP}
    assert output == "".join(f"$ python scripts/plot_concepts.py {name}\n{printed[name]}\n" for name in CHEAP)


@pytest.mark.slow
def test_all_numbers_of_the_pages_are_those_of_the_script(tmp_path):
    printed = {name: lines for page in PAGES for name, lines in findings_of(page).items()}
    output = draw(tmp_path)
    assert [name for name, lines in printed.items() if f" {name}\n{lines}\n" not in output] == []


def test_an_unknown_plot_is_refused_by_name():
    command = [sys.executable, str(SCRIPT), "covrage"]
    answer = subprocess.run(command, check=False, capture_output=True, text=True)
    assert answer.returncode == 2
    assert "no plot is named covrage" in answer.stderr


def test_findings_are_put_under_their_command_alone(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    put = runpy.run_path(str(SCRIPT))["with_findings"]
    block = "```text\n$ python scripts/plot_concepts.py {}\nold\n```\n"
    page = block.format("x") + "between\n" + block.format("xy")
    assert put(page, "x", ["new", "newer"]) == page.replace("x\nold", "x\nnew\nnewer")
