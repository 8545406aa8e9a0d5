"""Rows over labels: probabilities, log-probabilities and logits, checked and turned into one another.

What is computed from probabilities here starts from their logarithms: on the scale of p itself the labels
of a saturated model all sit at 0 and 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import (
    FloatArray,
    Numbers,
    as_choice,
    as_floats,
    as_numbers,
    as_vector,
    log_softmax,
    reject_first,
    sum_tolerance,
)
from finetune.domain.errors import InvalidInput

INPUTS = ("probabilities", "log_probabilities", "logits")
_ROUNDING = 1e-12
# Fewer cost more in calls than in arithmetic.
_FEW_CELLS = 1 << 13
_MANY_CELLS = 1 << 18
_MANY_BYTES = 5 << 20
# Below this many labels, numpy spends longer on the beginning and end of a row than on the row.
_SHORT_ROW = 32


def as_rows(
    values: npt.ArrayLike, *, inputs: str = "probabilities", name: str = "probabilities"
) -> FloatArray:
    """Check rows over labels and return them as float64, on the scale they came in.

    Parameters
    ----------
    values
        Shape (n, K), n >= 1, K >= 2.
    inputs
        What the numbers are.  Probabilities lie in [0, 1] and log-probabilities in [-inf, 0]; the rows of
        both sum to 1 within 1e-6 (float64), 1e-4 (float32) or 1e-2 (float16, bfloat16), and one that is off
        by more than 1e-12 is scaled to sum to 1.  Logits are any numbers below +inf, at least one of a
        row above -inf.
    name
        What to call the array in an error.

    Returns
    -------
    FloatArray
        Shape (n, K); the array itself where it already is float64 and normalised.

    Raises
    ------
    InvalidInput
        If a row is not what ``inputs`` says, or the shape is wrong.

    Examples
    --------
    >>> as_rows([[0.2, 0.8]])
    array([[0.2, 0.8]])
    >>> as_rows([[0.5, 0.5], [0.5, 0.6]])
    Traceback (most recent call last):
    ...
    finetune.domain.errors.InvalidInput: probabilities[1]: the row sums to 1.1, not 1
    (seen: [0.5, 0.6]). What to do: normalise the rows, or pass inputs="logits".
    """
    rows = checked_rows(values, inputs=inputs, name=name).astype(np.float64, copy=False)
    return rows if inputs == "logits" else _normalised(rows, logarithms=inputs == "log_probabilities")


def checked_rows(
    values: npt.ArrayLike, *, inputs: str = "probabilities", name: str = "probabilities"
) -> Numbers:
    """Check rows over labels as :func:`as_rows` does, and return them in their own precision, unscaled.

    For what is computed block by block from a million rows: nothing as large as the input is allocated.

    Parameters
    ----------
    values, inputs, name
        As in :func:`as_rows`.

    Returns
    -------
    Numbers
        Shape (n, K), float32 (also from half precision) or float64, in C order; the array itself where it
        already is that.  A row may sum to 1 but for the rounding of its type.

    Raises
    ------
    InvalidInput
        If a row is not what ``inputs`` says, or the shape is wrong.

    Examples
    --------
    >>> checked_rows(np.array([[0.2, 0.8]], dtype=np.float32)).dtype
    dtype('float32')
    """
    return open_rows(values, inputs=inputs, name=name).read_all()


class CheckedRows:
    """Rows over labels that are checked here, once, and taken as they are wherever rows are asked for.

    For a service that scores, measures and decides on the same rows: a check reads each row twice, which
    for the simplest methods is as much work as the method itself.

    Parameters
    ----------
    values, inputs, name
        As in :func:`checked_rows`.

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
    >>> as_log_probabilities(rows).round(2)
    array([[-1.61, -0.22]])
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
        Shape (n, K), as :func:`checked_rows` returns them.
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
                sound = bits.max() <= highest and np.all(np.abs(sums - 1.0) <= self.tolerance)
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
    with np.errstate(over="ignore", invalid="ignore"):
        rows: Numbers = np.asarray(array, dtype=kept, order="C")
    return RowReader(rows, inputs, name, tolerance)


def as_log_probabilities(
    values: npt.ArrayLike, *, inputs: str = "probabilities", name: str = "probabilities"
) -> FloatArray:
    """Check rows with :func:`as_rows` and return natural log-probabilities; log 0 is -inf.

    Examples
    --------
    >>> as_log_probabilities([[0.0, 0.0]], inputs="logits").round(3)
    array([[-0.693, -0.693]])
    """
    return to_log(as_rows(values, inputs=inputs, name=name), inputs)


def as_event_probabilities(values: npt.ArrayLike, *, name: str) -> FloatArray:
    """Check probabilities of one event a row, shape (n,); above 1 by rounding in their type is 1."""
    tolerance = as_floats(values, name)[1]
    return np.minimum(as_vector(values, name=name, low=0.0, high=1.0 + tolerance), 1.0)


def to_log(rows: Numbers, inputs: str) -> FloatArray:
    """Turn rows that have been checked into log-probabilities, in double precision."""
    floats: FloatArray = rows.astype(np.float64, copy=False)
    if inputs == "log_probabilities":
        return floats
    if inputs == "logits":
        return log_softmax(floats)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(floats))


def row_blocks(rows: Numbers, *, bytes_made: int = 1) -> Iterator[slice]:
    """Slices of rows, few enough that what is made of them stays in the processor's cache.

    Parameters
    ----------
    rows
        Shape (n, K).
    bytes_made
        How many bytes one entry of the rows takes in temporary arrays.  Together these take about a
        quarter of the memory of the rows at most, unless there are but few rows.
    """
    cells = rows.size * rows.itemsize // (4 * bytes_made)
    cells = max(_FEW_CELLS, min(cells, _MANY_BYTES // bytes_made, _MANY_CELLS))
    step = max(1, cells // rows.shape[1])
    return (slice(start, min(start + step, len(rows))) for start in range(0, len(rows), step))


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
        off = ~(np.abs(sums - 1.0) <= tolerance)
    # Numbers that are not negative and add up to 1 are not above 1 either, and none of them is NaN.
    if not off.any() and (rows.max() <= tolerance if logarithms else rows.min() >= 0.0):
        return
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
    # In a third of the time of sum; the last digit may depend on the batch, which decides nothing here.
    if rows.shape[1] < _SHORT_ROW:
        return np.asarray(rows @ np.ones(rows.shape[1], rows.dtype))
    return np.asarray(np.einsum("ij->i", rows))


def _normalised(rows: FloatArray, *, logarithms: bool) -> FloatArray:
    sums = np.concatenate([_row_sums(rows[block], logarithms=logarithms) for block in row_blocks(rows)])
    deviation = np.abs(sums - 1.0)
    if deviation.max() > _ROUNDING:
        # Row by row: what becomes of a row must not depend on the others of its batch.
        scale = np.where(deviation > _ROUNDING, sums, 1.0)[:, None]
        rows = rows - np.log(scale) if logarithms else rows / scale
    high = 0.0 if logarithms else 1.0
    return np.minimum(rows, high) if rows.max() > high else rows


def _row_sums(rows: Numbers, *, logarithms: bool) -> FloatArray:
    with np.errstate(under="ignore"):
        return np.asarray((np.exp(rows) if logarithms else rows).sum(axis=1))
