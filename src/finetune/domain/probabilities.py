"""Rows over labels: probabilities, log-probabilities and logits, checked and turned into one another.

What is computed from probabilities here starts from their logarithms: on the scale of p itself the labels
of a saturated model all sit at 0 and 1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import (
    FloatArray,
    Numbers,
    as_floats,
    as_vector,
    log_softmax,
)
from finetune.domain.row_reader import open_rows, row_blocks

_ROUNDING = 1e-12


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
