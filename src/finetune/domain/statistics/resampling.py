"""Bootstrap intervals by resampling rows."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import FloatArray, IntArray, as_count, as_generator, as_level, as_vector
from finetune.domain.errors import InsufficientData
from finetune.domain.statistics.intervals import Interval

_BLOCK_CELLS = 1 << 20


def bootstrap_interval(
    statistic: Callable[[IntArray], float],
    n: int,
    rng: np.random.Generator,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap interval of any statistic of rows.

    Parameters
    ----------
    statistic
        Takes row indices, shape (n,), drawn with replacement, and returns a finite number.
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
    draws = np.empty(as_count(n_resamples, name="n_resamples"))
    for i in range(len(draws)):
        draws[i] = statistic(rng.integers(n, size=n))
        if not math.isfinite(draws[i]):
            raise InsufficientData(
                "the statistic is not estimable on a resample of the rows",
                seen=float(draws[i]),
                remedy="collect more rows, or report the statistic without an interval",
            )
    return percentile_interval(draws, level)


def bootstrap_mean_interval(
    values: npt.ArrayLike, rng: np.random.Generator, n_resamples: int = 1000, level: float = 0.95
) -> Interval:
    """Percentile bootstrap interval of the mean of rows; the fast path of :func:`bootstrap_interval`.

    Parameters
    ----------
    values
        Shape (n,), finite.
    rng, n_resamples, level
        As in :func:`bootstrap_interval`, from which it differs by rounding alone.

    Returns
    -------
    Interval
        The interval of the mean.

    Raises
    ------
    InvalidInput
        If a value is not finite or a number is out of its range.

    Examples
    --------
    >>> bootstrap_mean_interval([1, 1, 1, 0, 1, 0, 1, 1], np.random.default_rng(0))
    Interval(low=0.5, high=1.0, level=0.95)
    """
    rng = as_generator(rng)
    rows = as_vector(values, name="values", low=-np.finfo(float).max, high=np.finfo(float).max)
    draws = np.empty(as_count(n_resamples, name="n_resamples"))
    step = max(1, _BLOCK_CELLS // len(rows))
    for start in range(0, len(draws), step):
        size = (min(step, len(draws) - start), len(rows))
        draws[start : start + step] = rows[rng.integers(len(rows), size=size)].mean(axis=1)
    return percentile_interval(draws, level)


def percentile_interval(draws: FloatArray, level: float) -> Interval:
    """Interval between the (1 - level) / 2 and (1 + level) / 2 quantiles of resampled statistics."""
    level = as_level(level, name="level")
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level)
