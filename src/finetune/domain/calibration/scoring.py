"""Proper scoring rules."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import as_array, as_flags, as_labels
from finetune.domain.probabilities import as_event_probabilities, as_rows, row_blocks, to_log


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
    if as_array(y_prob, "y_prob").ndim == 1:
        p = as_event_probabilities(y_prob, name="y_prob")
        y = as_flags(y_true, n_rows=len(p), name="y_true")
        return float(np.mean((p - y) ** 2))
    rows = as_rows(y_prob, name="y_prob")
    labels = as_labels(y_true, n_rows=len(rows), n_labels=rows.shape[1], name="y_true")
    p_true = rows[np.arange(len(rows)), labels]
    others = np.einsum("ij,ij->i", rows, rows) - p_true**2
    return float(np.mean(np.maximum(others, 0.0) + (1.0 - p_true) ** 2))


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
    rows = as_rows(y_prob, inputs=inputs, name="y_prob")
    labels = as_labels(y_true, n_rows=len(rows), n_labels=rows.shape[1], name="y_true")
    total = 0.0
    for block in row_blocks(rows):
        log_probs = to_log(rows[block], inputs)
        total -= float(log_probs[np.arange(len(log_probs)), labels[block]].sum())
    return max(total, 0.0) / len(rows)
