"""Many hypotheses at once: adjusted p-values, and the procedures that test in an order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import BoolArray, FloatArray, as_choice, as_labels, as_level, as_vector
from finetune.domain.errors import InvalidInput


def adjusted_p_values(p_values: npt.ArrayLike, method: str = "holm") -> FloatArray:
    """Smallest family-wise level (or false discovery rate) at which each hypothesis is rejected.

    Parameters
    ----------
    p_values
        Shape (m,), in [0, 1]: each valid by itself.
    method
        What is promised, and what it takes:

        ============================  ========================  ============================================
        ``"bonferroni"``, ``"holm"``  family-wise error rate    nothing; Holm rejects whatever Bonferroni does
        ``"sidak"``                   family-wise error rate    independent p-values
        ``"hochberg"``                family-wise error rate    independent p-values, or positive dependence
                                                                for which Simes' inequality holds
        ``"benjamini_hochberg"``      false discovery rate      independent p-values, or positive regression
                                                                dependence on the true hypotheses
        ``"benjamini_yekutieli"``     false discovery rate      nothing
        ============================  ========================  ============================================

    Returns
    -------
    FloatArray
        Shape (m,), in [0, 1], in the order of the p-values.

    Raises
    ------
    InvalidInput
        If a p-value is outside [0, 1] or the method is not known.

    Notes
    -----
    The family-wise error rate is the probability that any true hypothesis is rejected; the false discovery
    rate is the expected share of true ones among the rejected, which says less.

    References
    ----------
    Holm, S. (1979). Scand. J. Statist. 6.  Hochberg, Y. (1988). Biometrika 75.  Šidák, Z. (1967). JASA 62.
    Benjamini, Y. and Hochberg, Y. (1995). JRSS B 57.  Benjamini, Y. and Yekutieli, D. (2001). Ann. Stat. 29.

    Examples
    --------
    >>> adjusted_p_values([0.01, 0.02, 0.03, 0.5]).round(3).tolist()
    [0.04, 0.06, 0.06, 0.5]
    """
    p = as_vector(p_values, name="p_values", low=0.0, high=1.0)
    adjust = _ADJUSTMENTS[as_choice(method, _ADJUSTMENTS, name="method")]
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(adjust(p[order]), 1.0)
    return adjusted


def rejections(p_values: npt.ArrayLike, delta: float, method: str = "holm") -> BoolArray:
    """Which hypotheses are rejected at ``delta``: those whose adjusted p-value is at most that.

    Parameters
    ----------
    p_values, method
        As in :func:`adjusted_p_values`.
    delta
        Family-wise error rate or false discovery rate allowed, in (0, 1).

    Returns
    -------
    BoolArray
        Shape (m,).

    Raises
    ------
    InvalidInput
        If the input is not as above.

    Examples
    --------
    >>> rejections([0.01, 0.02, 0.03, 0.5], 0.05, "benjamini_hochberg").tolist()
    [True, True, True, False]
    """
    return np.asarray(adjusted_p_values(p_values, method) <= as_level(delta, name="delta"))


class SequenceResult(NamedTuple):
    """Which hypotheses are rejected, and the level at which each was tested; both of shape (m,)."""

    rejected: BoolArray
    levels: FloatArray


def fixed_sequence(p_values: npt.ArrayLike, delta: float, starts: Sequence[int] = (0,)) -> SequenceResult:
    """Test in a fixed order until the first failure, from one or several starting places.

    Parameters
    ----------
    p_values
        Shape (m,), in [0, 1], in an order fixed before the data were seen.
    delta
        Family-wise error rate allowed, in (0, 1).
    starts
        Places in the order, each once, where a walk begins with an equal share of ``delta``.

    Returns
    -------
    SequenceResult
        Rejections, and the level of each hypothesis that a walk came to; 0 where none did.

    Raises
    ------
    InvalidInput
        If the input is not as above.

    Notes
    -----
    Valid under any dependence: a walk rejects a true hypothesis only if it rejects the first true one in
    its way, and these are at most as many as there are starts.  :func:`fallback_sequence` with the same
    starts rejects everything that this does.

    References
    ----------
    Maurer, Hothorn, Lehmacher (1995). Multiple comparisons in drug clinical trials. Biometrie 6.
    Angelopoulos, Bates, Candès, Jordan, Lei (2021). Learn then test. arXiv:2110.01052, alg. 1.

    Examples
    --------
    >>> fixed_sequence([0.01, 0.05, 0.2, 0.0], 0.1).rejected.tolist()
    [True, True, False, False]
    """
    delta = as_level(delta, name="delta")
    p = as_vector(p_values, name="p_values", low=0.0, high=1.0)
    places = as_labels(starts, n_rows=None, n_labels=len(p), name="starts")
    if len(np.unique(places)) < len(places):
        raise InvalidInput("a start is given twice", seen=places.tolist(), remedy="give each start once")
    level = delta / len(places)
    failures = np.append(np.flatnonzero(p > level), len(p))
    rejected, levels = np.zeros(len(p), dtype=np.bool_), np.zeros(len(p))
    for start, end in zip(places, failures[np.searchsorted(failures, places)], strict=True):
        rejected[start:end] = True
        levels[start : end + 1] = level
    return SequenceResult(rejected, levels)


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


def _left(p: FloatArray) -> FloatArray:
    """How many hypotheses are left when those with smaller p-values are gone: m, m - 1, ..., 1."""
    return np.arange(len(p), 0.0, -1.0)


def _from_the_top(p: FloatArray) -> FloatArray:
    return np.asarray(np.minimum.accumulate(p[::-1])[::-1])


def _benjamini_hochberg(p: FloatArray) -> FloatArray:
    return _from_the_top(p * len(p) / np.arange(1.0, len(p) + 1.0))


def _sidak(p: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore"):
        return np.asarray(-np.expm1(len(p) * np.log1p(-p)))


_ADJUSTMENTS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "bonferroni": lambda p: p * len(p),
    "sidak": _sidak,
    "holm": lambda p: np.maximum.accumulate(p * _left(p)),
    "hochberg": lambda p: _from_the_top(p * _left(p)),
    "benjamini_hochberg": _benjamini_hochberg,
    "benjamini_yekutieli": lambda p: _benjamini_hochberg(p) * (1.0 / np.arange(1.0, len(p) + 1.0)).sum(),
}
