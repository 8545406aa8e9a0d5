"""Showing that work goes on, and the time of day."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class ProgressTask(Protocol):
    """One piece of work whose progress is shown."""

    def advance(self, n: int = 1) -> None:
        """Say that ``n`` more units are done."""

    def describe(self, text: str) -> None:
        """Show a short text beside the bar, e.g. the current loss."""


class Progress(Protocol):
    """Shows people that work goes on, and how long it will take."""

    def task(self, description: str, total: int) -> AbstractContextManager[ProgressTask]:
        """Open a task of ``total`` units; it ends with the context."""

    def say(self, message: str) -> None:
        """Show one line that stays."""


class Clock(Protocol):
    """The time of day."""

    def now(self) -> str:
        """Return the current UTC time in ISO 8601 with seconds."""
