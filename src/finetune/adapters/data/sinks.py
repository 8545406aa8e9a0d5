"""Writing decisions so that an interrupted run can be continued and a finished file is whole."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from finetune.domain.decisions import DecisionRecord
from finetune.domain.errors import InvalidInput

CSV_COLUMNS = tuple(DecisionRecord.model_fields)
"""Columns of a CSV output: the fields of a record; nested ones hold JSON."""


def open_sink(path: Path, key: str) -> FileSink:
    """Open a sink for an output file, JSONL or CSV by suffix.

    Records go to ``<path>.partial``, and ``<path>.partial.key`` says what work they belong to.  Where
    both are there and the key is the same, the work is continued after the last whole record;
    where the key differs, the earlier partial file is kept beside it as ``….old``.

    Parameters
    ----------
    path
        The output; it appears (or is replaced) only when the sink is finished.
    key
        Names input and certificate.

    Raises
    ------
    InvalidInput
        For another type of file, or a folder that cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in _ENCODERS:
        raise InvalidInput(
            f"outputs of this type cannot be written; supported are {', '.join(_ENCODERS)}",
            where=str(path),
            seen=path.suffix,
            remedy="name the output decisions.jsonl, for instance",
        )
    return FileSink(path, key)


class FileSink:
    """See :func:`open_sink`.

    Attributes
    ----------
    done
        How many records an earlier, interrupted call already wrote.
    notice
        What became of an earlier call's records, in one line for people; None without any.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self._partial = path.with_name(f"{path.name}.partial")
        self._key = path.with_name(f"{path.name}.partial.key")
        self._is_csv = path.suffix.lower() == ".csv"
        self._encode = _ENCODERS[path.suffix.lower()]
        self.done = 0
        self.notice: str | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if self._partial.exists():
                self._take_up(key)
            self._key.write_text(key, encoding="utf-8")
            self._put(b"")
            if self._is_csv and not self._partial.stat().st_size:
                self._put(_csv_line(CSV_COLUMNS))
        except OSError as error:
            raise InvalidInput(
                f"the output cannot be written: {error.strerror}",
                where=str(path),
                remedy="choose a folder that you may write to",
            ) from error

    def write(self, records: Sequence[DecisionRecord]) -> None:
        """Write records; they are on disk when the call returns."""
        self._put(b"".join(self._encode(record) for record in records))

    def finish(self) -> None:
        """Put the complete file in its place."""
        self._partial.replace(self.path)
        self._key.unlink(missing_ok=True)

    def _put(self, data: bytes) -> None:
        # Opened for each write: a caller that stops half-way has nothing to close.
        with self._partial.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def _take_up(self, key: str) -> None:
        if not self._key.exists() or self._key.read_text(encoding="utf-8") != key:
            old = self._free_name()
            self._partial.rename(old)
            self.notice = f"started anew: {old} holds an interrupted run over other input or another model"
            return
        lines, end = whole_lines(self._partial, quoted=self._is_csv)
        os.truncate(self._partial, end)
        self.done = max(lines - self._is_csv, 0)
        if self.done:
            self.notice = f"continued: {self.done:,} records were already in {self._partial}"

    def _free_name(self) -> Path:
        old = self._partial.with_name(f"{self._partial.name}.old")
        number = 2
        while old.exists():
            old = self._partial.with_name(f"{self._partial.name}.old{number}")
            number += 1
        return old


def whole_lines(path: Path, *, quoted: bool) -> tuple[int, int]:
    """Count the complete lines of a file and the bytes they take; a last line cut short is neither.

    Parameters
    ----------
    path
        The file.
    quoted
        Line ends inside double quotes end no line (CSV).
    """
    lines = end = position = 0
    inside = False
    with path.open("rb") as file:
        for line in file:
            position += len(line)
            if quoted and line.count(b'"') % 2:
                inside = not inside
            if line.endswith(b"\n") and not inside:
                lines, end = lines + 1, position
    return lines, end


def _jsonl(record: DecisionRecord) -> bytes:
    return (record.to_json() + "\n").encode()


def _csv(record: DecisionRecord) -> bytes:
    document = record.model_dump(mode="json")
    return _csv_line([_cell(document[name]) for name in CSV_COLUMNS])


def _cell(value: object) -> object:
    if isinstance(value, Mapping | list | bool):
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    return value


def _csv_line(cells: Sequence[object]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue().encode("utf-8", "backslashreplace")


_ENCODERS: Mapping[str, Callable[[DecisionRecord], bytes]] = {".jsonl": _jsonl, ".csv": _csv}
