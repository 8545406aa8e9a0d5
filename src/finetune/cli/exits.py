"""What goes wrong, as one message and one exit code.

====  ======================================================================================
code  meaning
====  ======================================================================================
0     done
1     a deliberate error that has no code of its own
2     the command line itself is not valid
3     data, an argument or the configuration is not what it must be (``InvalidInput``)
4     too few rows for what was asked (``InsufficientData``)
5     the guarantee asked for cannot be given with these rows (``InfeasibleGuarantee``)
6     rows that must be unseen were seen (``LeakageDetected``)
7     a file is damaged or belongs to another run (``IntegrityError``)
8     an optional dependency is not installed (``MissingExtra``)
9     a server that is needed does not answer (``Unavailable``)
70    anything unforeseen: a bug here or in a library
74    the operating system refused to read or write a file
130   stopped with Ctrl-C
====  ======================================================================================

Scripts may rely on this table.
"""

from __future__ import annotations

import json
import math
import sys
import traceback
from typing import Any

import typer

from finetune.cli.console import stderr_console
from finetune.cli.page import draws

OK = 0
OTHER = 1
USAGE = 2
UNFORESEEN = 70
IO = 74
INTERRUPTED = 130

DELIBERATE = {
    "InvalidInput": 3,
    "InsufficientData": 4,
    "InfeasibleGuarantee": 5,
    "LeakageDetected": 6,
    "IntegrityError": 7,
    "MissingExtra": 8,
    "Unavailable": 9,
}

# What Ctrl-C leaves behind, and how to go on.  Every write is atomic, so no command leaves half a file.
AFTER_INTERRUPT = {
    "prepare": "Each file is either complete or as it was before. Run the same command again.",
    "train": "Checkpoints up to the last save are safe. Go on from there with the same command and --resume.",
    "sweep": "Trials that ended and the last checkpoint are safe. Go on with the same command and --resume.",
    "calibrate": "An earlier certificate is untouched. Run the same command again.",
    "evaluate": "An earlier evaluation is untouched. Run the same command again.",
    "predict": "With --output, finished rows are kept: the same command goes on after them.",
    "export": "Nothing of it is left in place. Run the same command again.",
    "demo": "The demo folder can be deleted. Run the same command again.",
}


def exit_code(error: BaseException) -> int:
    """Return the exit code of an error.

    Examples
    --------
    >>> from finetune.domain.errors import FinetuneError, LeakageDetected
    >>> exit_code(LeakageDetected("seen twice")), exit_code(FinetuneError("odd"))
    (6, 1)
    >>> exit_code(PermissionError(13, "no")), exit_code(ZeroDivisionError())
    (74, 70)
    """
    from finetune.domain.errors import FinetuneError

    if isinstance(error, typer.TyperException):
        return error.exit_code
    if isinstance(error, FinetuneError):
        # A subclass that is not in the table has the code of the nearest ancestor that is.
        names = (kind.__name__ for kind in type(error).__mro__)
        return next((DELIBERATE[name] for name in names if name in DELIBERATE), OTHER)
    return IO if isinstance(error, OSError) else UNFORESEEN


def message(error: BaseException, command_line: str = "finetune ...") -> str:
    """Return what people read: the problem first, then what to do about it, a line each.

    Parameters
    ----------
    error
        What was raised.
    command_line
        What was typed, for the hint how to see the traceback.

    Examples
    --------
    >>> from finetune.domain.errors import InvalidInput
    >>> print(message(InvalidInput("the text is empty", where="a.csv:7", remedy="drop the row")))
    a.csv:7: the text is empty.
    What to do: drop the row.
    """
    from finetune.domain.errors import FinetuneError

    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        hint = f"\nWhat to do: see {context.command_path} --help." if context is not None else ""
        return error.format_message() + hint
    if isinstance(error, FinetuneError):
        if error.remedy is None:
            return str(error)
        remedy = f"What to do: {error.remedy}."
        return f"{str(error).removesuffix(remedy).rstrip()}\n{remedy}"
    if isinstance(error, OSError) and error.strerror is not None:
        place = f"{error.filename}: " if error.filename is not None else ""
        return (
            f"{place}{error.strerror}.\nWhat to do: check the path, its permissions and the free disk space."
        )
    frames = traceback.extract_tb(error.__traceback__)
    place = f"\nRaised at {frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}." if frames else ""
    return (
        f"unforeseen {type(error).__name__}: {error}{place}\n"
        f"What to do: see the whole traceback with FINETUNE_DEBUG=1 {command_line}"
    )


def document(error: BaseException) -> dict[str, Any]:
    """Return the error as ``--json`` prints it.

    Examples
    --------
    >>> from finetune.domain.errors import InvalidInput
    >>> document(InvalidInput("too small", where="lora.r", seen=0))["error"]["where"]
    'lora.r'
    """
    from finetune.domain.errors import FinetuneError

    facts: dict[str, Any] = {
        "type": type(error).__name__,
        "exit_code": exit_code(error),
        "message": message(error),
    }
    if isinstance(error, FinetuneError):
        facts |= {name: _for_json(value) for name, value in vars(error).items() if value is not None}
    return {"error": facts}


def _for_json(value: Any) -> Any:
    """Return a value that JSON can hold: NaN and infinities, which it lacks, as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list | tuple):
        return [_for_json(part) for part in value]
    if isinstance(value, dict):
        return {str(name): _for_json(part) for name, part in value.items()}
    return value


def report(error: BaseException, *, as_json: bool, debug: bool, command_line: str) -> int:
    """Print the error for people on stderr, with ``as_json`` for programs on stdout too; return its code."""
    if debug:
        traceback.print_exception(error)
    _complain(message(error, command_line))
    if as_json:
        print(json.dumps(document(error), ensure_ascii=False, allow_nan=False, default=repr))
    return exit_code(error)


def report_interrupt(command: str | None, *, as_json: bool) -> None:
    """Say what Ctrl-C left behind and how to go on."""
    text = f"stopped by Ctrl-C.\n{AFTER_INTERRUPT.get(command or '', 'Run the same command again.')}"
    _complain(text)
    if as_json:
        print(json.dumps({"error": {"type": "Interrupted", "exit_code": INTERRUPTED, "message": text}}))


def _complain(text: str) -> None:
    if draws(sys.stderr):
        console = stderr_console()
        console.print("[bold red]Error:[/] ", end="", highlight=False)
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    else:
        print(f"Error: {text}", file=sys.stderr)
