"""Rows in, decisions out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from finetune.application.config import Columns, DataFile
from finetune.domain.decisions import DecisionRecord


class RawRow(NamedTuple):
    """One row as it stood in the file; ``position`` is ``file:line``."""

    position: str
    values: Mapping[str, Any]


class BadRow(NamedTuple):
    """A row that could not be read or used; ``content`` is what stood there."""

    position: str
    problem: str
    content: str


class ExampleSource(Protocol):
    """Reads rows from files."""

    def read(self, file: DataFile, columns: Columns) -> Iterator[RawRow | BadRow]:
        """Yield every row of one file in order; a broken row is a :class:`BadRow`, never an exception.

        A file that cannot be read at all, or lacks the text column, raises :class:`InvalidInput`.
        ``columns.label`` may be missing only where no labels are needed (``predict``).
        """


class DecisionSink(Protocol):
    """Takes prediction records, in order, and can be continued."""

    @property
    def done(self) -> int:
        """How many input rows an earlier, interrupted call already wrote."""

    @property
    def notice(self) -> str | None:
        """What became of an earlier call's rows, in one line for people; ``None`` without any."""

    def write(self, records: Sequence[DecisionRecord]) -> None:
        """Write records; they are on disk when the call returns."""

    def finish(self) -> None:
        """Put the complete file in its place."""


class SinkOpener(Protocol):
    """Opens a sink for an output file."""

    def __call__(self, path: Path, key: str) -> DecisionSink:
        """Open; ``key`` names input and certificate, so that only the same work is continued."""
