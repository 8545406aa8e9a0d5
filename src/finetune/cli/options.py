"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_CONFIG = Path("configs/llm_lora.yaml")

Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="The project's configuration.", show_default=str(DEFAULT_CONFIG)),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change one key, e.g. lora.r=8. Repeatable."),
]
Run = Annotated[
    Path | None,
    typer.Option(
        "--run",
        help="A trained run; its own config.yaml is read in place of --config.",
        show_default="the run that the configuration names",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print predictions and errors only.")]
