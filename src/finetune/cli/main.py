"""The command line application: ``finetune COMMAND``.

What a command raises is turned here, and only here, into one message and one exit code.
"""

from __future__ import annotations

import io
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from finetune import __version__
from finetune.cli import exits
from finetune.cli.backends import backends
from finetune.cli.calibrate import calibrate
from finetune.cli.demo import demo
from finetune.cli.evaluate import evaluate
from finetune.cli.export import export
from finetune.cli.init import init
from finetune.cli.page import draws
from finetune.cli.predict import predict
from finetune.cli.prepare import prepare
from finetune.cli.sweep import sweep
from finetune.cli.train import train


class Commands(TyperGroup):
    """The group of all commands, with this package's way to fail."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> NoReturn:
        """Run a command line and exit; no exception but ``SystemExit`` leaves."""
        arguments = list(sys.argv[1:] if args is None else args)
        try:
            status = super().main(arguments, *rest, **{**extra, "standalone_mode": False})
            if status == exits.INTERRUPTED:  # what Typer makes of Ctrl-C
                command = next((word for word in arguments if word in self.commands), None)
                exits.report_interrupt(command, as_json="--json" in arguments)
        except Exception as error:  # noqa: BLE001 - the last place where anything can be said about it
            status = exits.report(
                error,
                # Read from the raw words: errors in the command line itself are answered in JSON too.
                as_json="--json" in arguments,
                debug="--debug" in arguments or os.environ.get("FINETUNE_DEBUG", "0") not in ("", "0"),
                command_line=f"finetune {shlex.join(arguments)}",
            )
        sys.exit(status or exits.OK)


app = typer.Typer(
    name="finetune",
    cls=Commands,
    help="Decisions you can stake something on, from an LLM you tuned yourself.",
    epilog="Start with 'finetune demo' to see all of it in a few minutes, or 'finetune init FOLDER'.",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich" if draws(sys.stdout) else None,
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
    _debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of unforeseen errors (or FINETUNE_DEBUG=1).")
    ] = False,
) -> None:
    """Answer what is asked of the application itself."""
    if version:
        print(f"finetune {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


for command in (init, prepare, train, sweep, calibrate, evaluate, predict, export, demo, backends):
    app.command()(command)


def run() -> None:
    """Run the command line: the entry point of the ``finetune`` script."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Texts may hold what the terminal's encoding lacks; to show them must not be what fails.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone (| head): Python must not complain about it as it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(exits.OTHER)
