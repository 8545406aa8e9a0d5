"""Where a JSON string that a model writes ends, and what it says."""

from __future__ import annotations

import json


def closed_length(text: str) -> int | None:
    r"""Return where the first unescaped quote stands, or ``None``.

    Examples
    --------
    >>> closed_length(r'said \"no\" twice", "more')
    17
    """
    escaped = False
    for i, character in enumerate(text):
        if character == '"' and not escaped:
            return i
        escaped = character == "\\" and not escaped
    return None


def read_string(text: str) -> str:
    r"""Read the inside of a JSON string that may be cut off or badly escaped; never fails.

    Examples
    --------
    >>> read_string(r'a \"b\" c", "x": 1')
    'a "b" c'
    >>> read_string("cut off \\")
    'cut off'
    """
    end = closed_length(text)
    inside = text if end is None else text[:end]
    # A cut inside an escape leaves a part of it; dropping up to six characters always mends that.
    for drop in range(min(6, len(inside)) + 1):
        try:
            read = str(json.loads(f'"{inside[: len(inside) - drop]}"', strict=False))
        except json.JSONDecodeError:
            continue
        # Half a surrogate pair is a string to Python and no text to anyone else.
        return read.encode("utf-8", "replace").decode("utf-8").strip()
    return inside.replace("\\", "").strip()
