"""Rows over labels, checked block by block as they are read, or once for everything that uses them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import (
    Numbers,
    as_choice,
    as_numbers,
    reject_first,
    sum_tolerance,
)
from finetune.domain.errors import InvalidInput

INPUTS = ("probabilities", "log_probabilities", "logits")
# Fewer cost more in calls than in arithmetic.
_FEW_CELLS = 1 << 13
_MANY_CELLS = 1 << 20
_MANY_BYTES = 5 << 20
# Below this many labels, numpy spends longer on the beginning and end of a row than on the row.
_SHORT_ROW = 32


class CheckedRows:
    """Rows over labels that are checked here, once, and taken as they are wherever rows are asked for.

    For a service that scores, measures and decides on the same rows: a check reads each row twice, which
    for the simplest methods is as much work as the method itself.

    Parameters
    ----------
    values, inputs, name
        As in :func:`~finetune.domain.probabilities.checked_rows`.

    Raises
    ------
    InvalidInput
        As there.

    Notes
    -----
    The array is not copied where it need not be; what is written into it later is not seen.

    Examples
    --------
    >>> rows = CheckedRows([[0.2, 0.8]])
    >>> rows.inputs, rows.shape
    ('probabilities', (1, 2))
    >>> np.asarray(rows)
    array([[0.2, 0.8]])
    """

    def __init__(
        self, values: npt.ArrayLike, *, inputs: str = "probabilities", name: str = "probabilities"
    ) -> None:
        reader = open_rows(values, inputs=inputs, name=name)
        self._rows = reader.read_all().view()
        self._rows.flags.writeable = False
        self.inputs = inputs
        self.tolerance = reader.tolerance

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and labels."""
        n, k = self._rows.shape
        return n, k

    def __len__(self) -> int:
        return len(self._rows)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self._rows, dtype=dtype, copy=copy)


class Peaks(NamedTuple):
    """Some rows and their greatest probabilities.

    Parameters
    ----------
    rows
        Shape (m, K).
    maxima
        Shape (m,).
    unique
        Whether each maximum is that of one label only; False also where that was not looked for.
    """

    rows: Numbers
    maxima: Numbers
    unique: bool


class RowReader(NamedTuple):
    """Rows that are checked as they are read, while they are in the processor's cache.

    Parameters
    ----------
    rows
        Shape (n, K), as :func:`~finetune.domain.probabilities.checked_rows` returns them.
    inputs, name
        As there.
    tolerance
        How far from 1 a row of probabilities may sum.
    checked
        Whether all of them have been checked before.
    """

    rows: Numbers
    inputs: str
    name: str
    tolerance: float
    checked: bool = False

    def read(self, block: slice) -> Numbers:
        """Check some of the rows and return them."""
        part = self.rows[block]
        if self.checked:
            return part
        if self.inputs == "logits":
            _check_logits(part, self.name, block.start)
        else:
            logarithms = self.inputs == "log_probabilities"
            _check_normalised(part, self.tolerance, self.name, block.start, logarithms=logarithms)
        return part

    def read_peaks(self, block: slice) -> Peaks:
        """Check some rows of probabilities and return them with their maxima.

        The bits of floats, read as whole numbers without a sign, are in the order of the floats where these
        are not negative, and above all of them elsewhere.  So the maxima, which take a tenth of the time of
        ``rows.max(axis=1)``, also tell whether there is a negative number or a NaN.
        """
        part = self.rows[block]
        n, k = part.shape
        whole = np.uint32 if part.dtype == np.float32 else np.uint64
        across = np.ascontiguousarray(part.T) if k < _SHORT_ROW else None
        if across is not None:
            bits = across.view(whole).max(axis=0)
        else:
            bits = np.maximum.reduceat(part.view(whole).ravel(), np.arange(0, n * k, k))
        highest = np.array(1.0 + self.tolerance, dtype=part.dtype).view(whole)
        if not self.checked or bits.max() > highest:
            with np.errstate(over="ignore", invalid="ignore"):
                sums = _quick_sums(part) if across is None else across.sum(axis=0)
                sound = bits.max() <= highest and _near_one(sums, self.tolerance)
            if not sound:
                # A row is wrong, or there is a zero with a sign, which is but a zero.
                return Peaks(self.read(block), part.max(axis=1), unique=False)
        maxima: Numbers = bits.view(part.dtype)
        unique = across is not None and np.count_nonzero(across == maxima) == n
        return Peaks(part, maxima, unique)

    def read_all(self) -> Numbers:
        """Check all rows and return them."""
        if not self.checked:
            for block in row_blocks(self.rows):
                self.read(block)
        return self.rows


