"""``finetune sweep``: trainings with different settings, compared on the validation rows."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finetune.cli.options import Config, Json, Overrides, Quiet
from finetune.cli.page import Page, Table
from finetune.cli.session import open_session, read_config, run_options

if TYPE_CHECKING:
    from finetune.application.config import ProjectConfig
    from finetune.application.ports import LogRange, Space, Value

SHOWN = ("log_loss", "accuracy", "ece")


def sweep(
    context: typer.Context,
    config: Config = None,
    overrides: Overrides = None,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Trainings in all.")] = 20,
    learning_rate: Annotated[
        str | None,
        typer.Option(
            "--learning-rate",
            metavar="LOW:HIGH",
            help="Learning rates to search, or a list of them.",
            show_default="a fifth to five times the configured one, where nothing else is searched",
        ),
    ] = None,
    rank: Annotated[
        str | None, typer.Option("--rank", metavar="R,R,…", help="Ranks; lora.alpha keeps its ratio to them.")
    ] = None,
    objective: Annotated[
        str | None, typer.Option("--objective", metavar="NAME,NAME,…", help="Objectives, by objective.name.")
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option("--vary", metavar="KEY=A,B,…", help="Values of any other key. Repeatable."),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            help="What the best trial is the best in, on the validation rows.",
            show_default="training.early_stopping.metric",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", help="Folder below artifacts/sweeps.", show_default="the configuration's name"
        ),
    ] = None,
    keep_all: Annotated[
        bool, typer.Option("--keep-all", help="Keep every trial's adapter; else the best one's only.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted sweep, or add trials to one.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Search learning rate, rank, objective and other settings."""
    space = _space(learning_rate, rank, objective, vary or ())
    session = open_session(context, as_json=as_json, quiet=quiet)
    _refuse_several_processes()
    from finetune.application.sweep import SweepRequest

    def configure(more: Sequence[str]) -> ProjectConfig:
        return read_config(session, config, [*(overrides or ()), *more])

    request = SweepRequest(
        configure=configure,
        space=space,
        trials=trials,
        metric=metric,
        name=name,
        keep_all=keep_all,
        options=run_options(config, None, overrides),
    )
    labels = session.container.read_labels(configure(()).labels)
    report = session.container.sweep()(request, labels, resume=resume)
    session.finish(report.document(), swept(report.document(), report.folder))


def swept(document: Mapping[str, Any], folder: Path) -> Page:
    """Return the page of a sweep: all trials from the best to the worst, and few of the metrics."""
    from finetune.application.sweep_results import failures, results_table

    headings, rows = results_table(document, list(dict.fromkeys([document["metric"], *SHOWN])))
    return Page(
        f"Swept {document['name']}",
        tables=(Table(tuple(headings), tuple(map(tuple, rows)), frozenset(range(len(headings)))),),
        said=tuple(document["statements"]),
        notes=tuple(failures(document)),
        written=(str(folder / "sweep.json"), str(folder / "sweep.md")),
        then=() if document["command"] is None else (document["command"],),
    )


def _space(learning_rate: str | None, rank: str | None, objective: str | None, vary: Sequence[str]) -> Space:
    from finetune.application.ports import LogRange
    from finetune.application.search_space import LEARNING_RATE, OBJECTIVE, RANK

    space: dict[str, LogRange | tuple[Value, ...]] = {}
    if learning_rate is not None and ":" in learning_rate:
        low, _, high = learning_rate.partition(":")
        space[LEARNING_RATE] = LogRange(_number(low), _number(high))
    elif learning_rate is not None:
        space[LEARNING_RATE] = _values(learning_rate, _number)
    if rank is not None:
        space[RANK] = _values(rank, _whole)
    if objective is not None:
        space[OBJECTIVE] = _values(objective, str)
    for text in vary:
        key, equals, values = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"{text!r} is not KEY=A,B,…", param_hint="--vary")
        if key.strip() in space:
            raise typer.BadParameter(f"{key.strip()} is searched twice", param_hint="--vary")
        space[key.strip()] = _values(values, _scalar)
    return space


def _values(text: str, convert: Callable[[str], Value]) -> tuple[Value, ...]:
    return tuple(convert(part.strip()) for part in text.split(","))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a number", param_hint="--learning-rate") from error


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a whole number", param_hint="--rank") from error


def _scalar(text: str) -> Value:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float | None) else text


def _refuse_several_processes() -> None:
    # Each of them would draw and record trials of its own.
    if os.environ.get("WORLD_SIZE", "1") != "1":
        from finetune.domain.errors import InvalidInput

        raise InvalidInput(
            "a sweep runs in one process",
            where="WORLD_SIZE",
            seen=os.environ["WORLD_SIZE"],
            remedy="start it without accelerate or torchrun",
        )
