"""``finetune evaluate``: what was certified is measured on test rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finetune.cli.options import Config, Json, Overrides, Quiet, Run
from finetune.cli.pages import evaluated
from finetune.cli.probabilities import (
    PANEL,
    Certificate,
    IdColumn,
    LabelColumn,
    Probabilities,
    ScoreInputs,
    evaluate_file,
    refuse_with,
    refuse_without,
)
from finetune.cli.session import open_session, read_config, run_options


def evaluate(
    context: typer.Context,
    config: Config = None,
    overrides: Overrides = None,
    run: Run = None,
    base: Annotated[
        bool, typer.Option("--base", help="Score the base model without the adapter too, to compare.")
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="RUN", help="Another run, evaluated on the same rows, to compare."),
    ] = None,
    probabilities: Probabilities = None,
    certificate: Certificate = None,
    label_column: LabelColumn = None,
    id_column: IdColumn = None,
    inputs: ScoreInputs = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The evaluation; the page lies beside it as .html.",
            show_default="evaluation.json beside the certificate",
            rich_help_panel=PANEL,
        ),
    ] = None,
    report: Annotated[
        bool | None,
        typer.Option(
            "--report/--no-report",
            help="Write the page, which needs the extra 'report'.",
            show_default="--report",
            rich_help_panel=PANEL,
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure what was certified on rows that nothing has seen."""
    refuse_with(
        probabilities,
        {
            "--config": config,
            "--set": overrides or None,
            "--run": run,
            "--base": base,
            "--against": against,
        },
    )
    refuse_without(
        probabilities,
        {
            "--certificate": certificate,
            "--label-column": label_column,
            "--id-column": id_column,
            "--inputs": inputs,
            "--output": output,
            "--report": report,
        },
    )
    session = open_session(context, as_json=as_json, quiet=quiet)
    if probabilities is not None:
        evaluate_file(
            session,
            probabilities,
            certificate=certificate,
            output=output,
            report=report is not False,
            label_column=label_column,
            id_column=id_column,
            inputs=inputs,
        )
        return
    settings = read_config(session, config, overrides, run)
    document = session.container.evaluate()(settings, base=base, against=against).document()
    session.finish(document, evaluated(document, settings, run_options(config, run, overrides)))
