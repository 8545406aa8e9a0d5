"""P-values for "the risk is above the level" from sums of losses, and the upper bounds they invert to.

Everywhere one sign: a level is shown to hold where the p-value is at most the error probability allowed.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import betaincc, betainccinv, kl_div

from finetune.domain.checks import (
    FloatArray,
    IntArray,
    as_array,
    as_count,
    as_labels,
    as_level,
    as_vector,
    is_number,
    reject_first,
)
from finetune.domain.errors import InvalidInput


def binomial_p_value(k: npt.ArrayLike, n: npt.ArrayLike, level: float) -> FloatArray:
    """Exact p-value P(Bin(n, level) <= k) of the hypothesis that the error rate is at least ``level``.

    Parameters
    ----------
    k, n
        Errors and trials, integers with 0 <= k <= n, each of shape (m,).
    level
        Error rate in (0, 1).

    Returns
    -------
    FloatArray
        Shape (m,); 1 where there are no trials.

    Raises
    ------
    InvalidInput
        If the counts are not counts or the level is not one.

    Notes
    -----
    Valid for independent trials with one error rate.  Equivalent to the Clopper-Pearson upper bound: the
    p-value is at most d exactly where the bound at 1 - d is at most ``level``.

    References
    ----------
    Brown, Cai, DasGupta (2001). Interval estimation for a binomial proportion. Statistical Science 16.

    Examples
    --------
    >>> binomial_p_value([5, 70], [100, 1000], 0.1).round(7).tolist()
    [0.0575769, 0.0005745]
    """
    level = as_level(level, name="level")
    trials = as_labels(n, n_rows=None, n_labels=None, name="n")
    errors = as_labels(k, n_rows=len(trials), n_labels=None, name="k")
    if (errors > trials).any():
        row = int((errors > trials).argmax())
        raise InvalidInput(
            "there are more errors than trials",
            where=f"k[{row}]",
            seen=(int(errors[row]), int(trials[row])),
            remedy="pass errors first, then trials",
        )
    return _binomial_cdf(errors, trials, level)


def hoeffding_bentkus_p_value(total: npt.ArrayLike, n: npt.ArrayLike, level: float) -> FloatArray:
    """P-value of the hypothesis that the mean of losses in [0, 1] is at least ``level``.

    min(e P(Bin(n, level) <= ceil(total)), exp(-n h(min(total / n, level), level))), at most 1, where h is the
    relative entropy of two Bernoulli laws.

    Parameters
    ----------
    total
        Sum of the losses, shape (m,).  For losses of 0 and 1 pass their number as an integer: the mean
        multiplied by n again is not always the integer it was.
    n
        Number of losses, integers, shape (m,).
    level
        In (0, 1).

    Returns
    -------
    FloatArray
        Shape (m,); 1 where there are no losses.

    Raises
    ------
    InvalidInput
        If a sum is not between 0 and its n, or the level is not one.

    Notes
    -----
    Valid for independent losses in [0, 1], identically distributed.  Losses of 0 and 1 have the exact test,
    :func:`binomial_p_value`, which is never greater.

    References
    ----------
    Bates, Angelopoulos, Lei, Malik, Jordan (2021). Distribution-free, risk-controlling prediction sets.
    J. ACM 68, sec. 3.1.  Bentkus, V. (2004). On Hoeffding's inequalities. Annals of Probability 32.

    Examples
    --------
    >>> hoeffding_bentkus_p_value([5, 70], [100, 1000], 0.1).round(7).tolist()
    [0.1565102, 0.0015616]
    """
    level = as_level(level, name="level")
    trials = as_labels(n, n_rows=None, n_labels=None, name="n")
    sums, counts = _sums(total, trials)
    bentkus = math.e * _binomial_cdf(counts, trials, level)
    mean = np.minimum(sums / np.maximum(trials, 1), level)
    with np.errstate(under="ignore"):
        hoeffding = np.exp(-trials * _relative_entropy(mean, level))
    return np.asarray(np.minimum(np.minimum(bentkus, hoeffding), 1.0))


def hoeffding_bentkus_upper_bound(total: float, n: int, tail: float) -> float:
    """Upper bound on the mean of losses in [0, 1] that fails with probability at most ``tail``.

    Parameters
    ----------
    total, n
        Sum (an integer for losses of 0 and 1) and number of the losses.
    tail
        In (0, 1).

    Returns
    -------
    float
        The least level whose :func:`hoeffding_bentkus_p_value` is at most ``tail``; 1 without losses.

    Raises
    ------
    InvalidInput
        If the input is not as above.

    Examples
    --------
    >>> round(hoeffding_bentkus_upper_bound(5, 100, 0.05), 4)  # Clopper-Pearson says .1023
    0.1173
    """
    tail = as_level(tail, name="tail")
    trials = np.array([as_count(n, name="n", minimum=0)])
    if not is_number(total):
        raise InvalidInput("total must be a number", seen=total, remedy="pass the sum of the losses")
    sums, counts = _sums([total], trials)
    if trials[0] == 0:
        return 1.0
    bentkus = 1.0
    if counts[0] < trials[0]:
        bentkus = float(betainccinv(counts[0] + 1.0, trials[0] - counts[0], tail / math.e))
    mean, entropy = float(sums[0] / trials[0]), -math.log(tail) / float(trials[0])
    low, high = mean, 1.0
    while low < (middle := (low + high) / 2) < high:
        enough = _relative_entropy(np.array(mean), middle) >= entropy
        low, high = (low, middle) if enough else (middle, high)
    return min(bentkus, high)


def error_free_rows_needed(level: float, delta: float) -> int:
    """Smallest n for which no error in n trials shows, at ``delta``, that the error rate is below ``level``.

    The same for the exact test and for Hoeffding-Bentkus.

    Examples
    --------
    >>> error_free_rows_needed(0.05, 0.05)
    59
    """
    level, delta = as_level(level, name="level"), as_level(delta, name="delta")
    n = max(1, math.floor(math.log(delta) / math.log1p(-level)))
    while binomial_p_value([0], [n], level)[0] > delta:
        n += 1
    return n


def p_values_of_sums(
    sums: FloatArray, n: IntArray, level: float, bound: str, *, losses: FloatArray
) -> FloatArray:
    """P-values by ``"binomial"`` or ``"hoeffding_bentkus"`` from sums of these (checked) losses."""
    fractions = losses != np.floor(losses)
    if not fractions.any():
        sums = sums.astype(np.int64)
    elif bound == "binomial":
        raise InvalidInput(
            "the exact binomial test is for losses of 0 and 1 alone",
            seen=float(losses[fractions][0]),
            remedy='use bound="hoeffding_bentkus" or bound="wsr"',
        )
    return SUM_TESTS[bound](sums, n, level)


SUM_TESTS = {"binomial": binomial_p_value, "hoeffding_bentkus": hoeffding_bentkus_p_value}


def _binomial_cdf(errors: IntArray, trials: IntArray, level: float) -> FloatArray:
    # Where all trials are errors the probability is 1; the 1 in their place keeps the function defined.
    rest = np.maximum(trials - errors, 1)
    return np.where(errors == trials, 1.0, betaincc(errors + 1.0, rest, level))


def _relative_entropy(mean: FloatArray, level: float) -> FloatArray:
    return np.asarray(np.maximum(kl_div(mean, level) + kl_div(1.0 - mean, 1.0 - level), 0.0))


def _sums(total: npt.ArrayLike, trials: IntArray) -> tuple[FloatArray, IntArray]:
    """Check sums of losses, and round them up to whole numbers."""
    array = as_array(total, "total")
    if array.dtype.kind in "iu":
        counts = as_labels(array, n_rows=len(trials), n_labels=None, name="total")
        sums = counts.astype(np.float64)
    else:
        sums = as_vector(array, name="total", low=0.0)
        if len(sums) != len(trials):
            raise InvalidInput(
                f"total must have one entry for each of the {len(trials)} numbers of losses",
                seen=len(sums),
                remedy="pass both for the same candidates",
            )
    reject_first(
        sums > trials,
        sums,
        name="total",
        what="the sum of the losses is above their number",
        remedy="scale the losses to [0, 1], and pass their sum, then their number",
    )
    return sums, (counts if array.dtype.kind in "iu" else np.ceil(sums).astype(np.int64))
