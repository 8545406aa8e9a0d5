"""Rows over labels: probabilities, log-probabilities and logits, checked and turned into one another.

What is computed from probabilities here starts from their logarithms: on the scale of p itself the labels
of a saturated model all sit at 0 and 1.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import FloatArray, as_choice, as_floats, as_vector, log_softmax, reject_first
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
    as_choice(inputs, INPUTS, name="inputs")
    rows, tolerance = as_floats(values, name)
    if rows.ndim != 2 or rows.shape[1] < 2:
        raise InvalidInput(
            f"{name} must have the shape (rows, labels) with at least two labels",
            seen=rows.shape,
            remedy="pass one row per case and one column per label",
        )
    if rows.shape[0] == 0:
        raise InvalidInput(f"{name} has no rows", seen=rows.shape, remedy="pass at least one row")
    if inputs == "logits":
        return _checked_logits(rows, name)
    return _checked_normalised(rows, tolerance, name, logarithms=inputs == "log_probabilities")


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


def to_log(rows: FloatArray, inputs: str) -> FloatArray:
    """Turn rows that :func:`as_rows` has checked into log-probabilities."""
    if inputs == "log_probabilities":
        return rows
    if inputs == "logits":
        return log_softmax(rows)
    with np.errstate(divide="ignore"):
        return np.log(rows)


def row_blocks(rows: FloatArray) -> Iterator[slice]:
    """Slices of rows small enough that the temporary arrays of one stay in the processor's cache."""
    step = max(1, _BLOCK_CELLS // rows.shape[1])
    return (slice(start, min(start + step, len(rows))) for start in range(0, len(rows), step))


def _checked_logits(rows: FloatArray, name: str) -> FloatArray:
    with np.errstate(invalid="ignore"):
        highest = rows.max(axis=1)
    reject_first(
        ~np.isfinite(highest),
        rows,
        name=name,
        what="the row has NaN or +inf, or nothing but -inf",
        remedy="look for overflow in the model, or a mask over all labels",
    )
    return rows


def _checked_normalised(rows: FloatArray, tolerance: float, name: str, *, logarithms: bool) -> FloatArray:
    low, high = (-np.inf, 0.0) if logarithms else (0.0, 1.0)
    with np.errstate(invalid="ignore"):
        inside = rows.min() >= low and rows.max() <= high + tolerance
    if not inside:
        reject_first(
            np.any(~((rows >= low) & (rows <= high + tolerance)), axis=1),
            rows,
            name=name,
            what=f"the row has NaN or a number outside [{low:g}, {high:g}]",
            remedy="say by inputs= what the numbers are; if they are that, look for overflow in the model",
        )
    sums = _row_sums(rows, logarithms=logarithms)
    deviation = np.abs(sums - 1.0)
    reject_first(
        deviation > tolerance,
        rows,
        name=name,
        what=f"the row sums to {sums[int((deviation > tolerance).argmax())]:.6g}, not 1",
        remedy='normalise the rows, or pass inputs="logits"',
    )
    if deviation.max() > _ROUNDING:
        # Row by row: what becomes of a row must not depend on the others of its batch.
        scale = np.where(deviation > _ROUNDING, sums, 1.0)[:, None]
        rows = rows - np.log(scale) if logarithms else rows / scale
    return np.minimum(rows, high) if rows.max() > high else rows


def _row_sums(rows: FloatArray, *, logarithms: bool) -> FloatArray:
    if not logarithms:
        return np.asarray(rows.sum(axis=1))
    with np.errstate(under="ignore"):
        return np.concatenate([np.exp(rows[block]).sum(axis=1) for block in row_blocks(rows)])
