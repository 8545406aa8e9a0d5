"""What a raw row must be, whatever file it comes from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from finetune.application.config import Columns
from finetune.application.ports import BadRow, RawRow
from finetune.domain.errors import InvalidInput
from finetune.domain.labels import closest


def require_column(name: str, found: Sequence[str], where: str) -> None:
    """Raise :class:`InvalidInput` with the columns that are there where ``name`` is not among them."""
    if name in found:
        return
    guess = closest(name, found)
    remedy = "set data.columns to the names of your file"
    if guess is not None:
        remedy += f"; perhaps you meant {guess!r}"
    raise InvalidInput(f"there is no column {name!r}", where=where, seen=list(found), remedy=remedy)


def checked_row(position: str, values: Mapping[str, Any], columns: Columns, content: str) -> RawRow | BadRow:
    """Return the row with its mapped columns as text, or the reason why it cannot be used.

    Numbers and truth values in a mapped column become text (``3.0`` becomes ``"3"``: tools write whole
    numbers with gaps as floats); null and NaN become ``None``; other columns stay as they are.
    """
    for text in _strings(values):
        if "\0" in text:
            return BadRow(position, "a NUL character", content)
        if not _encodable(text):
            return BadRow(position, "not valid Unicode (a lone surrogate)", content)
    mapped = (columns.id, columns.text, columns.label, columns.rationale, columns.split)
    row = dict(values)
    for name in mapped:
        if name is None or name not in row:
            continue
        if isinstance(row[name], Mapping | list):
            return BadRow(position, f"column {name!r} is not text", content)
        row[name] = as_text(row[name])
    if columns.text not in row:
        return BadRow(position, f"no column {columns.text!r} in this row", content)
    return RawRow(position, row)


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_text(value: object) -> str | None:
    """Return a cell as text, a whole number without decimals; None for null and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
