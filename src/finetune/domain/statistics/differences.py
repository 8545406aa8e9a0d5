"""Intervals for differences between proportions."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import as_count, as_labels, as_level
from finetune.domain.errors import InvalidInput
from finetune.domain.statistics.intervals import Interval, wilson_interval


def newcombe_interval(
    successes: int, trials: int, other_successes: int, other_trials: int, level: float = 0.95
) -> Interval | None:
    """Hybrid score interval for the difference of two proportions, the first minus the other.

    Parameters
    ----------
    successes, trials
        Counts of the first sample, 0 <= successes <= trials.
    other_successes, other_trials
        Counts of the other sample, independent of the first.
    level
        In (0, 1).

    Returns
    -------
    Interval or None
        In [-1, 1]; None where a sample has no trials: the difference is not estimable.

    Raises
    ------
    InvalidInput
        If the counts are not counts or the level is not one.

    Notes
    -----
    The coverage is about ``level``; for small samples it can be a few percent less.

    References
    ----------
    Newcombe, R. G. (1998). Interval estimation for the difference between independent proportions.
    Statistics in Medicine 17, 873-890, method 10.

    Examples
    --------
    >>> low, high, _ = newcombe_interval(56, 70, 48, 80)
    >>> round(low, 4), round(high, 4)
    (0.0524, 0.3339)
    """
    first, other = (
        wilson_interval(successes, trials, level),
        wilson_interval(other_successes, other_trials, level),
    )
    if first is None or other is None:
        return None
    return _combine(successes / trials, first, other_successes / other_trials, other, correlation=0.0)


def newcombe_paired_interval(
    both: int, first_only: int, other_only: int, neither: int, level: float = 0.95
) -> Interval | None:
    """Hybrid score interval for the difference of two proportions on the same rows.

    The first minus the other.  For two models on one test set: the rows that both get right, that one alone
    gets right, and that neither does.

    Parameters
    ----------
    both, first_only, other_only, neither
        Counts of rows, at least 0.
    level
        In (0, 1).

    Returns
    -------
    Interval or None
        In [-1, 1]; None without rows.

    Raises
    ------
    InvalidInput
        If the counts are not counts or the level is not one.

    References
    ----------
    Newcombe, R. G. (1998). Improved confidence intervals for the difference between binomial proportions
    based on paired data. Statistics in Medicine 17, 2635-2650, method 10.

    Examples
    --------
    >>> low, high, _ = newcombe_paired_interval(20, 12, 2, 16)
    >>> round(low, 4), round(high, 4)
    (0.0562, 0.3292)
    """
    cells = [
        as_count(count, name=name, minimum=0)
        for name, count in (
            ("both", both),
            ("first_only", first_only),
            ("other_only", other_only),
            ("neither", neither),
        )
    ]
    a, b, c, d = cells
    n = a + b + c + d
    first, other = wilson_interval(a + b, n, level), wilson_interval(a + c, n, level)
    if first is None or other is None:
        return None
    covariance = float(a * d - b * c)
    if covariance > 0.0:
        covariance = max(covariance - n / 2, 0.0)  # continuity correction
    margins = math.prod((a + b, c + d, a + c, b + d))
    correlation = covariance / math.sqrt(margins) if margins else 0.0
    return _combine((a + b) / n, first, (a + c) / n, other, correlation)


class LargestDifference(NamedTuple):
    """Largest difference between the rates of groups, its interval, and the groups without trials."""

    difference: float
    interval: Interval
    not_estimable: tuple[int, ...]


def largest_difference(
    successes: npt.ArrayLike, trials: npt.ArrayLike, level: float = 0.95
) -> LargestDifference | None:
    """Difference between the greatest and the smallest rate of several groups, with its interval.

    Parameters
    ----------
    successes, trials
        Counts of each group, integers of shape (m,), 0 <= successes <= trials.
    level
        In (0, 1).

    Returns
    -------
    LargestDifference or None
        None where fewer than two groups have trials.

    Raises
    ------
    InvalidInput
        If the counts are not counts or the level is not one.

    Notes
    -----
    Newcombe intervals of all pairs, at 1 - (1 - level) / (number of pairs), hold at once by Bonferroni's
    inequality.  The largest difference is at least each pair's, so at least the greatest lower end, or 0;
    and it is that of some pair, so at most the greatest upper end.  Bootstrapping the difference between the
    greatest and the smallest rate itself never covers 0, also where all groups have one rate.

    Examples
    --------
    >>> found = largest_difference([8, 30, 0], [10, 60, 0])
    >>> round(found.difference, 2), [round(end, 2) for end in found.interval[:2]], found.not_estimable
    (0.3, [0.0, 0.49], (2,))
    """
    level = as_level(level, name="level")
    n = as_labels(trials, n_rows=None, n_labels=None, name="trials")
    k = as_labels(successes, n_rows=len(n), n_labels=None, name="successes")
    if (k > n).any():
        row = int((k > n).argmax())
        raise InvalidInput(
            "there are more successes than trials",
            where=f"successes[{row}]",
            seen=(int(k[row]), int(n[row])),
            remedy="pass successes first, then trials",
        )
    known = np.flatnonzero(n).tolist()
    pairs = [(i, j) for i in known for j in known if i < j]
    if not pairs:
        return None
    rates = k[known] / n[known]
    each = 1 - (1 - level) / len(pairs)
    low, high = 0.0, 0.0
    for i, j in pairs:
        found = newcombe_interval(int(k[i]), int(n[i]), int(k[j]), int(n[j]), each)
        if found is not None:
            low, high = max(low, found.low, -found.high), max(high, found.high, -found.low)
    missing = tuple(np.flatnonzero(n == 0).tolist())
    return LargestDifference(float(rates.max() - rates.min()), Interval(low, high, level), missing)


def _combine(p: float, first: Interval, q: float, other: Interval, correlation: float) -> Interval:
    """Square and add the distances of the ends of two intervals from their proportions."""

    def root(x: float, y: float) -> float:
        return math.sqrt(max(x * x - 2 * correlation * x * y + y * y, 0.0))

    difference = p - q
    low = difference - root(p - first.low, other.high - q)
    high = difference + root(first.high - p, q - other.low)
    return Interval(max(low, -1.0), min(high, 1.0), first.level)
