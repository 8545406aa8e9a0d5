"""Numbered lines of a UTF-8 file, with broken bytes kept so that they can be reported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from finetune.domain.errors import InvalidInput


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield ``(number, line)`` from 1, line ends kept, a byte-order mark removed.

    Bytes that are not UTF-8 come as lone surrogates: see :func:`is_broken` and :func:`printable`.

    Raises
    ------
    InvalidInput
        Where the file is UTF-16, or cannot be opened.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidInput(
            f"the file cannot be opened: {error.strerror}", where=str(path), remedy="check its permissions"
        ) from error
    with file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                if line.startswith((b"\xff\xfe", b"\xfe\xff")):
                    raise InvalidInput(
                        "the file is UTF-16", where=str(path), remedy="save it as UTF-8 and try again"
                    )
                line = line.removeprefix(b"\xef\xbb\xbf")
            yield number, line.decode("utf-8", "surrogateescape")


def is_broken(line: str) -> bool:
    """Whether a line held bytes that are not UTF-8."""
    try:
        line.encode()
    except UnicodeEncodeError:
        return True
    return False


def printable(line: str) -> str:
    r"""Return a line without its end, with broken bytes written as ``\xNN``.

    Examples
    --------
    >>> printable(b"caf\xe9\n".decode("utf-8", "surrogateescape"))
    'caf\\xe9'
    """
    return line.rstrip("\r\n").encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
