"""What every implementation of the Progress port keeps, the fake included."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from rich.console import Console

from finetune.application.ports import Progress, ProgressTask
from finetune.cli.console import PlainProgress, RichProgress, SilentProgress


class RecordingProgress:
    """Keeps what was shown: the fake that other tests may use as an example."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[ProgressTask]:
        self.shown.append(f"{description}/{total}")
        yield self

    def advance(self, n: int = 1) -> None:
        self.shown.append(f"+{n}")

    def describe(self, text: str) -> None:
        self.shown.append(text)

    def say(self, message: str) -> None:
        self.shown.append(message)


def _rich() -> RichProgress:
    return RichProgress(Console(file=io.StringIO(), force_terminal=True, width=100), patience=0.0)


MAKERS: dict[str, Callable[[], Progress]] = {
    "rich": _rich,
    "plain": lambda: PlainProgress(io.StringIO()),
    "silent": SilentProgress,
    "fake": RecordingProgress,
}


@pytest.fixture(params=MAKERS)
def progress(request: pytest.FixtureRequest) -> Progress:
    return MAKERS[request.param]()


def test_a_task_takes_steps_of_any_size_and_descriptions(progress: Progress) -> None:
    with progress.task("scoring", 10) as task:
        task.advance()
        task.describe("loss 0.5")
        task.advance(9)


def test_a_task_may_lie_inside_another_and_messages_come_anywhere(progress: Progress) -> None:
    progress.say("before")
    with progress.task("training", 2) as outer:
        outer.advance()
        with progress.task("validation", 3) as inner:
            inner.advance(3)
            progress.say("inside")
        outer.advance()
    progress.say("after")


def test_an_empty_task_is_no_error(progress: Progress) -> None:
    with progress.task("nothing to do", 0):
        pass


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_an_exception_passes_and_the_next_task_works(
    progress: Progress, failure: type[BaseException]
) -> None:
    def doomed() -> None:
        with progress.task("doomed", 5) as task:
            task.advance()
            raise failure

    with pytest.raises(failure):
        doomed()
    with progress.task("fine", 1) as task:
        task.advance()


def test_markup_in_texts_is_shown_and_not_read(progress: Progress) -> None:
    with progress.task("rows [/oops]", 1) as task:
        task.describe("[bold")
        progress.say("[/] and [red]")
        task.advance()


def test_a_task_can_be_opened_after_another_ended(progress: Progress) -> None:
    for name in ("first", "second"):
        with progress.task(name, 1) as task:
            task.advance()
