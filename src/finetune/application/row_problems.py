"""Everything that is wrong with the rows of a file, in one message."""

from __future__ import annotations

from finetune.domain.errors import InvalidInput

SHOWN = 5


class RowProblems:
    """Collects what is wrong, a problem a row; nothing is left out in silence.

    Parameters
    ----------
    remedy
        What to do about all of them.

    Examples
    --------
    >>> problems = RowProblems("correct them")
    >>> problems.add("a.csv:2", "the id is empty", "")
    >>> problems.check()
    Traceback (most recent call last):
    ...
    finetune.domain.errors.InvalidInput: a.csv:2: the id is empty (seen: ''). What to do: correct them.
    """

    def __init__(self, remedy: str) -> None:
        self._remedy = remedy
        self._found: list[InvalidInput] = []
        self._count = 0

    def add(self, where: str, what: str, seen: object) -> None:
        """Note the problem of one row."""
        self._count += 1
        if len(self._found) < SHOWN:
            self._found.append(InvalidInput(what, where=where, seen=seen))

    def add_unseen(self, rows: int) -> None:
        """Count rows with problems of the same kind that need not be shown."""
        self._count += rows

    def check(self) -> None:
        """Raise :class:`InvalidInput` if there is any problem: the first few in full, and how many."""
        if not self._count:
            return
        if self._count == 1:
            [only] = self._found
            raise InvalidInput(only.what, where=only.where, seen=only.seen, remedy=self._remedy)
        more = self._count - len(self._found)
        lines = [*map(str, self._found), *([f"and {more:,} more"] if more else [])]
        listed = "\n  ".join(lines).removesuffix(".")
        raise InvalidInput(f"{self._count:,} rows cannot be used:\n  {listed}", remedy=self._remedy)
