"""Betting against p-values being uniform: closed forms of the wealth, in logarithms."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import gammainc, gammaln

from finetune.domain.checks import FloatArray, as_vector
from finetune.domain.errors import InvalidInput

Weights = tuple[float, float, float]


def power_mixture_log_wealth(n: npt.ArrayLike, log_sum: npt.ArrayLike) -> FloatArray:
    """Log of the integral over e in (0, 1) of the wealth of betting e p^(e - 1) on each of n p-values.

    The integral of e^n exp((1 - e) S) with S = -sum of log p: S^-(n+1) exp(S) times the lower incomplete
    gamma function of (n + 1, S), or, where that underflows, the series sum over k of
    S^k / ((n + 1) ... (n + k + 1)).

    Parameters
    ----------
    n
        Shape (m,): numbers of p-values, each >= 0.
    log_sum
        Shape (m,): S of each, in [0, inf).

    Returns
    -------
    FloatArray
        Shape (m,).

    Raises
    ------
    InvalidInput
        If the input is not as above.

    References
    ----------
    Vovk, Nouretdinov, Gammerman (2003). Testing exchangeability on-line. ICML, sec. 4.

    Examples
    --------
    >>> np.exp(power_mixture_log_wealth([0, 1], [0.0, 1.0])).round(6)  # the second: e - 2
    array([1.      , 0.718282])
    """
    counts = as_vector(n, name="n", low=0.0)
    sums = as_vector(log_sum, name="log_sum", low=0.0, high=np.finfo(np.float64).max)
    if counts.shape != sums.shape:
        raise InvalidInput(
            "n and log_sum must have one entry each", seen=(len(counts), len(sums)), remedy="pass pairs"
        )
    with np.errstate(under="ignore"):
        share = gammainc(counts + 1, sums)
    usable = share > 1e-200
    log_wealth = np.empty_like(sums)
    a, s = counts[usable] + 1, sums[usable]
    log_wealth[usable] = s - a * np.log(s) + gammaln(a) + np.log(share[usable])
    for row in np.flatnonzero(~usable):
        log_wealth[row] = _log_series(float(counts[row]), float(sums[row]))
    return log_wealth


def _log_series(n: float, s: float) -> float:
    # Its terms fall at least as fast as powers of s / (n + 2), which is below 1 where gammainc underflows.
    ratio = s / (n + 2)
    n_terms = 2 if ratio < 1e-30 else 2 + math.ceil(40 / -math.log(ratio))
    with np.errstate(under="ignore"):
        terms = np.cumprod(s / (n + 2 + np.arange(n_terms)))
    return math.log1p(float(terms.sum())) - math.log(n + 1)


def simple_jumper_path(
    p_values: FloatArray, log_wealth: float, weights: Weights, jump: float
) -> tuple[FloatArray, Weights]:
    """Log-wealth after each p-value of the simple jumper, which bets 1 + e (p - 1/2), e in {-1, 0, 1}.

    Parameters
    ----------
    p_values
        Shape (m,), in (0, 1].
    log_wealth
        Log of the wealth before them.
    weights
        Shares of the wealth on e = -1, 0, 1; they sum to 1.
    jump
        Part of the wealth that is spread evenly over the three before each bet, in (0, 1).

    Returns
    -------
    tuple
        The path, shape (m,), and the shares after it.

    References
    ----------
    Vovk, Petej, Nouretdinov, Ahlberg, Carlsson, Gammerman (2021). Retrain or not retrain: conformal test
    martingales for change-point detection. COPA, algorithm 1.

    Examples
    --------
    >>> path, _ = simple_jumper_path(np.array([0.5, 0.0]), 0.0, (1 / 3, 1 / 3, 1 / 3), jump=0.01)
    >>> np.exp(path).round(6)
    array([1., 1.])
    """
    down, stay, up = weights
    path = np.empty_like(p_values)
    # Shares are kept instead of amounts, so that nothing over- or underflows.
    for step, p in enumerate(p_values.tolist()):
        down = ((1 - jump) * down + jump / 3) * (1.5 - p)
        stay = (1 - jump) * stay + jump / 3
        up = ((1 - jump) * up + jump / 3) * (0.5 + p)
        total = down + stay + up
        down, stay, up = down / total, stay / total, up / total
        log_wealth += math.log(total)
        path[step] = log_wealth
    return path, (down, stay, up)
