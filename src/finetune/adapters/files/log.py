"""The append-only time series of a run: one JSON object a line."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune.application.training_log import BEGINNINGS, last_training
from finetune.domain.errors import IntegrityError, InvalidInput


class JsonlLog:
    """``metrics.jsonl`` in a folder.

    A line is flushed and synced before :meth:`append` returns.  A last line that a kill cut short is
    left as it is and the next event starts a fresh line, so readers lose that one line at most:
    :func:`read_metrics` passes it over.

    Parameters
    ----------
    folder
        The run folder; made when the first event comes.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "metrics.jsonl"

    def append(self, event: str, values: Mapping[str, Any]) -> None:
        """Append one event; it is on disk when the call returns.

        Raises
        ------
        InvalidInput
            Where a value is NaN, infinite or not JSON: such a line could not be read back.
        """
        try:
            line = json.dumps({"event": event, **values}, allow_nan=False, ensure_ascii=False)
        except (TypeError, ValueError) as error:
            raise InvalidInput(
                f"the event {event!r} is not JSON: {error}",
                where=str(self.path),
                seen=dict(values),
                remedy="log finite numbers and text only",
            ) from error
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the series of the training that was begun last.

    Parameters
    ----------
    path
        ``metrics.jsonl`` of a run folder; it may be written to meanwhile.

    Returns
    -------
    list
        The events that count, in their order; see :func:`~finetune.application.training_log.last_training`.
        A line that a kill cut short is left out: the last one, or one before a training began or went on.

    Raises
    ------
    InvalidInput
        There is no such file.
    IntegrityError
        Another line cannot be read.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError as error:
        raise InvalidInput(
            "there is no log of a training", where=str(path), remedy="run `finetune train` first"
        ) from error
    events: list[dict[str, Any]] = []
    torn: int | None = None
    for number, line in enumerate(lines, start=1):
        event = _event(line)
        if event is None:
            torn = torn or (number if line else None)
            continue
        if torn is not None and event["event"] not in BEGINNINGS:
            raise IntegrityError(
                "this line is damaged: it is no event, and no training was interrupted there",
                where=f"{path}:{torn}",
                seen=lines[torn - 1].decode(errors="replace"),
                remedy="restore the file, or take the line out",
            )
        torn = None
        events.append(event)
    return last_training(events)


def _event(line: bytes) -> dict[str, Any] | None:
    """Return what a line says; None where it is empty, cut short or no event."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None
