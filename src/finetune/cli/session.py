"""What every command does before and after its use case: container, configuration, output."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from finetune.cli.console import choose_progress
from finetune.cli.options import DEFAULT_CONFIG
from finetune.cli.page import Page, show

if TYPE_CHECKING:
    from finetune.application.config import ProjectConfig
    from finetune.container import Container


class Session(NamedTuple):
    """The container of one command and how its result is to be shown."""

    container: Container
    as_json: bool
    quiet: bool

    def finish(self, document: Mapping[str, Any], page: Page) -> None:
        """Show the result: JSON for programs, a page for people, nothing with ``--quiet``."""
        if self.as_json:
            print_json(document)
        elif not self.quiet:
            show(page)


def open_session(context: typer.Context, *, as_json: bool, quiet: bool) -> Session:
    """Return the session of one command; a container given to the application (a test's) is used as it is."""
    from finetune.container import Container

    container = Container() if context.obj is None else context.obj
    container.progress.override(choose_progress(quiet=quiet, as_json=as_json))
    return Session(container, as_json, quiet)


def read_config(
    session: Session, config: Path | None, overrides: Sequence[str] | None, run: Path | None = None
) -> ProjectConfig:
    """Read the configuration that the options name.

    Parameters
    ----------
    session
        The running command's session.
    config, overrides, run
        The options ``--config``, ``--set`` and ``--run``.

    Raises
    ------
    InvalidInput
        If a file is missing or wrong, or the run does not lie where ``train`` puts it.
    typer.BadParameter
        If both a configuration and a run are named.
    """
    found: ProjectConfig
    if run is None:
        found = session.container.read_config(config or DEFAULT_CONFIG, list(overrides or ()))
        return found
    if config is not None:
        raise typer.BadParameter("leave --config away: a run keeps its own", param_hint="--run / --config")
    found = session.container.read_run_config(run, list(overrides or ()))
    return found if found.run_folder.resolve() == run.resolve() else _moved(found, run)


def _moved(config: ProjectConfig, run: Path) -> ProjectConfig:
    # A copied or moved tree of artifacts: the folder says where it is now.
    from finetune.domain.errors import InvalidInput

    place = run.resolve()
    if place.parent.name != config.run_folder.parent.name:
        raise InvalidInput(
            "a run must lie in a folder named 'runs'",
            where=str(run),
            remedy="move it to ARTIFACTS/runs/NAME, the place that 'finetune train' gives it",
        )
    return config.model_copy(update={"name": place.name, "artifacts": place.parent.parent})


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON object; NaN and infinities, which JSON lacks, are refused."""
    json.dump(document, sys.stdout, ensure_ascii=False, allow_nan=False, indent=2)
    print()


def run_options(config: Path | None, run: Path | None, overrides: Sequence[str] | None) -> str:
    """Return the options that the next command must repeat to mean the same run.

    Examples
    --------
    >>> run_options(Path("my configs/a.yaml"), None, ["lora.r=8"])
    " -c 'my configs/a.yaml' -s lora.r=8"
    >>> run_options(None, None, None)
    ''
    """
    import shlex

    words: list[str] = []
    if run is not None:
        words += ["--run", str(run)]
    elif config is not None and config != DEFAULT_CONFIG:
        words += ["-c", str(config)]
    for override in overrides or ():
        words += ["-s", override]
    return "".join(f" {shlex.quote(word)}" for word in words)
