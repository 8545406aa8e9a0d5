from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from finetune.cli.console import (
    PlainProgress,
    RichProgress,
    SilentProgress,
    choose_progress,
    clock_text,
)


class Ticks:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Ticks:
    return Ticks()


def plain(clock: Callable[[], float]) -> tuple[PlainProgress, io.StringIO]:
    stream = io.StringIO()
    return PlainProgress(stream, clock), stream


def test_short_work_leaves_no_line(clock: Ticks) -> None:
    progress, stream = plain(clock)
    with progress.task("quick", 100) as task:
        for _ in range(100):
            clock.seconds += 0.01
            task.advance()
    assert stream.getvalue() == ""


def test_long_work_has_a_line_after_two_seconds_then_every_ten(clock: Ticks) -> None:
    progress, stream = plain(clock)
    with progress.task("scoring", 60) as task:
        for _ in range(60):
            clock.seconds += 0.5
            task.advance()
    lines = stream.getvalue().splitlines()
    assert [line.split(" (")[0] for line in lines] == [
        "scoring: 4/60",
        "scoring: 24/60",
        "scoring: 44/60",
        "scoring: 60/60",
    ]
    assert lines[1].endswith("(40 %), 0:18 left")
    assert lines[-1].endswith("(100 %) in 0:30")


def test_the_description_stands_at_the_end_of_the_line(clock: Ticks) -> None:
    progress, stream = plain(clock)
    with progress.task("training", 2) as task:
        task.describe("loss 0.512")
        clock.seconds = 3.0
        task.advance()
    assert stream.getvalue().splitlines()[0] == "training: 1/2 (50 %), 0:03 left, loss 0.512"


def test_a_failed_task_is_not_reported_as_done(clock: Ticks) -> None:
    progress, stream = plain(clock)

    def broken() -> None:
        with progress.task("scoring", 2):
            clock.seconds = 60.0
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        broken()
    assert " in " not in stream.getvalue()


def terminal(width: int = 100, **settings: object) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, **settings)  # type: ignore[arg-type]


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_no_bar_is_drawn_for_short_work() -> None:
    console = terminal()
    progress = RichProgress(console, patience=60.0)
    with progress.task("quick", 3) as task:
        task.advance(3)
    assert shown(console) == ""


def test_a_bar_is_drawn_for_long_work_even_before_the_first_step_ends() -> None:
    console = terminal()
    progress = RichProgress(console, patience=0.0)
    with progress.task("loading", 4) as task:
        deadline = time.monotonic() + 10
        while "loading" not in shown(console) and time.monotonic() < deadline:
            time.sleep(0.01)
        task.describe("shard 2")
        task.advance(4)
    assert "4/4" in shown(console)
    assert "100%" in shown(console)
    assert "shard 2" in shown(console)


def test_a_message_is_shown_even_if_no_bar_is() -> None:
    console = terminal()
    RichProgress(console).say("removed 3 [near] duplicates")
    assert "removed 3 [near] duplicates" in shown(console)


def test_no_colour_is_written_when_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    console = terminal(_environ={"NO_COLOR": "1", "TERM": "xterm-256color"})
    progress = RichProgress(console, patience=0.0)
    with progress.task("loading", 1) as task:
        deadline = time.monotonic() + 10
        while "loading" not in shown(console) and time.monotonic() < deadline:
            time.sleep(0.01)
        task.advance()
    assert "\x1b[38" not in shown(console)
    assert "\x1b[32" not in shown(console)


@pytest.mark.parametrize("width", [40, 60, 100])
def test_a_bar_keeps_to_the_width_of_the_terminal(width: int) -> None:
    console = terminal(width)
    progress = RichProgress(console, patience=0.0)
    with progress.task("scoring the calibration rows", 1200) as task:
        deadline = time.monotonic() + 10
        while not shown(console) and time.monotonic() < deadline:
            time.sleep(0.01)
        task.describe("a long text beside the bar")
        task.advance(600)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown(console))
    assert text
    assert max(len(line) for line in re.split(r"[\r\n]", text)) <= width


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("term", "quiet", "as_json", "kind"),
    [
        ("xterm", False, False, RichProgress),
        ("xterm", False, True, PlainProgress),
        ("dumb", False, False, PlainProgress),
        ("xterm", True, False, SilentProgress),
    ],
)
def test_the_progress_suits_the_place(
    monkeypatch: pytest.MonkeyPatch, term: str, quiet: bool, as_json: bool, kind: type
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "stderr", Tty())
    assert isinstance(choose_progress(quiet=quiet, as_json=as_json), kind)


def test_a_log_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert isinstance(choose_progress(quiet=False, as_json=False), PlainProgress)


def test_hours_are_written_out() -> None:
    assert clock_text(3600) == "1:00:00"
