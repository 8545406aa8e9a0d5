"""Multiple testing over an ordered family of hypotheses."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import BoolArray, FloatArray, as_level, as_vector
from finetune.domain.errors import InvalidInput


class SequenceResult(NamedTuple):
    """Which hypotheses are rejected, and the level at which each was tested; both of shape (m,)."""

    rejected: BoolArray
    levels: FloatArray


def fallback_sequence(p_values: npt.ArrayLike, weights: npt.ArrayLike, delta: float) -> SequenceResult:
    """Fallback procedure: the level of a rejected hypothesis is handed on to the next one.

    Hypothesis j is tested at weights[j] * delta, plus the level of hypothesis j - 1 if that was rejected.
    Weights (1, 0, ..., 0) are fixed-sequence testing.

    Parameters
    ----------
    p_values
        Shape (m,), in [0, 1], in an order fixed before the data were seen.
    weights
        Shape (m,), non-negative, of sum at most 1, fixed before the data were seen.
    delta
        Family-wise error rate allowed, in (0, 1).

    Returns
    -------
    SequenceResult
        Rejections and levels.

    Raises
    ------
    InvalidInput
        If the input is not as above.

    Notes
    -----
    The probability of rejecting any true hypothesis is at most ``delta``, whatever the dependence between
    the p-values: let j be the first true hypothesis that is rejected.  All the level that it was tested
    at came from itself and from false hypotheses in a row before it, so the event "a true hypothesis is
    rejected" needs some true j with p_j <= delta * (sum of the weights between the true hypothesis before
    j and j).  These sums share no weight, so by the union bound the probability is at most delta.

    References
    ----------
    Wiens, B. L. and Dmitrienko, A. (2005). The fallback procedure for evaluating a single family of
    hypotheses. J. Biopharm. Stat. 15.

    Examples
    --------
    >>> fallback_sequence([0.01, 0.04, 0.2, 0.01], [0.5, 0.0, 0.0, 0.5], 0.1).rejected.tolist()
    [True, True, False, True]
    """
    delta = as_level(delta, name="delta")
    p = as_vector(p_values, name="p_values", low=0.0, high=1.0)
    own = as_vector(weights, name="weights", low=0.0, high=1.0)
    if own.shape != p.shape or own.sum() > 1.0 + 1e-12:
        raise InvalidInput(
            "there must be one weight for each p-value, of sum at most 1",
            seen=(own.shape, p.shape, float(own.sum())),
            remedy="divide the weights by their sum",
        )
    rejected = np.zeros(len(p), dtype=np.bool_)
    levels = own * delta
    for j in range(len(p)):
        if j > 0 and rejected[j - 1]:
            levels[j] += levels[j - 1]
        # A p-value may underflow to 0, which a level of 0 does not allow to reject.
        rejected[j] = p[j] <= levels[j] and levels[j] > 0.0
    return SequenceResult(rejected, levels)
