"""Confidence intervals for a proportion."""

from __future__ import annotations

import math
from typing import NamedTuple

from scipy.special import betainccinv, betaincinv, ndtri

from finetune.domain.checks import as_count, as_level
from finetune.domain.errors import InvalidInput


class Interval(NamedTuple):
    """An interval and the level at which it holds."""

    low: float
    high: float
    level: float


def wilson_interval(successes: int, trials: int, level: float = 0.95) -> Interval | None:
    """Wilson score interval of a proportion.

    Parameters
    ----------
    successes, trials
        Counts, 0 <= successes <= trials.
    level
        In (0, 1).

    Returns
    -------
    Interval or None
        None without trials: the proportion is not estimable.

    Raises
    ------
    InvalidInput
        If the counts are not counts or the level is not one.

    Notes
    -----
    The coverage is about ``level`` on average over proportions; for a single one it can be less.
    :func:`clopper_pearson_interval` never covers less.

    References
    ----------
    Wilson, E. B. (1927). Probable inference, the law of succession, and statistical inference. JASA 22.

    Examples
    --------
    >>> low, high, _ = wilson_interval(8, 10)
    >>> round(low, 4), round(high, 4)
    (0.4902, 0.9433)
    """
    successes, trials = _counts(successes, trials)
    level = as_level(level, name="level")
    if trials == 0:
        return None
    z2 = float(ndtri((1 + level) / 2)) ** 2
    centre = successes + z2 / 2
    half = math.sqrt(z2 * (successes * (trials - successes) / trials + z2 / 4))
    low = 0.0 if successes == 0 else (centre - half) / (trials + z2)
    high = 1.0 if successes == trials else (centre + half) / (trials + z2)
    return Interval(low, high, level)


def clopper_pearson_interval(successes: int, trials: int, level: float = 0.95) -> Interval | None:
    """Exact (conservative) interval of a binomial proportion, equal tails.

    Parameters, result and errors are those of :func:`wilson_interval`.

    References
    ----------
    Clopper, C. J. and Pearson, E. S. (1934). The use of confidence or fiducial limits. Biometrika 26.

    Examples
    --------
    >>> low, high, _ = clopper_pearson_interval(8, 10)
    >>> round(low, 4), round(high, 4)
    (0.4439, 0.9748)
    """
    successes, trials = _counts(successes, trials)
    level = as_level(level, name="level")
    if trials == 0:
        return None
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else float(betaincinv(successes, trials - successes + 1, tail))
    return Interval(low, binomial_upper_bound(successes, trials, tail), level)


def clopper_pearson_upper(successes: int, trials: int, level: float = 0.95) -> float:
    """Exact one-sided upper bound of a binomial proportion, which holds with probability ``level``.

    1 without trials, which is all that is then known.  Parameters and errors are those of
    :func:`wilson_interval`.

    References
    ----------
    Clopper, C. J. and Pearson, E. S. (1934). The use of confidence or fiducial limits. Biometrika 26.

    Examples
    --------
    >>> round(clopper_pearson_upper(0, 59), 3)  # the "rule of three": about 3 / n
    0.05
    """
    return binomial_upper_bound(successes, trials, 1 - as_level(level, name="level"))


def binomial_upper_bound(successes: int, trials: int, tail: float) -> float:
    """Bound that fails with probability at most ``tail``: :func:`clopper_pearson_upper` at 1 - tail.

    Keeps its digits where 1 - tail rounds to 1.

    Examples
    --------
    >>> round(binomial_upper_bound(0, 59, 0.05), 3), round(binomial_upper_bound(0, 59, 1e-17), 3)
    (0.05, 0.485)
    """
    successes, trials = _counts(successes, trials)
    tail = as_level(tail, name="tail")
    return 1.0 if successes == trials else float(betainccinv(successes + 1, trials - successes, tail))


def _counts(successes: int, trials: int) -> tuple[int, int]:
    trials = as_count(trials, name="trials", minimum=0)
    successes = as_count(successes, name="successes", minimum=0)
    if successes > trials:
        raise InvalidInput(
            "there are more successes than trials",
            seen=(successes, trials),
            remedy="pass successes first, then trials",
        )
    return successes, trials
