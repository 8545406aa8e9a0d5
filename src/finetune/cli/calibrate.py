"""``finetune calibrate``: a run, or probabilities from a file, get their certificate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finetune.cli.options import Config, Json, Overrides, Quiet, Run
from finetune.cli.pages import calibrated
from finetune.cli.probabilities import (
    CERTIFICATE,
    PANEL,
    IdColumn,
    LabelColumn,
    Probabilities,
    ScoreInputs,
    calibrate_file,
    refuse_with,
    refuse_without,
)
from finetune.cli.session import open_session, read_config, run_options


def calibrate(
    context: typer.Context,
    config: Config = None,
    overrides: Overrides = None,
    run: Run = None,
    probabilities: Probabilities = None,
    validation: Annotated[
        Path | None,
        typer.Option(
            "--validation",
            metavar="FILE",
            help="Rows for the calibration map.",
            show_default="a fifth of the rows",
            rich_help_panel=PANEL,
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="FILE",
            help="labels.yaml: which columns are outcomes, their aliases and costs.",
            show_default="every other column",
            rich_help_panel=PANEL,
        ),
    ] = None,
    label_column: LabelColumn = None,
    id_column: IdColumn = None,
    inputs: ScoreInputs = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The certificate.",
            show_default=str(CERTIFICATE),
            rich_help_panel=PANEL,
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit the thresholds on unseen rows and write the certificate."""
    refuse_with(probabilities, {"--run": run})
    refuse_without(
        probabilities,
        {
            "--validation": validation,
            "--labels": labels,
            "--label-column": label_column,
            "--id-column": id_column,
            "--inputs": inputs,
            "--output": output,
        },
    )
    session = open_session(context, as_json=as_json, quiet=quiet)
    if probabilities is not None:
        calibrate_file(
            session,
            probabilities,
            validation=validation,
            labels=labels,
            output=output,
            label_column=label_column,
            id_column=id_column,
            inputs=inputs,
            config=config,
            overrides=overrides,
        )
        return
    settings = read_config(session, config, overrides, run)
    # A project's label file may hold newer costs; a run named by its folder has those of its training.
    names = session.container.read_labels(settings.labels) if run is None else None
    document = session.container.calibrate()(settings, names).document()
    session.finish(document, calibrated(document, settings, run_options(config, run, overrides)))
