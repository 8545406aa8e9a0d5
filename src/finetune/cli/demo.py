"""``finetune demo``: the whole way, on made-up data, without a download."""

from __future__ import annotations

import shlex
from contextlib import chdir
from pathlib import Path
from typing import Annotated

import typer

from finetune.cli.options import Json, Quiet
from finetune.cli.page import Page
from finetune.cli.session import open_session


def demo(
    context: typer.Context,
    folder: Annotated[Path, typer.Option("--folder", help="Where to write the demo.")] = Path("demo"),
    rows: Annotated[int, typer.Option("--size", min=200, help="Labelled messages to make.")] = 11000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another seed makes other data.")] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """See all of it on made-up data, offline, in minutes."""
    session = open_session(context, as_json=as_json, quiet=quiet)
    folder.mkdir(parents=True, exist_ok=True)
    # A project's paths are relative to its folder: the demo is run as its user will go on with it.
    with chdir(folder):
        report = session.container.demo()(rows, seed)
    page = Page(
        "\n".join(report.summary_lines()),
        written=(str(folder / report.config.run_folder / "report.html"),),
        then=(f"cd {shlex.quote(str(folder))}", "finetune predict --text '...'"),
    )
    session.finish(report.document(), page)
