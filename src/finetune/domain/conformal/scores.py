"""Conformity scores: how strange each label would be as the true one, greater is stranger.

All scores live on the scale of minus log-probabilities.  On the scale of 1 - p the labels of a saturated
model all sit at 1.0 and cannot be told apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from finetune.domain.checks import FloatArray

# Below this, exp of a log-probability and the sums over it lose digits to subnormal numbers.
_DEEP = -690.0


def lac_scores(log_probs: FloatArray) -> FloatArray:
    """Least ambiguous classifier: s = -log p.

    Parameters
    ----------
    log_probs
        Shape (n, K).

    Returns
    -------
    FloatArray
        Shape (n, K), in [0, +inf].

    References
    ----------
    Sadinle, Lei, Wasserman (2019). Least ambiguous set-valued classifiers. JASA 114.  Their score 1 - p
    puts the labels into the same order, but loses all digits where p is small.

    Examples
    --------
    >>> lac_scores(np.log([[0.5, 0.3, 0.2]])).round(3)
    array([[0.693, 1.204, 1.609]])
    """
    return -log_probs


def aps_scores(log_probs: FloatArray, u: FloatArray | None = None) -> FloatArray:
    """Adaptive prediction sets: s = -log(1 - a), a the mass of the labels down to this one.

    a_y = sum of p_j over p_j > p_y, plus u times the sum over p_j = p_y.  Labels with equal p form one
    group, so the scores do not depend on the order of the columns.  1 - a is added up from the least
    likely label, which keeps its digits where a rounds to 1.

    Parameters
    ----------
    log_probs
        Shape (n, K).
    u
        Shape (n,), in [0, 1): one uniform number a row, shared by its labels.  None: deterministic, u = 1
        for all labels but the likeliest, whose score is 0, so that it is in every set.  With u = 1 for it
        too, sets would be empty just where the model is surest.

    Returns
    -------
    FloatArray
        Shape (n, K), in [0, +inf].

    References
    ----------
    Romano, Sesia, Candès (2020). Classification with valid and adaptive coverage. NeurIPS, eq. 5-8.

    Examples
    --------
    >>> 1 - np.exp(-aps_scores(np.log([[0.5, 0.3, 0.2]]))).round(3)
    array([[0. , 0.8, 1. ]])
    >>> 1 - np.exp(-aps_scores(np.log([[0.5, 0.3, 0.2]]), np.array([0.5]))).round(3)
    array([[0.25, 0.65, 0.9 ]])
    """
    order = np.argsort(log_probs, axis=1)
    ascending = np.take_along_axis(log_probs, order, axis=1)
    through = _log_cumulative(ascending)
    new_group = ascending[:, 1:] != ascending[:, :-1]
    below = np.full_like(ascending, -np.inf)
    below[:, 1:] = np.where(new_group, through[:, :-1], -np.inf)
    np.maximum.accumulate(below, axis=1, out=below)
    log_tail = below
    if u is not None:
        through[:, :-1][~new_group] = np.inf
        through = np.minimum.accumulate(through[:, ::-1], axis=1)[:, ::-1]
        with np.errstate(invalid="ignore", under="ignore"):
            share = np.exp(below - through)
        share[np.isneginf(through)] = 0.0
        log_tail = through + np.log1p(u[:, None] * (share - 1.0))
    scores = np.empty_like(ascending)
    np.put_along_axis(scores, order, -log_tail, axis=1)
    if u is None:
        scores[log_probs == log_probs.max(axis=1, keepdims=True)] = 0.0
    return scores


class Score(NamedTuple):
    """A score of all labels, and whether it has a randomised form.

    Parameters
    ----------
    of_labels
        From log-probabilities, shape (n, K), and u, shape (n,) or None, to scores, shape (n, K).
    randomisable
        Whether ``of_labels`` uses u.
    """

    of_labels: Callable[[FloatArray, FloatArray | None], FloatArray]
    randomisable: bool


SCORES = {
    "lac": Score(lambda log_probs, _: lac_scores(log_probs), randomisable=False),
    "aps": Score(aps_scores, randomisable=True),
}


def _log_cumulative(ascending: FloatArray) -> FloatArray:
    """Log of the running sums of exp along each row."""
    with np.errstate(divide="ignore", under="ignore"):
        through: FloatArray = np.log(np.cumsum(np.exp(ascending), axis=1))
    deep = ((ascending < _DEEP) & (ascending > -np.inf)).any(axis=1)
    if deep.any():
        through[deep] = np.logaddexp.accumulate(ascending[deep], axis=1)
    return through
