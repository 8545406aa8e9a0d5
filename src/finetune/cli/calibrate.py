"""``finetune calibrate``: the run gets its certificate."""

from __future__ import annotations

import typer

from finetune.cli.options import Config, Json, Overrides, Quiet, Run
from finetune.cli.pages import calibrated
from finetune.cli.session import open_session, read_config, run_options


def calibrate(
    context: typer.Context,
    config: Config = None,
    overrides: Overrides = None,
    run: Run = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit the thresholds on unseen rows and write the certificate."""
    session = open_session(context, as_json=as_json, quiet=quiet)
    settings = read_config(session, config, overrides, run)
    # A project's label file may hold newer costs; a run named by its folder has those of its training.
    labels = session.container.read_labels(settings.labels) if run is None else None
    document = session.container.calibrate()(settings, labels).document()
    session.finish(document, calibrated(document, settings, run_options(config, run, overrides)))
