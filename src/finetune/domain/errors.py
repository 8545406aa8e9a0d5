"""Every error that this package raises on purpose, under one root.

A message says what is wrong, where, which value was seen and what to do about it.  The command
line turns each class into one exit code; nothing else is needed to tell them apart.
"""

from __future__ import annotations


class FinetuneError(Exception):
    """Root of all deliberate errors.

    Parameters
    ----------
    what
        What is wrong, in one sentence without a full stop.
    where
        File, line, key or row the problem was found at.
    seen
        The offending value; shortened to 200 characters in the message.
    remedy
        What the reader can do about it.

    Examples
    --------
    >>> print(FinetuneError("the text is empty", where="data.csv:7", seen="", remedy="drop the row"))
    data.csv:7: the text is empty (seen: ''). What to do: drop the row.
    """

    def __init__(
        self, what: str, *, where: str | None = None, seen: object = None, remedy: str | None = None
    ) -> None:
        self.what = what
        self.where = where
        self.seen = seen
        self.remedy = remedy
        super().__init__(self._message())

    def _message(self) -> str:
        message = self.what if self.where is None else f"{self.where}: {self.what}"
        if self.seen is not None:
            seen = repr(self.seen)
            message += f" (seen: {seen if len(seen) <= 200 else seen[:197] + '...'})"
        message += "."
        if self.remedy is not None:
            message += f" What to do: {self.remedy}."
        return message

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions cross process boundaries (data loader workers, test runners) by pickle.
        return (_rebuild, (type(self), self.__dict__.copy()))


def _rebuild(kind: type[FinetuneError], state: dict[str, object]) -> FinetuneError:
    error = kind.__new__(kind)
    error.__dict__.update(state)
    Exception.__init__(error, error._message())
    return error


class InvalidInput(FinetuneError, ValueError):
    """Data, an argument or a configuration is not what it must be."""


class InsufficientData(FinetuneError):
    """There are too few rows for what was asked, guarantee or not."""


class InfeasibleGuarantee(FinetuneError):
    """The guarantee asked for cannot be given with these rows.

    Parameters
    ----------
    needed
        The smallest number of rows with which it could be given at best, where that is known.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        seen: object = None,
        remedy: str | None = None,
        needed: int | None = None,
    ) -> None:
        self.needed = needed
        super().__init__(what, where=where, seen=seen, remedy=remedy)


class LeakageDetected(FinetuneError):
    """Rows that must be unseen were seen: the same text in two splits."""


class IntegrityError(FinetuneError):
    """A file is damaged, or belongs to another model, adapter, label set or data set."""


class Unavailable(FinetuneError):
    """A service that is needed does not answer, or not as it should, after all attempts."""


class MissingExtra(FinetuneError, ImportError):
    """An optional dependency is not installed.

    Parameters
    ----------
    extra
        The extra of this distribution that brings it.
    needed_for
        What it is needed for.
    """

    def __init__(self, extra: str, needed_for: str) -> None:
        self.extra = extra
        super().__init__(
            f"{needed_for} needs packages that are not installed",
            remedy=f"pip install 'finetune-decisions[{extra}]'",
        )


class CoverageWarning(UserWarning):
    """Some cases get every label, because nothing was seen that could say which to leave out."""