def open_rows(
    values: npt.ArrayLike, *, inputs: str = "probabilities", name: str = "probabilities"
) -> RowReader:
    """Check type and shape of rows over labels now, and the rows themselves as they are read."""
    as_choice(inputs, INPUTS, name="inputs")
    if isinstance(values, CheckedRows):
        if values.inputs != inputs:
            raise InvalidInput(
                f"{name} were checked as {values.inputs}, and are taken for {inputs} here",
                seen=values.inputs,
                remedy="pass the same inputs= to both",
            )
        return RowReader(np.asarray(values), inputs, name, values.tolerance, checked=True)
    array = as_numbers(values, name)
    if array.ndim != 2 or array.shape[1] < 2:
        raise InvalidInput(
            f"{name} must have the shape (rows, labels) with at least two labels",
            seen=array.shape,
            remedy="pass one row per case and one column per label",
        )
    if array.shape[0] == 0:
        raise InvalidInput(f"{name} has no rows", seen=array.shape, remedy="pass at least one row")
    tolerance = sum_tolerance(array)
    kept = np.float32 if array.dtype.kind not in "iu" and array.dtype.itemsize <= 4 else np.float64
    if array.dtype != kept:
        with np.errstate(over="ignore", invalid="ignore"):
            array = array.astype(kept)
    return RowReader(np.ascontiguousarray(array), inputs, name, tolerance)


def row_blocks(rows: Numbers, *, bytes_made: int = 1, most_cells: int = _MANY_CELLS) -> Iterator[slice]:
    """Slices of rows, few enough that what is made of them stays in the processor's cache.

    Parameters
    ----------
    rows
        Shape (n, K).
    bytes_made
        How many bytes one entry of the rows takes in temporary arrays.  Together these take about a
        quarter of the memory of the rows at most, unless there are but few rows.
    most_cells
        Entries of a block, at most.
    """
    cells = rows.size * rows.itemsize // (4 * bytes_made)
    cells = max(_FEW_CELLS, min(cells, _MANY_BYTES // bytes_made, most_cells))
    step = -(-cells // rows.shape[1])
    return (slice(start, min(start + step, len(rows))) for start in range(0, len(rows), step))


def signed_bits(values: Numbers) -> npt.NDArray[np.signedinteger[Any]]:
    """Read the bits of floats as whole numbers, in place.

    Those of floats that are not negative have the order of the floats, and are compared and sorted in less
    time; all others, a zero with a sign among them, are below 0.
    """
    return values.view(np.int32 if values.dtype == np.float32 else np.int64)


def _check_logits(rows: Numbers, name: str, start: int) -> None:
    if np.isfinite(rows.max()) and rows.min() > -np.inf:
        return
    reject_first(
        ~np.isfinite(rows.max(axis=1)),
        rows,
        name=name,
        start=start,
        what="the row has NaN or +inf, or nothing but -inf",
        remedy="look for overflow in the model, or a mask over all labels",
    )


def _check_normalised(rows: Numbers, tolerance: float, name: str, start: int, *, logarithms: bool) -> None:
    with np.errstate(under="ignore", over="ignore", invalid="ignore"):
        sums = _quick_sums(np.exp(rows) if logarithms else rows)
        near = _near_one(sums, tolerance)
    # Numbers that are not negative and add up to 1 are not above 1 either, and none of them is NaN.
    if near and (rows.max() <= tolerance if logarithms else _none_negative(rows)):
        return
    with np.errstate(over="ignore", invalid="ignore"):
        off = ~(np.abs(sums - 1.0) <= tolerance)
    low, high = (-np.inf, 0.0) if logarithms else (0.0, 1.0)
    reject_first(
        np.any(~((rows >= low) & (rows <= high + tolerance)), axis=1),
        rows,
        name=name,
        start=start,
        what=f"the row has NaN or a number outside [{low:g}, {high:g}]",
        remedy="say by inputs= what the numbers are; if they are that, look for overflow in the model",
    )
    reject_first(
        off,
        rows,
        name=name,
        start=start,
        what=f"the row sums to {sums[int(off.argmax())]:.6g}, not 1",
        remedy='normalise the rows, or pass inputs="logits"',
    )


def _quick_sums(rows: Numbers) -> Numbers:
    # In a fraction of the time of sum; the last digit may depend on the batch, which decides nothing here.
    return np.asarray(rows @ np.ones(rows.shape[1], rows.dtype))


def _near_one(sums: Numbers, tolerance: float) -> bool:
    """Whether all sums are 1 to within a tolerance; a NaN is not."""
    return bool(sums.max() - 1.0 <= tolerance and 1.0 - sums.min() <= tolerance)


def _none_negative(rows: Numbers) -> bool:
    """Whether no number is below 0, of numbers that are not NaN."""
    # A zero with a sign is below 0 among the bits and not here.
    return bool(signed_bits(rows).min() >= 0 or rows.min() >= 0.0)
