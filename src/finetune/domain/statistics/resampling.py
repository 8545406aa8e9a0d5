"""Bootstrap intervals by resampling rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import (
    FloatArray,
    IntArray,
    as_array,
    as_count,
    as_generator,
    as_labels,
    as_level,
    as_vector,
)
from finetune.domain.errors import InsufficientData
from finetune.domain.statistics.intervals import Interval

_BLOCK_CELLS = 1 << 20
_LARGEST = 1e150  # sums stay finite


def bootstrap_interval(
    statistic: Callable[[IntArray], float | None],
    n: int,
    rng: np.random.Generator,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap interval of any statistic of rows.

    Parameters
    ----------
    statistic
        Takes row indices, shape (n,), drawn with replacement, and returns a finite number; None: not
        estimable.
    n
        Number of rows.
    rng
        Source of the draws.
    n_resamples
        Number of draws.
    level
        In (0, 1).

    Returns
    -------
    Interval
        The (1 - level) / 2 and (1 + level) / 2 quantiles of the resampled statistic.

    Raises
    ------
    InvalidInput
        If a number is out of its range.
    InsufficientData
        If the statistic is not a finite number on some draw.

    Notes
    -----
    Asymptotic.  With few rows, or for a biased statistic such as the calibration error, the interval can
    cover far less than ``level``.

    References
    ----------
    Efron, B. and Tibshirani, R. J. (1993). An Introduction to the Bootstrap, ch. 13.

    Examples
    --------
    >>> hits = np.array([1, 1, 1, 0, 1, 0, 1, 1])
    >>> bootstrap_interval(lambda rows: hits[rows].mean(), 8, np.random.default_rng(0))
    Interval(low=0.5, high=1.0, level=0.95)
    """
    n, rng = as_count(n, name="n"), as_generator(rng)
    n_resamples = as_count(n_resamples, name="n_resamples")
    draws = _statistics(statistic, (rng.integers(n, size=n) for _ in range(n_resamples)))
    return percentile_interval(draws, level)


