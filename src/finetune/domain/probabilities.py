"""Rows over labels: probabilities, log-probabilities and logits, checked and turned into one another.

What is computed from probabilities here starts from their logarithms: on the scale of p itself the labels
of a saturated model all sit at 0 and 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

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
_BLOCK_CELLS = 1 << 18


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
    reader = open_rows(values, inputs=inputs, name=name)
    for block in row_blocks(reader.rows):
        reader.read(block)
    return reader.rows


class RowReader(NamedTuple):
    """Rows that are checked as they are read, while they are in the processor's cache.

    Parameters
    ----------
    rows
        Shape (n, K), as :func:`checked_rows` returns them, not checked yet.
    inputs, name
        As there.
    tolerance
        How far from 1 a row of probabilities may sum.
    """

    rows: Numbers
    inputs: str
    name: str
    tolerance: float

    def read(self, block: slice) -> Numbers:
        """Check some of the rows and return them."""
        part = self.rows[block]
        if self.inputs == "logits":
            _check_logits(part, self.name, block.start)
        else:
            logarithms = self.inputs == "log_probabilities"
            _check_normalised(part, self.tolerance, self.name, block.start, logarithms=logarithms)
        return part


def open_rows(
    values: npt.ArrayLike, *, inputs: str = "probabilities", name: str = "probabilities"
) -> RowReader:
    """Check type and shape of rows over labels now, and the rows themselves as they are read."""
    as_choice(inputs, INPUTS, name="inputs")
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


def row_blocks(rows: Numbers, cells: int = _BLOCK_CELLS) -> Iterator[slice]:
    """Slices of rows small enough that the temporary arrays of one stay in the processor's cache."""
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
        # In a third of the time of sum; the last digit may depend on the batch, which decides nothing here.
        sums = np.einsum("ij->i", np.exp(rows) if logarithms else rows)
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
