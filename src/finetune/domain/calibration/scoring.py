"""Proper scoring rules."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from finetune.domain.calibration.confidence import blocks, checked_events, checked_pair
from finetune.domain.checks import FloatArray, Numbers, as_array, as_flags, log_softmax


def compute_brier_score(y_prob: npt.ArrayLike, y_true: npt.ArrayLike) -> float:
    """Brier score: mean squared distance of the probabilities from what happened.

    Parameters
    ----------
    y_prob
        Shape (n, K): summed over the labels, in [0, 2].  Shape (n,): the probability that y = 1, for which
        (p - y)^2 is taken alone, in [0, 1]; for K = 2 the first form is twice the second.
    y_true
        Shape (n,): label indices; for the second form bool, or 0 and 1.

    Returns
    -------
    float
        The mean over rows; 0 is best.

    Raises
    ------
    InvalidInput
        If the input is not as above.

    References
    ----------
    Brier, G. W. (1950). Verification of forecasts expressed in terms of probability. MWR 78.

    Examples
    --------
    >>> round(compute_brier_score([0.1, 0.9, 0.8, 0.3], [0, 1, 1, 0]), 4)
    0.0375
    """
    return _mean(brier_scores(y_prob, y_true))


def compute_log_loss(y_prob: npt.ArrayLike, y_true: npt.ArrayLike, *, inputs: str = "probabilities") -> float:
    """Mean of minus the natural log-probability of the true label.

    Parameters
    ----------
    y_prob
        Shape (n, K).
    y_true
        Shape (n,), label indices.
    inputs
        ``"probabilities"``, ``"log_probabilities"`` (exact for saturated models) or ``"logits"``.

    Returns
    -------
    float
        In [0, +inf]: +inf if a true label was given probability 0.  Nothing is clipped.

    Raises
    ------
    InvalidInput
        If the input is not as above.

    References
    ----------
    Good, I. J. (1952). Rational decisions. JRSS B 14.

    Examples
    --------
    >>> round(compute_log_loss([[0.9, 0.1], [0.5, 0.5]], [0, 1]), 4)
    0.3993
    """
    return _mean(log_losses(y_prob, y_true, inputs=inputs))


def brier_scores(y_prob: npt.ArrayLike, y_true: npt.ArrayLike) -> Iterator[FloatArray]:
    """Yield the Brier scores of some rows at a time; all rows are checked before."""
    array = as_array(y_prob, "y_prob")
    if array.ndim == 1:
        events = checked_events(array, name="y_prob")
        flags = as_flags(y_true, n_rows=len(events), name="y_true")
        for block in blocks(len(events), 1):
            yield (events[block].astype(np.float64) - flags[block]) ** 2
        return
    rows, labels = checked_pair(array, y_true)
    for block in blocks(*rows.shape):
        p = _scaled(rows[block])
        p_true = p[np.arange(len(p)), labels[block]]
        others = np.einsum("ij,ij->i", p, p) - p_true**2
        yield np.maximum(others, 0.0) + (1.0 - p_true) ** 2


def log_losses(
    y_prob: npt.ArrayLike, y_true: npt.ArrayLike, *, inputs: str = "probabilities"
) -> Iterator[FloatArray]:
    """Yield the log losses of some rows at a time; all rows are checked before."""
    rows, labels = checked_pair(y_prob, y_true, inputs=inputs)
    for block in blocks(*rows.shape):
        part, true = rows[block], (np.arange(block.stop - block.start), labels[block])
        if inputs == "probabilities":
            sums = part.sum(axis=1).astype(np.float64, copy=False)
            with np.errstate(divide="ignore"):
                losses = np.log(sums) - np.log(part[true].astype(np.float64, copy=False))
        else:  # log-probabilities are logits too
            losses = -log_softmax(part.astype(np.float64, copy=False))[true]
        yield np.maximum(losses, 0.0)


def _scaled(rows: Numbers) -> FloatArray:
    floats: FloatArray = rows.astype(np.float64, copy=False)
    return np.asarray(floats / floats.sum(axis=1, keepdims=True))


def _mean(parts: Iterator[FloatArray]) -> float:
    rows, sums = 0, []
    for part in parts:
        rows += len(part)
        sums.append(float(part.sum()))
    return math.fsum(sums) / rows
