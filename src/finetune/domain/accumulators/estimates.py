"""Estimates from sums, with their intervals; None where there is nothing to estimate from."""

from __future__ import annotations

import math
from typing import NamedTuple

from scipy.special import ndtri

from finetune.domain.checks import as_level
from finetune.domain.statistics.intervals import Interval, clopper_pearson_interval, wilson_interval


class Proportion(NamedTuple):
    """A share of rows.

    Examples
    --------
    >>> Proportion(8, 10).value, Proportion(0, 0).value
    (0.8, None)
    """

    successes: int
    trials: int

    @property
    def value(self) -> float | None:
        """The share; None without trials: not estimable."""
        return self.successes / self.trials if self.trials else None

    def interval(self, level: float = 0.95, *, exact: bool = False) -> Interval | None:
        """Wilson interval, or the exact (Clopper-Pearson) one; None without trials."""
        return (clopper_pearson_interval if exact else wilson_interval)(self.successes, self.trials, level)


class Mean(NamedTuple):
    """A mean over rows.

    Parameters
    ----------
    rows
        Number of rows.
    total, squares
        Sum of the values and of their squares; +inf if one of them is.  The interval loses digits where the
        values vary by little beside their size: none is left at 1e-7 of it.

    Examples
    --------
    >>> mean = Mean(4, 2.0, 2.0)  # 0, 0, 1, 1
    >>> mean.value, mean.interval().high < 1.1, Mean(0, 0.0, 0.0).value
    (0.5, True, None)
    """

    rows: int
    total: float
    squares: float

    @property
    def value(self) -> float | None:
        """The mean; None without rows: not estimable."""
        return self.total / self.rows if self.rows else None

    def interval(self, level: float = 0.95) -> Interval | None:
        """Return the normal interval of the mean; None with less than two rows or an infinite one.

        Asymptotic: with few rows, or a few that weigh more than all others, it covers less than ``level``.
        """
        level = as_level(level, name="level")
        if self.rows < 2 or not math.isfinite(self.squares):
            return None
        mean = self.total / self.rows
        variance = max(self.squares - self.rows * mean**2, 0.0) / (self.rows - 1)
        half = float(ndtri((1 + level) / 2)) * math.sqrt(variance / self.rows)
        return Interval(mean - half, mean + half, level)
