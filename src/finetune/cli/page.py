"""A result as people read it: a title, facts, tables, what was written, and the next command."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO


@dataclass(frozen=True)
class Table:
    """Rows under headings; columns of numbers are named in ``right``."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Page:
    """One result.

    ``facts`` are pairs of a name and a value, ``said`` sentences, ``notes`` sentences that need attention,
    ``written`` files and folders, ``then`` commands that go on from here.
    """

    title: str
    facts: tuple[tuple[str, str], ...] = ()
    tables: tuple[Table, ...] = ()
    said: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    then: tuple[str, ...] = ()


def shorten(text: str, width: int) -> str:
    """Return a text on one line, cut to ``width`` characters.

    Examples
    --------
    >>> shorten("a long text", 7)
    'a long…'
    """
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1].rstrip()}…"


def draws(stream: TextIO) -> bool:
    """Whether a stream is a terminal that knows colours and lines."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def show(page: Page) -> None:
    """Print a page on standard output: with rich on a terminal, as plain aligned text elsewhere."""
    if draws(sys.stdout):
        _show_rich(page)
    else:
        print(plain(page))


def plain(page: Page) -> str:
    r"""Return a page as plain text.

    Examples
    --------
    >>> print(plain(Page("Trained", (("steps", "12"), ("best loss", "0.31")), then=("finetune calibrate",))))
    Trained
      steps      12
      best loss  0.31
    <BLANKLINE>
    Next: finetune calibrate
    """
    parts = ["\n".join([page.title, *_columns(page.facts)])]
    parts += ["\n".join(_columns([table.headings, *table.rows], table.right)) for table in page.tables]
    parts += [*page.said, *(f"Note: {note}" for note in page.notes)]
    endings = [f"Written: {name}" for name in page.written] + [f"Next: {command}" for command in page.then]
    return "\n\n".join(part for part in [*parts, "\n".join(endings)] if part)


def _columns(rows: Sequence[tuple[str, ...]], right: frozenset[int] = frozenset()) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if position in right else cell.ljust(width)
            for position, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(f"  {'  '.join(cells)}".rstrip())
    return lines


def _show_rich(page: Page) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(highlight=False)
    console.print(Text(page.title, style="bold"))
    if page.facts:
        grid = RichTable.grid(padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=True)
        for name, value in page.facts:
            grid.add_row(Text(f"  {name}", style="dim"), Text(value))
        console.print(grid)
    for table in page.tables:
        drawn = RichTable(box=box.SIMPLE_HEAD)
        for position, heading in enumerate(table.headings):
            drawn.add_column(Text(heading), justify="right" if position in table.right else "left")
        for row in table.rows:
            drawn.add_row(*map(Text, row))
        console.print(drawn)
    for sentence in page.said:
        console.print(Text(f"\n{sentence}"))
    for note in page.notes:
        console.print(Text.assemble(("\nNote: ", "yellow"), note))
    console.print()
    # Paths and commands are copied and pasted: the terminal may wrap them, rich must not.
    for name in page.written:
        console.print(Text.assemble(("Written: ", "green"), name), soft_wrap=True)
    for command in page.then:
        console.print(Text.assemble(("Next: ", "cyan"), (command, "bold")), soft_wrap=True)
