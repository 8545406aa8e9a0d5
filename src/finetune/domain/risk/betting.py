"""Betting against "the risk is above the level": tests that adapt to how much losses in [0, 1] vary.

A gambler starts with capital 1 and bets before each loss that it will lie below the level.  If the risk is
at least the level no strategy is expected to win, so the capital ever reaches 1 / d with probability at
most d (Ville's inequality).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import FloatArray, as_count, as_level, as_vector
from finetune.domain.errors import InvalidInput

_BLOCK_CELLS = 1 << 20


def wsr_p_value(losses: npt.ArrayLike, level: float, bets_for: float = 0.1) -> float:
    """P-value of the hypothesis that the mean of losses in [0, 1] is at least ``level``, by betting.

    1 / max_i prod_{j <= i} (1 - b_j (loss_j - level)), at most 1, with the bets
    b_j = min(1, sqrt(2 ln(1 / bets_for) / (n v_{j-1}))), where v_{j-1} is the variance estimated from the
    losses before j and one imagined loss of mean 1/2 and variance 1/4.

    Parameters
    ----------
    losses
        Shape (n,), in [0, 1], **in an order that does not depend on their values**: that in which the rows
        were drawn, or shuffled.  Another such order gives another, equally valid p-value; rows sorted by
        their loss, or by what it depends on such as the label, give none.
    level
        In (0, 1).
    bets_for
        The error probability that the bets are best for, in (0, 1).  The p-value is valid whatever it is.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    InvalidInput
        If a loss is outside [0, 1], or a level is none.

    Notes
    -----
    Valid for independent losses with one mean, and more generally if the mean of each given those before
    it is at least ``level`` under the hypothesis.  The bets are at most 1 at every level, so the capital
    stays positive and grows with the level: that makes :func:`wsr_upper_bound` its inverse.  The maximum
    is of one running product over all rows; a product of the maxima of batches is no p-value.

    References
    ----------
    Waudby-Smith, I. and Ramdas, A. (2024). Estimating means of bounded random variables by betting. JRSS B
    86, sec. 4 (one-sided).  Bates, Angelopoulos, Lei, Malik, Jordan (2021). Distribution-free,
    risk-controlling prediction sets. J. ACM 68, sec. 3.1.

    Examples
    --------
    >>> round(wsr_p_value([0.0] * 250, 0.02), 5)  # the exact test says .0064
    0.00804
    """
    rows = as_vector(losses, name="losses", low=0.0, high=1.0)
    level, bets_for = as_level(level, name="level"), as_level(bets_for, name="bets_for")
    return float(wsr_p_values(rows[:, None], level, bets_for)[0])


def wsr_p_values(losses: FloatArray, level: float, bets_for: float) -> FloatArray:
    """:func:`wsr_p_value` of each column of a checked matrix of losses, shape (n, m) -> (m,)."""
    n, m = losses.shape
    step = max(1, _BLOCK_CELLS // n)
    blocks = [losses[:, start : start + step] for start in range(0, m, step)]
    wealth = [_log_wealth(block, _bets(block, bets_for), level) for block in blocks]
    with np.errstate(under="ignore"):
        return np.asarray(np.exp(-np.concatenate(wealth)))


def wsr_upper_bound(losses: npt.ArrayLike, tail: float, bets_for: float | None = None) -> float:
    """Upper bound on the mean of losses in [0, 1] that fails with probability at most ``tail``, by betting.

    Parameters
    ----------
    losses, bets_for
        As in :func:`wsr_p_value`, with its condition on the order of the rows; None: best for ``tail``.
    tail
        In (0, 1).

    Returns
    -------
    float
        The least level whose p-value is at most ``tail``, in (0, 1]; 1 if there is none.

    Raises
    ------
    InvalidInput
        If the input is not as above.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> losses = rng.beta(2, 38, size=1000)  # mean .05, of little variance
    >>> round(wsr_upper_bound(losses, 0.1), 3)
    0.051
    """
    rows = as_vector(losses, name="losses", low=0.0, high=1.0)[:, None]
    tail = as_level(tail, name="tail")
    bets = _bets(rows, tail if bets_for is None else as_level(bets_for, name="bets_for"))
    needed = -math.log(tail)
    low, high = 0.0, 1.0
    while high - low > 1e-12 * high and low < (middle := (low + high) / 2) < high:
        enough = _log_wealth(rows, bets, middle)[0] >= needed
        low, high = (low, middle) if enough else (middle, high)
    return high


def loss_free_rows_needed(level: float, delta: float) -> int:
    """Smallest n for which :func:`wsr_p_value` of n losses of 0 is at most ``delta``.

    Examples
    --------
    >>> loss_free_rows_needed(0.05, 0.05)
    63
    """
    level, delta = as_level(level, name="level"), as_level(delta, name="delta")
    # A bet of 1 on every row wins most: fewer rows cannot do.
    least = max(1, math.floor(-math.log(delta) / math.log1p(level)))
    return first_true(lambda n: wsr_p_value(np.zeros(n), level, delta) <= delta, least)


def first_true(condition: Callable[[int], bool], start: int) -> int:
    """Smallest n >= ``start`` at which a condition holds that stays true once it is.

    Examples
    --------
    >>> first_true(lambda n: n * n >= 1000, 1)
    32
    """
    low = as_count(start, name="start", minimum=0)
    if condition(low):
        return low
    step = 1
    while not condition(low + step):
        low, step = low + step, 2 * step
        if step > 1 << 62:
            raise InvalidInput("no number of rows would do", seen=start, remedy="allow a greater level")
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if condition(middle) else (middle, high)
    return high


def _bets(losses: FloatArray, bets_for: float) -> FloatArray:
    n = len(losses)
    seen = np.arange(2.0, n + 2.0)[:, None]
    mean = (0.5 + np.cumsum(losses, axis=0)) / seen
    variance = (0.25 + np.cumsum((losses - mean) ** 2, axis=0)) / seen
    # Each bet is made before its own loss is seen.
    before = np.vstack([np.full((1, losses.shape[1]), 0.25), variance[:-1]])
    return np.minimum(1.0, np.sqrt(-2.0 * math.log(bets_for) / (n * before)))


def _log_wealth(losses: FloatArray, bets: FloatArray, level: float) -> FloatArray:
    """Logarithm of the greatest capital, at least that of the start."""
    with np.errstate(divide="ignore"):  # a level below the rounding of 1 can lose everything
        gains = np.log1p(-bets * (losses - level))
    return np.asarray(np.maximum(np.cumsum(gains, axis=0).max(axis=0), 0.0))
