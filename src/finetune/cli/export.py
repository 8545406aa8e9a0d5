"""``finetune export``: the adapter is merged into plain weights, which get a certificate of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finetune.cli.options import Config, Json, Overrides, Quiet, Run
from finetune.cli.pages import exported
from finetune.cli.session import open_session, read_config


def export(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the model; must not exist.")],
    config: Config = None,
    overrides: Overrides = None,
    run: Run = None,
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Round the weights to bfloat16; else float32.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Merge the adapter into plain weights, and certify them anew."""
    session = open_session(context, as_json=as_json, quiet=quiet)
    settings = read_config(session, config, overrides, run)
    document = session.container.export()(settings, output, "bf16" if bf16 else "fp32").document()
    session.finish(document, exported(document))
