"""Searching settings: what is proposed, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

Value = str | int | float | bool | None
Settings = Mapping[str, Value]
Direction = Literal["minimize", "maximize"]


class LogRange(NamedTuple):
    """Every number from ``low`` to ``high``, drawn on a logarithmic scale; ``0 < low < high``."""

    low: float
    high: float


Space = Mapping[str, LogRange | tuple[Value, ...]]
"""What to search, by key of the configuration: a range, or a list of values."""


class Proposal(NamedTuple):
    """Settings to try; trials are numbered from 1."""

    number: int
    settings: Settings


class FinishedTrial(NamedTuple):
    """A trial that was told: ``value`` is what is optimised, None for one that failed."""

    number: int
    settings: Settings
    value: float | None
    facts: Mapping[str, Any]


class SearchStudy(Protocol):
    """A search that survives the process: everything is on disk when a call returns."""

    def ask(self) -> Proposal:
        """Return the trial that was not told yet, or a new one where there is none.

        A new proposal depends on the space, the seed and the trials told so far, and on nothing else.
        Numbers from a range have three significant digits: people type them.  A space of lists alone gives
        each combination once, and :class:`InvalidInput` after the last one.
        """

    def tell(self, number: int, value: float | None, facts: Mapping[str, Any]) -> None:
        """Record what came of a trial: ``value`` None where it failed; ``facts`` are JSON-able."""

    def finished(self) -> tuple[FinishedTrial, ...]:
        """Return the trials that were told, by number."""


class StudyOpener(Protocol):
    """Opens the study of a folder."""

    def __call__(self, folder: Path, space: Space, direction: Direction, seed: int) -> SearchStudy:
        """Open, or begin; raises :class:`MissingExtra` where the search's package is missing."""
