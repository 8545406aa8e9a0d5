"""Reading CSV so that one broken line costs one row."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from finetune.adapters.data.lines import is_broken, numbered_lines, printable
from finetune.adapters.data.rows import checked_row, require_column
from finetune.application.config import Columns
from finetune.application.ports import BadRow, RawRow
from finetune.domain.errors import InvalidInput


class _Feed:
    """Lines for ``csv.reader`` that remembers, and can give back, those of the current record."""

    def __init__(self, lines: Iterator[tuple[int, str]]) -> None:
        self._lines = lines
        self._again: deque[tuple[int, str]] = deque()
        self.taken: list[tuple[int, str]] = []

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        item = self._again.popleft() if self._again else next(self._lines)
        self.taken.append(item)
        return item[1]

    def begin_record(self) -> None:
        self.taken = []

    def give_back_all_but_first(self) -> None:
        self._again.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]


def read_csv(path: Path, columns: Columns) -> Iterator[RawRow | BadRow]:
    """Yield the rows of a comma-separated file with a header line; quotes as in RFC 4180.

    After a broken record reading goes on with the line after its first one, so that a quote that is
    never closed costs one row (the csv module's limit on the length of a field, 131,072 characters
    unless changed, bounds the search for its end).  An empty cell is ``""`` in the text column and no
    value elsewhere.
    """
    feed = _Feed(numbered_lines(path))
    reader = csv.reader(feed, strict=True)
    header = _header(reader, path, columns)
    while True:
        feed.begin_record()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            feed.give_back_all_but_first()
            problem = f"broken CSV: {error}"
        else:
            if not fields:
                continue
            if len(fields) == len(header):
                yield _row(path, feed, dict(zip(header, fields, strict=True)), columns)
                continue
            feed.give_back_all_but_first()
            problem = f"broken CSV: {len(fields)} fields, but the header has {len(header)}"
        number, line = feed.taken[0]
        yield BadRow(f"{path}:{number}", problem, printable(line))


def _header(reader: Iterator[list[str]], path: Path, columns: Columns) -> list[str]:
    try:
        header = next(reader)
    except (StopIteration, csv.Error) as error:
        raise InvalidInput(
            "there is no header line" if isinstance(error, StopIteration) else f"broken header: {error}",
            where=f"{path}:1",
            remedy="the first line of a CSV file must name its columns",
        ) from error
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InvalidInput(
            "columns have the same name", where=f"{path}:1", seen=twice, remedy="rename one of them"
        )
    require_column(columns.text, header, f"{path}:1")
    return header


def _row(path: Path, feed: _Feed, cells: dict[str, str], columns: Columns) -> RawRow | BadRow:
    raw = "".join(line for _, line in feed.taken)
    position = f"{path}:{feed.taken[0][0]}"
    if is_broken(raw):
        return BadRow(position, "not valid UTF-8", printable(raw))
    values = {name: cell if cell or name == columns.text else None for name, cell in cells.items()}
    return checked_row(position, values, columns, printable(raw))
