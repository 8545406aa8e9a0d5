"""``finetune evaluate``: the certified run is measured on the test rows."""

from __future__ import annotations

from typing import Annotated

import typer

from finetune.cli.options import Config, Json, Overrides, Quiet, Run
from finetune.cli.pages import evaluated
from finetune.cli.session import open_session, read_config, run_options


def evaluate(
    context: typer.Context,
    config: Config = None,
    overrides: Overrides = None,
    run: Run = None,
    base: Annotated[
        bool, typer.Option("--base", help="Score the base model without the adapter too, to compare.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure the certified run on rows that nothing has seen."""
    session = open_session(context, as_json=as_json, quiet=quiet)
    settings = read_config(session, config, overrides, run)
    document = session.container.evaluate()(settings, base=base).document()
    session.finish(document, evaluated(document, settings, run_options(config, run, overrides)))
