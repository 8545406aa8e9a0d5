"""``finetune prepare``: labelled rows become checked, divided instruction data."""

from __future__ import annotations

import typer

from finetune.cli.options import Config, Json, Overrides, Quiet
from finetune.cli.pages import prepared
from finetune.cli.session import open_session, read_config, run_options


def prepare(
    context: typer.Context,
    config: Config = None,
    overrides: Overrides = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check the labelled rows and divide them into four splits."""
    session = open_session(context, as_json=as_json, quiet=quiet)
    settings = read_config(session, config, overrides)
    report = session.container.prepare()(settings, session.container.read_labels(settings.labels))
    document = report.document()
    session.finish(document, prepared(document, settings, run_options(config, None, overrides)))