def bootstrap_mean_interval(
    values: npt.ArrayLike, rng: np.random.Generator, n_resamples: int = 1000, level: float = 0.95
) -> Interval:
    """Percentile bootstrap interval of the mean of rows; the fast path of :func:`bootstrap_interval`.

    Parameters
    ----------
    values
        Shape (n,), finite, of size at most 1e150.
    rng, n_resamples, level
        As in :func:`bootstrap_interval`, from which it differs by rounding alone.

    Returns
    -------
    Interval
        The interval of the mean.

    Raises
    ------
    InvalidInput
        If a value or a number is out of its range.

    Examples
    --------
    >>> bootstrap_mean_interval([1, 1, 1, 0, 1, 0, 1, 1], np.random.default_rng(0))
    Interval(low=0.5, high=1.0, level=0.95)
    """
    rng = as_generator(rng)
    rows = as_vector(values, name="values", low=-_LARGEST, high=_LARGEST)
    draws = np.empty(as_count(n_resamples, name="n_resamples"))
    step = max(1, _BLOCK_CELLS // len(rows))
    for start in range(0, len(draws), step):
        size = (min(step, len(draws) - start), len(rows))
        draws[start : start + step] = rows[rng.integers(len(rows), size=size)].mean(axis=1)
    return percentile_interval(draws, level)


def cluster_bootstrap_interval(
    statistic: Callable[[IntArray], float | None],
    clusters: npt.ArrayLike,
    rng: np.random.Generator,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap interval where rows of one cluster depend on each other: clusters are drawn whole.

    For several messages of one person, or sentences of one document.

    Parameters
    ----------
    statistic
        Takes row indices, of whichever number the clusters drawn have, and returns a finite number.
    clusters
        Shape (n,): cluster of each row, integers from 0.
    rng, n_resamples, level
        As in :func:`bootstrap_interval`.

    Returns
    -------
    Interval
        As in :func:`bootstrap_interval`.

    Raises
    ------
    InvalidInput
        If a number is out of its range.
    InsufficientData
        If the statistic is not a finite number on some draw, or there is one cluster alone.

    Notes
    -----
    Asymptotic in the number of clusters, not of rows.

    References
    ----------
    Davison, A. C. and Hinkley, D. V. (1997). Bootstrap Methods and their Application, sec. 3.8.

    Examples
    --------
    >>> hits, people = np.array([1, 1, 1, 0, 0, 1]), np.array([0, 0, 0, 1, 1, 2])
    >>> cluster_bootstrap_interval(lambda rows: hits[rows].mean(), people, np.random.default_rng(0))
    Interval(low=0.0, high=1.0, level=0.95)
    """
    members = as_labels(clusters, n_rows=None, n_labels=None, name="clusters")
    order = np.argsort(members, kind="stable")
    rows = np.split(order, np.flatnonzero(np.diff(members[order])) + 1)
    if len(rows) < 2:
        raise InsufficientData(
            "all rows are of one cluster", seen=len(rows), remedy="collect rows of several clusters"
        )
    return bootstrap_interval(
        lambda drawn: statistic(np.concatenate([rows[i] for i in drawn])), len(rows), rng, n_resamples, level
    )


def multinomial_interval(
    statistic: Callable[[IntArray], float | None],
    counts: npt.ArrayLike,
    rng: np.random.Generator,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap interval of any statistic of a table of counts, without its rows.

    The table is drawn again from the multinomial law with the fractions seen: what :func:`bootstrap_interval`
    does to rows, at a cost that does not grow with them.

    Parameters
    ----------
    statistic
        Takes a table of counts of the same shape and total, and returns a finite number.
    counts
        Integers of any shape: a confusion matrix, the counts of bins.
    rng, n_resamples, level
        As in :func:`bootstrap_interval`.

    Returns
    -------
    Interval
        As in :func:`bootstrap_interval`.

    Raises
    ------
    InvalidInput
        If the counts are none or a number is out of its range.
    InsufficientData
        If the table is empty, or the statistic is not a finite number on some draw.

    Notes
    -----
    A cell that was never seen is never drawn: no interval for the probability of what did not happen.

    References
    ----------
    Efron, B. and Tibshirani, R. J. (1993). An Introduction to the Bootstrap, ch. 6 and 13.

    Examples
    --------
    >>> confusion = [[40, 10], [5, 45]]
    >>> multinomial_interval(lambda m: np.trace(m) / m.sum(), confusion, np.random.default_rng(0))
    Interval(low=0.77, high=0.91, level=0.95)
    """
    table = as_array(counts, "counts")
    cells = as_labels(table.ravel(), n_rows=None, n_labels=None, name="counts")
    total, rng = int(cells.sum()), as_generator(rng)
    if total == 0:
        raise InsufficientData("the table is empty", seen=table.shape, remedy="collect rows")
    n_resamples = as_count(n_resamples, name="n_resamples")
    return percentile_interval(
        _statistics(
            statistic,
            (rng.multinomial(total, cells / total).reshape(table.shape) for _ in range(n_resamples)),
        ),
        level,
    )


def percentile_interval(draws: FloatArray, level: float) -> Interval:
    """Interval between the (1 - level) / 2 and (1 + level) / 2 quantiles of resampled statistics."""
    level = as_level(level, name="level")
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level)


def _statistics(statistic: Callable[[IntArray], float | None], resamples: Iterable[IntArray]) -> FloatArray:
    draws = []
    for resample in resamples:
        value = statistic(resample)
        draws.append(math.nan if value is None else float(value))
        if not math.isfinite(draws[-1]):
            raise InsufficientData(
                "the statistic is not estimable on a resample of the rows",
                seen=draws[-1],
                remedy="collect more rows, or report the statistic without an interval",
            )
    return np.array(draws)
