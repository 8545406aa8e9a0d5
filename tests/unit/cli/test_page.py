from __future__ import annotations

import io
import re
import sys

import pytest

from finetune.cli.page import Page, Table, plain, shorten, show

PAGE = Page(
    "Evaluated triage",
    facts=(("rows", "1,200"), ("accuracy", "91 % [sic]")),
    tables=(Table(("label", "rows"), (("urgent", "9"), ("routine", "1,191")), frozenset({1})),),
    said=("The promise was kept.",),
    notes=("Few rows.",),
    written=("artifacts/runs/triage/a-rather-long-name-that-does-not-fit-on-a-narrow-terminal.json",),
    then=("finetune predict --text '...'",),
)


def test_plain_text_is_aligned_and_has_no_trailing_blanks() -> None:
    text = plain(PAGE)
    assert "  rows      1,200\n  accuracy  91 % [sic]\n" in text
    assert "  label     rows\n  urgent       9\n  routine  1,191\n" in text
    assert text.endswith("Next: finetune predict --text '...'")
    assert all(line == line.rstrip() for line in text.splitlines())


def test_an_empty_page_is_its_title() -> None:
    assert plain(Page("Done")) == "Done"


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(monkeypatch: pytest.MonkeyPatch, page: Page, **environment: str) -> str:
    stream = Tty()
    monkeypatch.setattr(sys, "stdout", stream)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "60", **environment}.items():
        monkeypatch.setenv(name, value)
    show(page)
    return stream.getvalue()


def test_a_terminal_gets_everything_with_paths_unbroken(monkeypatch: pytest.MonkeyPatch) -> None:
    text = re.sub(r"\x1b\[[0-9;]*m", "", drawn(monkeypatch, PAGE))
    for piece in (*PAGE.facts[1], "routine", "1,191", *PAGE.said, *PAGE.notes, *PAGE.written, *PAGE.then):
        assert piece in text


def test_a_dumb_terminal_gets_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(monkeypatch, PAGE, TERM="dumb") == plain(PAGE) + "\n"


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", drawn(monkeypatch, PAGE, NO_COLOR="1"))


@pytest.mark.parametrize(
    ("text", "width", "short"), [("ab", 2, "ab"), ("a\n b", 9, "a b"), ("abcd", 3, "ab…")]
)
def test_texts_are_shortened_to_a_line(text: str, width: int, short: str) -> None:
    assert shorten(text, width) == short
