"""The append-only time series of a run: one JSON object a line."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune.domain.errors import InvalidInput


class JsonlLog:
    """``metrics.jsonl`` in a folder.

    A line is flushed and synced before :meth:`append` returns.  A last line that a kill cut short is
    left as it is and the next event starts a fresh line, so readers lose that one line at most.

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
