from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.testing

from finetune.cli.main import app
from finetune.container import Container

CONFIG = """\
model_id: embedded
name: triage
data: {files: [data.csv]}
"""

LABELS = """\
task: Triage
labels: [{name: urgent}, {name: routine}]
"""

Invoke = Callable[..., typer.testing.Result]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder with a configuration, as the working directory."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/llm_lora.yaml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "configs/labels.yaml").write_text(LABELS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FINETUNE_DEBUG", raising=False)
    return tmp_path


@pytest.fixture
def container() -> Container:
    return Container()


@pytest.fixture
def invoke(project: Path, container: Container) -> Invoke:
    def run(*arguments: str, **settings: Any) -> typer.testing.Result:
        return typer.testing.CliRunner().invoke(app, list(arguments), obj=container, **settings)

    return run
