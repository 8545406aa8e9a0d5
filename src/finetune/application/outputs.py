"""Where results may be written."""

from __future__ import annotations

from pathlib import Path

from finetune.domain.errors import InvalidInput


def refuse_overwriting(output: Path, *inputs: Path) -> None:
    """Raise :class:`InvalidInput` where a result would be written over what it is made from."""
    for path in inputs:
        if output.absolute() == path.absolute() or output.resolve() == path.resolve():
            raise InvalidInput(
                "the result would be written over the file that it is made from",
                where=str(output),
                remedy="choose another output file",
            )


def require_json(output: Path) -> None:
    """Raise :class:`InvalidInput` for the name of a document that does not say that it is JSON."""
    if output.suffix.lower() != ".json":
        raise InvalidInput(
            "the result is a JSON document", where=str(output), seen=output.suffix, remedy="name it ….json"
        )
