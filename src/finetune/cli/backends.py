"""``finetune backends``: which kinds of models can be used here, and what the others need."""

from __future__ import annotations

import typer

from finetune.cli.options import Json, Quiet
from finetune.cli.pages import backend_list
from finetune.cli.session import open_session


def backends(context: typer.Context, as_json: Json = False, quiet: Quiet = False) -> None:
    """List the kinds of models, and what to install for those that are missing."""
    session = open_session(context, as_json=as_json, quiet=quiet)
    found = [info._asdict() for info in session.container.list_backends()]
    session.finish({"version": 1, "backends": found}, backend_list(found))
