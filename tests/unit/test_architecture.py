"""The rules of docs on imports, as far as a running interpreter can show them; import-linter has the rest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "pyarrow",
    "matplotlib",
    "jinja2",
    "pandas",
}
ROOT = Path(__file__).parents[2]


def loaded_by(code: str) -> set[str]:
    """Return the names of all modules that a fresh interpreter has after running ``code``."""
    script = f"import sys\n{code}\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines())


def top_level(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


IMPORT_DOMAIN = """
import importlib, pkgutil, finetune.domain
for module in pkgutil.walk_packages(finetune.domain.__path__, "finetune.domain."):
    importlib.import_module(module.name)
"""


def test_the_whole_domain_loads_numpy_scipy_and_pydantic_only() -> None:
    allowed = loaded_by(
        "import numpy, scipy.special, importlib, pkgutil; from pydantic import BaseModel, Field"
    )
    loaded = top_level(loaded_by(IMPORT_DOMAIN))
    foreign = loaded - top_level(allowed) - sys.stdlib_module_names - {"finetune"}
    assert foreign == set()


def test_the_domain_does_not_load_scipy_stats() -> None:
    assert "scipy.stats" not in loaded_by(IMPORT_DOMAIN)


def help_of(command: str) -> str:
    arguments = [*command.split(), "--help"]
    return (
        f"sys.argv = ['finetune', *{arguments!r}]\n"
        "from finetune.cli.main import run\n"
        "try: run()\n"
        "except SystemExit as end: assert not end.code"
    )


@pytest.mark.parametrize("command", ["", "train", "predict"])
def test_help_loads_no_heavy_package(command: str) -> None:
    loaded = loaded_by(help_of(command))
    assert top_level(loaded).isdisjoint(HEAVY | {"scipy", "numpy", "yaml", "dependency_injector"})
    assert "finetune.cli.main" in loaded


def test_building_the_container_loads_no_adapter() -> None:
    loaded = loaded_by("from finetune.container import Container\nContainer()")
    assert not {name for name in loaded if name.startswith("finetune.adapters")}
    assert top_level(loaded).isdisjoint(HEAVY)


def test_typer_is_the_only_command_line_library() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "src/finetune/cli").glob("*.py")]
    assert sources
    assert not any("import click" in text or "from click" in text for text in sources)


def test_the_import_contracts_are_kept(tmp_path: Path) -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_contracts_see_the_standard_library() -> None:
    import grimp

    graph = grimp.build_graph("finetune", include_external_packages=True, cache_dir=None)
    assert graph.find_modules_that_directly_import("pathlib")
    assert graph.find_modules_that_directly_import("os")
