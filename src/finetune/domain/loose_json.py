"""Read JSON-like objects out of free text, in linear time and without an error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

NULLS = frozenset({"null", "none", "nan", "undefined"})

_MAX_DEPTH = 64
# A quote ends a string only where JSON (or a missing comma) goes on after it, so that unescaped quotes
# inside a rationale do no harm.  Possessive throughout: no backtracking, hence linear time.
_TOKEN = re.compile(
    r"""
      (?P<mark>[{}\[\]:=,])
    | "(?P<double>(?:[^"\\]++|\\.|"(?!\s*+(?:[,:=}\]]|//|\Z)|\s++["'}\]]))*+)(?P<closed2>"?)
    | '(?P<single>(?:[^'\\]++|\\.|'(?!\s*+(?:[,:=}\]]|//|\Z)|\s++["'}\]]))*+)(?P<closed1>'?)
    | (?P<bare>[^\s{}\[\]:=,"'](?:[^\s{}\[\]:=,]++|[^\S\n]++(?!["']))*+)
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


class Scalar(NamedTuple):
    """A string, number or bare word, and whether the input ends inside of it (`cut`)."""

    text: str
    quoted: bool
    cut: bool

    @property
    def is_null(self) -> bool:
        """Whether this is a bare null, in JSON, Python or JavaScript."""
        return not self.quoted and not self.cut and self.text.casefold() in NULLS


@dataclass
class LooseObject:
    """An object as it is being read.

    Parameters
    ----------
    start, end
        Its place in the text; no end if it was never closed.
    pairs
        Key, values, and whether the value is plain: not the scalars of an array, or none of an object.
    key, colon
        The key that waits for its value, and whether its colon has been seen.
    """

    start: int
    end: int | None = None
    pairs: list[tuple[str, list[Scalar], bool]] = field(default_factory=list)
    key: str | None = None
    colon: bool = False

    def put(self, scalar: Scalar) -> None:
        """Take a scalar as the value that is waited for, or else as the next key."""
        if self.key is not None and self.colon:
            self.pairs.append((self.key, [scalar], True))
            self.key, self.colon = None, False
        else:
            self.key, self.colon = scalar.text, False

    def put_nested(self) -> list[Scalar]:
        """Take an array or object as the value; return the list that an array's scalars go to."""
        values: list[Scalar] = []
        if self.key is not None and self.colon:
            self.pairs.append((self.key, values, False))
        self.key, self.colon = None, False
        return values


def loose_objects(text: str) -> Iterator[LooseObject]:
    """Yield everything that looks like an object, outer before inner ones.

    Read are also single quotes, bare words, missing and stray commas, unescaped quotes inside of strings,
    and objects that are cut off.  Every valid JSON object is read as what it is; its nested objects are
    yielded on their own, and more than 64 levels are not followed.

    Examples
    --------
    >>> [found.pairs for found in loose_objects("so: {'a': True,}")]
    [[('a', [Scalar(text='True', quoted=False, cut=False)], True)]]
    """
    position, work = text.find("{"), 0
    while position != -1:
        objects, end = _read_tokens(text, position)
        yield from objects
        work += end - position
        # A stray quote may have hidden an object from a reader that ran to the end; it may look again, but
        # only so often.
        again = end == len(text) and objects[0].end is None and work <= 4 * len(text)
        position = text.find("{", position + 1 if again else end)


def _read_tokens(text: str, start: int) -> tuple[list[LooseObject], int]:
    """Read the object at `start` and those in it, as far as the closing brace; return them and the end."""
    objects: list[LooseObject] = []
    stack: list[LooseObject | list[Scalar]] = []
    for match in _TOKEN.finditer(text, start):
        mark = match["mark"]
        top = stack[-1] if stack else None
        if mark in ("{", "["):
            values = top.put_nested() if isinstance(top, LooseObject) else []
            if mark == "[":
                stack.append(values)
            else:
                objects.append(LooseObject(match.start()))
                stack.append(objects[-1])
            if len(stack) >= _MAX_DEPTH:
                return objects, match.end()
        elif mark == "}":
            while not isinstance(closed := stack.pop(), LooseObject):
                pass  # a missing "]"
            closed.end = match.end()
            if not stack:
                return objects, match.end()
        elif mark == "]":
            if isinstance(top, list):
                stack.pop()
        elif mark is None:
            scalar = _scalar(match, len(text))
            if isinstance(top, LooseObject):
                top.put(scalar)
            elif top is not None:
                top.append(scalar)
        elif isinstance(top, LooseObject):
            top.colon = mark != "," and top.key is not None
            top.key = top.key if top.colon else None
    return objects, len(text)


def _scalar(match: re.Match[str], length: int) -> Scalar:
    bare = match["bare"]
    if bare is not None:
        return Scalar(bare.strip(), quoted=False, cut=match.end() == length)
    double = match["double"]
    body = match["single"] if double is None else double
    return Scalar(_unescape(body), quoted=True, cut=not (match["closed2"] or match["closed1"]))


def _unescape(body: str) -> str:
    def one(match: re.Match[str]) -> str:
        return chr(int(match[1], 16)) if match[1] else _ESCAPED.get(match[2], match[2])

    # UTF-16 joins escaped surrogate pairs and turns what is left of them into U+FFFD.
    joined = _ESCAPE.sub(one, body).encode("utf-16-le", "surrogatepass")
    return joined.decode("utf-16-le", "replace")
