"""Progress on stderr: a bar on a terminal, now and then a line in a log, or nothing.

Standard output belongs to results, so everything here goes to standard error.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from finetune.cli.page import draws

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from finetune.application.ports import Progress, ProgressTask

PATIENCE = 2.0  # seconds of work before progress is shown: a bar that flashes by only disturbs
INTERVAL = 10.0  # seconds between two lines in a log


def stderr_console() -> Console:
    """Return a rich console on standard error; it honours ``NO_COLOR``, ``TERM=dumb`` and the width."""
    from rich.console import Console

    return Console(stderr=True)


def choose_progress(*, quiet: bool, as_json: bool) -> Progress:
    """Return the progress that suits the place: silence, lines, or bars on a terminal that can draw them."""
    if quiet:
        return SilentProgress()
    return RichProgress(stderr_console()) if draws(sys.stderr) and not as_json else PlainProgress()


class SilentProgress:
    """Shows nothing at all (``--quiet``)."""

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[ProgressTask]:  # noqa: ARG002
        """Yield a task that shows nothing."""
        yield _SilentTask()

    def say(self, message: str) -> None:
        """Drop the message."""


class _SilentTask:
    def advance(self, n: int = 1) -> None:
        """Do nothing."""

    def describe(self, text: str) -> None:
        """Do nothing."""


class PlainProgress:
    """Lines for logs: the first after two seconds of work, then one every ten, and one at the end.

    Parameters
    ----------
    stream
        Where to write; standard error as it stands at each line if ``None``.
    now
        A monotonic clock in seconds.

    Examples
    --------
    >>> from itertools import count
    >>> ticks = count(step=3)
    >>> with PlainProgress(sys.stdout, now=lambda: next(ticks)).task("scoring", 4) as task:
    ...     task.advance(2)
    ...     task.advance(2)
    scoring: 2/4 (50 %), 0:03 left
    scoring: 4/4 (100 %) in 0:09
    """

    def __init__(self, stream: TextIO | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._now = now

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[ProgressTask]:
        """Yield a task that writes a line now and then."""
        task = _PlainTask(self, description, total)
        yield task
        task.finish()

    def say(self, message: str) -> None:
        """Write the message as a line."""
        print(message, file=self._stream or sys.stderr, flush=True)

    def now(self) -> float:
        """Return the monotonic time in seconds."""
        return self._now()


class _PlainTask:
    def __init__(self, progress: PlainProgress, description: str, total: int) -> None:
        self._progress = progress
        self._description = description
        self._total = total
        self._done = 0
        self._text = ""
        self._start = progress.now()
        self._next_line = self._start + PATIENCE
        self._spoke = False

    def advance(self, n: int = 1) -> None:
        """Count, and write a line where one is due."""
        self._done += n
        now = self._progress.now()
        if now >= self._next_line and self._done < self._total:
            left = (now - self._start) / self._done * (self._total - self._done) if self._done else None
            self._line(f"{clock_text(left)} left" if left is not None else "")
            self._next_line = now + INTERVAL

    def describe(self, text: str) -> None:
        """Keep the text for the next line."""
        self._text = text

    def finish(self) -> None:
        """Write the last line if any was written or the work was long."""
        seconds = self._progress.now() - self._start
        if self._spoke or seconds >= PATIENCE:
            self._line(f"in {clock_text(seconds)}", separator=" ")

    def _line(self, end: str, separator: str = ", ") -> None:
        self._spoke = True
        share = f" ({self._done / self._total:.0%})".replace("%", " %") if self._total else ""
        parts = [f"{self._description}: {self._done}/{self._total}{share}", end]
        line = separator.join(part for part in parts if part)
        self._progress.say(f"{line}, {self._text}" if self._text else line)


class RichProgress:
    """Bars on a terminal, for work that takes more than two seconds.

    Parameters
    ----------
    console
        The terminal.
    patience
        Seconds before a bar is drawn.
    """

    def __init__(self, console: Console, patience: float = PATIENCE) -> None:
        self._console = console
        self._patience = patience
        self._bars: Bars | None = None
        self._open = 0
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[ProgressTask]:
        """Yield a task with a bar; a task inside another has its own bar below it for as long as it runs."""
        bars = self._enter()
        identity = bars.add_task(description, total=total, text="")
        try:
            yield _RichTask(bars, identity)
        finally:
            self._leave(bars, identity)

    def say(self, message: str) -> None:
        """Print the message above the bars."""
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)

    def _enter(self) -> Bars:
        with self._lock:
            self._open += 1
            if self._bars is None:
                self._bars = _bars(self._console)
                # A timer and not a check in `advance`: the first unit of work may take minutes.
                self._timer = threading.Timer(self._patience, self._show, [self._bars])
                self._timer.daemon = True
                self._timer.start()
            return self._bars

    def _show(self, bars: Bars) -> None:
        with self._lock:
            if self._bars is bars:
                bars.start()

    def _leave(self, bars: Bars, identity: TaskID) -> None:
        with self._lock:
            self._open -= 1
            if self._open:
                bars.remove_task(identity)
                return
            self._bars = None
            if self._timer is not None:
                self._timer.cancel()
            if bars.live.is_started:
                bars.stop()


class _RichTask:
    def __init__(self, bars: Bars, identity: TaskID) -> None:
        self._bars = bars
        self._identity = identity

    def advance(self, n: int = 1) -> None:
        """Move the bar."""
        self._bars.advance(self._identity, n)

    def describe(self, text: str) -> None:
        """Show the text after the bar."""
        self._bars.update(self._identity, text=text)


def _bars(console: Console) -> Bars:
    from rich import progress

    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=None if console.width < 80 else 30),
        progress.TaskProgressColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[text]}", markup=False),
        console=console,
    )


def clock_text(seconds: float) -> str:
    """Return a duration as people read it.

    Examples
    --------
    >>> clock_text(7.4), clock_text(95), clock_text(3 * 3600 + 120)
    ('0:07', '1:35', '3:02:00')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
