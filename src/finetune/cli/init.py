"""``finetune init``: a folder with a commented configuration to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finetune.cli.options import Json, Quiet
from finetune.cli.pages import initialised
from finetune.cli.session import open_session


def init(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="The project's folder; made if it is not there.")],
    data: Annotated[
        Path | None, typer.Option("--data", help="Labelled rows; the labels are taken from them.")
    ] = None,
    text_column: Annotated[str, typer.Option("--text-column", help="Column with the text.")] = "text",
    label_column: Annotated[str, typer.Option("--label-column", help="Column with the label.")] = "label",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Start a project: a folder with commented configs."""
    session = open_session(context, as_json=as_json, quiet=quiet)
    document = session.container.init()(folder, data, text_column, label_column).document()
    session.finish(document, initialised(document))
