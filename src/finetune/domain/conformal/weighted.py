"""Weighted conformal quantiles: calibration rows that count as much as new cases resemble them."""

from __future__ import annotations

from bisect import bisect_left
from fractions import Fraction
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import FloatArray, IntArray, as_level, as_vector
from finetune.domain.errors import InvalidInput

_CAP = 2.0**900
_FINITE = float(np.finfo(np.float64).max)


def weighted_conformal_quantile(
    scores: npt.ArrayLike, weights: npt.ArrayLike, test_weights: npt.ArrayLike, alpha: float
) -> FloatArray:
    """Threshold for each test row: the weighted quantile of the calibration scores and itself at +inf.

    The smallest score s with sum of w_i over s_i <= s >= (1 - alpha) (sum of all w_i + w_test), or +inf.

    Parameters
    ----------
    scores
        Shape (n,): calibration scores, greater is stranger; +inf and -inf are scores.
    weights
        Shape (n,), finite and >= 0: likelihood ratio of each calibration row, the law of the test rows over
        that of the calibration rows, up to one factor for all.
    test_weights
        Shape (m,), finite and >= 0: the same of the test rows, with the same factor.
    alpha
        In (0, 1), taken as the decimal number it is written as.

    Returns
    -------
    FloatArray
        Shape (m,): +inf where the test row's weight is too great for the level.

    Raises
    ------
    InvalidInput
        If the input is not as above, or the calibration weights are all 0.

    Notes
    -----
    The comparison is that of exact arithmetic on the weights given, so that equal weights, of whatever size,
    give the conformal quantile.

    References
    ----------
    Tibshirani, Foygel Barber, Candès, Ramdas (2019). Conformal prediction under covariate shift. NeurIPS,
    lemma 3, cor. 1.

    Examples
    --------
    >>> weighted_conformal_quantile([0.3, 0.1, 0.2], [0.1, 0.1, 0.8], [0.0, 1.0, 9.0], alpha=0.5)
    array([0.2, 0.3, inf])
    """
    values, paired = as_weighted_scores(scores, weights)
    return weighted_thresholds(values, paired, as_test_weights(test_weights), as_level(alpha, name="alpha"))


def effective_sample_size(weights: npt.ArrayLike) -> float:
    """Kish's effective sample size, (sum of w)^2 / sum of w^2: n for equal weights, 1 if one row has all.

    Raises
    ------
    InvalidInput
        If a weight is negative or not finite, or all are 0.

    References
    ----------
    Kish, L. (1965). Survey Sampling, sec. 11.7.

    Examples
    --------
    >>> effective_sample_size([1.0, 1.0, 1.0]), effective_sample_size([2.0, 0.0])
    (3.0, 1.0)
    """
    values = _as_weights(weights)
    with np.errstate(under="ignore"):
        shares = values / values.max()
        return float(shares.sum() ** 2 / np.square(shares).sum())


def as_weighted_scores(scores: npt.ArrayLike, weights: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Check calibration scores and weights; copies of both in the order of the scores, read-only."""
    values, paired = as_vector(scores, name="scores"), _as_weights(weights)
    if len(values) != len(paired):
        raise InvalidInput(
            "scores and weights must have one entry for each calibration row",
            seen=(len(values), len(paired)),
            remedy="pass both for the same rows",
        )
    order = np.argsort(values, kind="stable")
    values, paired = values[order], paired[order]
    values.flags.writeable = paired.flags.writeable = False  # predictors keep and show them
    return values, paired


def as_test_weights(test_weights: npt.ArrayLike) -> FloatArray:
    """Check the weights of test rows."""
    return as_vector(test_weights, name="test_weights", low=0.0, high=_FINITE)


def weighted_thresholds(
    ascending: FloatArray, weights: FloatArray, test_weights: FloatArray, alpha: float
) -> FloatArray:
    """:func:`weighted_conformal_quantile` of what has been checked and sorted."""
    # A power of two changes no digit; beyond the cap a row has +inf at any level that a float can hold.
    exponent = -int(np.frexp(weights.max())[1])
    with np.errstate(over="ignore", under="ignore"):
        through = np.cumsum(np.ldexp(weights, exponent))
        total = through[-1] + np.minimum(np.ldexp(test_weights, exponent), _CAP)
    slack = (len(weights) + 8) * np.finfo(np.float64).eps * total
    places = np.searchsorted(through, (1 - alpha) * total - slack)
    unsure = places != np.searchsorted(through, (1 - alpha) * total + slack)
    if unsure.any():
        distinct, back = np.unique(test_weights[unsure], return_inverse=True)
        places[unsure] = _exact_places(weights, distinct, alpha)[back]
    thresholds: FloatArray = np.append(ascending, np.inf)[places]
    return thresholds


def _exact_places(weights: FloatArray, test_weights: FloatArray, alpha: float) -> IntArray:
    """First place whose running sum reaches the share, in integers: floats are multiples of one unit."""
    mantissas, exponents = np.frexp(np.concatenate([weights, test_weights]))
    unit = int(exponents[mantissas > 0].min())
    shifts = np.where(mantissas > 0, exponents - unit, 0)
    whole = [
        mantissa << shift
        for mantissa, shift in zip(
            np.ldexp(mantissas, 53).astype(np.int64).tolist(), shifts.tolist(), strict=True
        )
    ]
    through = list(accumulate(whole[: len(weights)]))
    share = 1 - Fraction(str(alpha))
    needed = [-(-(through[-1] + new) * share.numerator // share.denominator) for new in whole[len(weights) :]]
    return np.array([bisect_left(through, sum_) for sum_ in needed], dtype=np.int64)


def _as_weights(weights: npt.ArrayLike) -> FloatArray:
    values = as_vector(weights, name="weights", low=0.0, high=_FINITE)
    if not values.any():
        raise InvalidInput(
            "the weights are all 0",
            remedy="no calibration row resembles the new cases: collect some that do",
        )
    return values
