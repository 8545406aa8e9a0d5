"""Curves given by numbers at places, one table a label: what isotonic maps and histograms are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.domain.calibration.maps.rows import LIMIT, set_parameters
from finetune.domain.checks import FloatArray, IntArray, as_floats
from finetune.domain.errors import InvalidInput

Tables = tuple[FloatArray, ...]

TIE = 1e-12


def distinct(ordered: FloatArray) -> IntArray:
    """Index at which each group of equal scores starts; what differs by rounding alone is equal.

    Examples
    --------
    >>> distinct(np.array([0.1, 0.1 + 1e-16, 0.2, 0.3]))
    array([0, 2, 3])
    """
    gaps = np.diff(ordered)
    return np.concatenate([[0], 1 + np.flatnonzero(gaps > TIE * (1.0 + np.abs(ordered[1:])))])


def as_tables(values: Sequence[npt.ArrayLike], name: str) -> Tables:
    """Turn sequences of numbers into read-only float64 vectors."""
    if not isinstance(values, (list, tuple)):
        raise InvalidInput(f"{name} must be one table a label", seen=values, remedy="fit the map anew")
    tables = tuple(as_floats(table, name)[0].copy() for table in values)
    for table in tables:
        table.setflags(write=False)
    return tables


def set_tables(target: Any, places: str, values: str, *, extra: int) -> None:
    """Check the two tables of a map while it is being made, and write them into it.

    Places rise and lie within +-1e100; values are probabilities, ``extra`` more of them than places.
    """
    x, y = as_tables(getattr(target, places), places), as_tables(getattr(target, values), values)
    good = len(x) == len(y) and len(x) not in (0, 2) and all(map(_fits, x, y, len(x) * [extra]))
    if not good:
        raise InvalidInput(
            f"{places} must rise, and {values} be probabilities, in tables of matching lengths",
            seen=[(table.shape, of.shape) for table, of in zip(x, y, strict=False)],
            remedy="fit the map anew",
        )
    set_parameters(target, **{places: x, values: y})


def _fits(places: FloatArray, values: FloatArray, extra: int) -> bool:
    if places.ndim != 1 or values.shape != (len(places) + extra,) or len(values) == 0:
        return False
    rising = bool((np.diff(places) > 0.0).all()) and bool((np.abs(places) <= LIMIT).all())
    return rising and bool(values.min() >= 0.0) and bool(values.max() <= 1.0)
