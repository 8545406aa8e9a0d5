"""``finetune train``: a LoRA adapter is tuned on the prepared data."""

from __future__ import annotations

from typing import Annotated

import typer

from finetune.cli.options import Config, Json, Overrides, Quiet
from finetune.cli.pages import trained
from finetune.cli.session import open_session, read_config, run_options


def train(
    context: typer.Context,
    config: Config = None,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tune an adapter on the prepared data."""
    session = open_session(context, as_json=as_json, quiet=quiet)
    settings = read_config(session, config, overrides)
    labels = session.container.read_labels(settings.labels)
    report = session.container.train()(settings, labels, resume=resume)
    if report.outcome.main_process:  # of several processes, one speaks
        document = report.document()
        session.finish(document, trained(document, settings, run_options(config, None, overrides)))
