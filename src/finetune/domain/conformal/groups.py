"""Groups of cases: a whole number or a name for each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import IntArray, as_array
from finetune.domain.errors import InvalidInput

Groups = npt.NDArray[np.int64] | npt.NDArray[np.str_]


def as_groups(values: npt.ArrayLike, *, n_rows: int, name: str) -> Groups:
    """Check one group a row, shape (n,), all whole numbers or all strings.

    Raises
    ------
    InvalidInput
        If the shape or the type is wrong; a missing value is no group.

    Examples
    --------
    >>> as_groups(["a", "b"], n_rows=2, name="groups").tolist()
    ['a', 'b']
    """
    array = as_array(values, name)
    if array.dtype.kind == "U" and not isinstance(values, np.ndarray):
        # Of a list that holds strings and something else numpy makes strings, of NaN the word "nan".
        array = np.asarray(values, dtype=object)
    if array.shape != (n_rows,):
        raise InvalidInput(
            f"{name} must have one entry for each of the {n_rows} rows",
            seen=array.shape,
            remedy="pass the group of each row",
        )
    if array.dtype.kind == "O":
        missing = [row for row, value in enumerate(array) if not isinstance(value, str)]
        if missing:
            raise InvalidInput(
                "the group is no string",
                where=f"{name}[{missing[0]}]",
                seen=array[missing[0]],
                remedy="pass strings only, or integers only",
            )
        return array.astype(np.str_)
    if array.dtype.kind == "U":
        return array
    if array.dtype.kind not in "iu" or array.max() > np.iinfo(np.int64).max:
        raise InvalidInput(
            f"{name} must be integers or strings", seen=array.dtype.name, remedy="pass a name for each group"
        )
    return array.astype(np.int64, copy=False)


def group_codes(groups: Groups, names: Sequence[Any], *, name: str) -> IntArray:
    """Index of each group in the ascending ``names``, and their number for one that is not there.

    Raises
    ------
    InvalidInput
        If the names are strings and the groups numbers, or the other way round.

    Examples
    --------
    >>> group_codes(np.array(["b", "c"]), ["a", "b"], name="groups")
    array([1, 2])
    """
    known = np.array(names)
    if known.dtype.kind != groups.dtype.kind:
        raise InvalidInput(
            f"{name} must be of the type that they had in calibration",
            seen=groups.dtype.name,
            remedy=f"pass what {known.dtype.name} stands for, as in calibration",
        )
    places = np.minimum(np.searchsorted(known, groups), len(known) - 1)
    return np.where(known[places] == groups, places, len(known))
