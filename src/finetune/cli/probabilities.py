"""The options and the way of ``--probabilities``: calibrate, evaluate and predict without a run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finetune.cli.pages import calibrated_probabilities, evaluated_probabilities, predicted
from finetune.cli.session import Session

if TYPE_CHECKING:
    from finetune.application.external import Reading
    from finetune.application.ports import Inputs

CERTIFICATE = Path("calibration.json")
INPUTS = ("probabilities", "log_probabilities", "logits")
PANEL = "Probabilities of any model (no run, no torch)"

Probabilities = Annotated[
    Path | None,
    typer.Option(
        "--probabilities",
        metavar="FILE",
        help="CSV, Parquet or NPZ: a row a case, a column an outcome.",
        rich_help_panel=PANEL,
    ),
]
Certificate = Annotated[
    Path | None,
    typer.Option(
        "--certificate",
        metavar="FILE",
        help="What calibrate --probabilities wrote.",
        show_default=str(CERTIFICATE),
        rich_help_panel=PANEL,
    ),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(
        "--label-column",
        help="Column with the right outcome.",
        show_default="label, later as calibrated",
        rich_help_panel=PANEL,
    ),
]
IdColumn = Annotated[
    str | None,
    typer.Option(
        "--id-column",
        help="Column with the id of the row.",
        show_default="id if there is one, later as calibrated",
        rich_help_panel=PANEL,
    ),
]
ScoreInputs = Annotated[
    str | None,
    typer.Option(
        "--inputs",
        metavar="|".join(INPUTS),
        help="What the numbers are.",
        show_default="probabilities, later as calibrated; NPZ says it",
        rich_help_panel=PANEL,
    ),
]


def refuse_without(probabilities: Path | None, given: Mapping[str, object]) -> None:
    """Refuse options that mean something only beside ``--probabilities``."""
    extra = [name for name, value in given.items() if value is not None]
    if probabilities is None and extra:
        raise typer.BadParameter("it goes with --probabilities FILE", param_hint=" / ".join(extra))


def refuse_with(probabilities: Path | None, given: Mapping[str, object]) -> None:
    """Refuse options of a run beside ``--probabilities``."""
    extra = [name for name, value in given.items() if value not in (None, False)]
    if probabilities is not None and extra:
        raise typer.BadParameter("it belongs to a run, not to --probabilities", param_hint=" / ".join(extra))


def calibrate_file(
    session: Session,
    probabilities: Path,
    *,
    validation: Path | None,
    labels: Path | None,
    output: Path | None,
    label_column: str | None,
    id_column: str | None,
    inputs: str | None,
    config: Path | None,
    overrides: Sequence[str] | None,
) -> None:
    """Calibrate on a file and show the certificate."""
    from finetune.application.ports import ProbabilityFile

    container, output = session.container, output or CERTIFICATE
    settings = container.read_guarantee_config(config, list(overrides or ()))
    file = ProbabilityFile(
        path=probabilities,
        label=label_column or ProbabilityFile.label,
        id=id_column or ProbabilityFile.id,
        inputs=_checked(inputs),
    )
    names = None if labels is None else container.read_labels(labels)
    use_case = container.calibrate_probabilities()
    document = use_case(settings, file, output, validation=validation, labels=names).document()
    following = _command("evaluate", output, probabilities=f"TEST{probabilities.suffix}")
    session.finish(document, calibrated_probabilities(document, output, following))


def evaluate_file(
    session: Session,
    probabilities: Path,
    *,
    certificate: Path | None,
    output: Path | None,
    report: bool,
    label_column: str | None,
    id_column: str | None,
    inputs: str | None,
) -> None:
    """Evaluate a file and show what was found."""
    certificate = certificate or CERTIFICATE
    output = output or certificate.with_name("evaluation.json")
    document = (
        session.container.evaluate_probabilities()(
            certificate,
            probabilities,
            output,
            reading=_reading(label_column, id_column, inputs),
            page=report,
        )
    ).document()
    written = (output, output.with_suffix(".html")) if report else (output,)
    following = _command(
        "predict", certificate, probabilities=f"NEW{probabilities.suffix}", output="decisions.jsonl"
    )
    session.finish(document, evaluated_probabilities(document, written, following))


def predict_file(
    session: Session,
    probabilities: Path,
    *,
    certificate: Path | None,
    output: Path | None,
    id_column: str | None,
    inputs: str | None,
) -> None:
    """Decide on a file."""
    if output is None:
        raise typer.BadParameter("--probabilities FILE needs a file to write to", param_hint="--output")
    document = (
        session.container.predict_probabilities()(
            certificate or CERTIFICATE, probabilities, output, reading=_reading(None, id_column, inputs)
        )
    ).document()
    session.finish(document, predicted(document))


def _reading(label: str | None, id: str | None, inputs: str | None) -> Reading:
    from finetune.application.external import Reading

    return Reading(label, id, _checked(inputs))


def _checked(inputs: str | None) -> Inputs | None:
    if inputs is None or inputs in INPUTS:
        return inputs  # type: ignore[return-value]
    raise typer.BadParameter(f"{inputs!r} is none of {', '.join(INPUTS)}", param_hint="--inputs")


def _command(name: str, certificate: Path, **options: Any) -> str:
    """Return the next command; names in capitals stand for files that only the reader knows."""
    words = ["finetune", name]
    for option, value in options.items():
        words += [f"--{option}", str(value)]
    if certificate != CERTIFICATE:
        words += ["--certificate", str(certificate)]
    return shlex.join(words)
