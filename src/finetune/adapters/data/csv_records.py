"""Records of a CSV file, so that one broken line costs one record."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from finetune.adapters.data.lines import numbered_lines, printable
from finetune.domain.errors import InvalidInput

# Separators other than the comma, by which a header in one piece is told.
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


class Record(NamedTuple):
    """The fields of one record, as many as the header has; ``raw`` is what stood there."""

    line: int
    fields: list[str]
    raw: str


class Broken(NamedTuple):
    """A line that is no record; ``content`` is what stood there."""

    line: int
    problem: str
    content: str


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


class CsvRecords:
    """A comma-separated file with a header line; quotes as in RFC 4180.

    After a broken record reading goes on with the line after its first one, so that a quote that is
    never closed costs one row (the csv module's limit on the length of a field, 131,072 characters
    unless changed, bounds the search for its end).

    Parameters
    ----------
    path
        The file.

    Attributes
    ----------
    header
        The names of the columns, all different.

    Raises
    ------
    InvalidInput
        Where the file cannot be opened, or has no sound header.
    """

    def __init__(self, path: Path) -> None:
        self._feed = _Feed(numbered_lines(path))
        self._reader = csv.reader(self._feed, strict=True)
        try:
            self.header = next(self._reader)
        except (StopIteration, csv.Error) as error:
            raise InvalidInput(
                "there is no header line" if isinstance(error, StopIteration) else f"broken header: {error}",
                where=f"{path}:1",
                remedy="the first line of a CSV file must name its columns",
            ) from error
        if len(self.header) == 1:
            self._refuse_separator(self.header[0], path)
        twice = sorted({name for name in self.header if self.header.count(name) > 1})
        if twice:
            raise InvalidInput(
                "columns have the same name", where=f"{path}:1", seen=twice, remedy="rename one of them"
            )

    @staticmethod
    def _refuse_separator(header: str, path: Path) -> None:
        found = next((name for mark, name in _SEPARATORS.items() if mark in header), None)
        if found is not None:
            raise InvalidInput(
                f"the columns are separated by {found}, not by commas",
                where=f"{path}:1",
                seen=header,
                remedy="save the file with commas between the columns and points in decimal numbers",
            )

    def __iter__(self) -> Iterator[Record | Broken]:
        feed, width = self._feed, len(self.header)
        while True:
            feed.begin_record()
            try:
                fields = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                feed.give_back_all_but_first()
                problem = f"broken CSV: {error}"
            else:
                if not fields:
                    continue
                if len(fields) == width:
                    yield Record(feed.taken[0][0], fields, "".join(line for _, line in feed.taken))
                    continue
                feed.give_back_all_but_first()
                problem = f"broken CSV: {len(fields)} fields, but the header has {width}"
            number, line = feed.taken[0]
            yield Broken(number, problem, printable(line))
