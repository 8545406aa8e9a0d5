"""Numbers with their intervals, as plain data: a value, or the reason why there is none."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.domain.statistics import (
    Interval,
    bootstrap_mean_interval,
    clopper_pearson_interval,
    wilson_interval,
)

CONFIDENCE = 0.95
MANY = 100_000
"""Rows from which on the bootstrap interval of a mean is the normal one, and takes long for nothing."""

Estimate = dict[str, Any]


def estimate(value: float, interval: Interval, method: str) -> Estimate:
    """Return a value with its interval."""
    return {
        "value": float(value),
        "low": float(interval.low),
        "high": float(interval.high),
        "confidence": interval.level,
        "method": method,
    }


def not_estimable(reason: str) -> Estimate:
    """Return an estimate that has no value, with the reason."""
    return {"value": None, "reason": reason}


def share(successes: int, trials: int, *, reason: str, exact: bool = False) -> Estimate:
    """Return a share with its Wilson or exact (Clopper-Pearson) interval; without trials, the reason.

    Examples
    --------
    >>> share(8, 10, reason="no rows")["value"]
    0.8
    >>> share(0, 0, reason="nothing was answered")
    {'value': None, 'reason': 'nothing was answered'}
    """
    interval = (clopper_pearson_interval if exact else wilson_interval)(successes, trials, CONFIDENCE)
    if interval is None:
        return not_estimable(reason)
    return estimate(successes / trials, interval, "Clopper-Pearson" if exact else "Wilson")


def mean(values: npt.ArrayLike, rng: np.random.Generator) -> Estimate:
    """Return the mean of rows with its interval; not estimable where a row is infinite.

    Percentile bootstrap; from :data:`MANY` rows on mean ± z · s / √n, which is the same but for its noise.

    Examples
    --------
    >>> mean([1.0, 1.0], np.random.default_rng(0))["low"]
    1.0
    """
    rows = np.asarray(values, dtype=np.float64)
    if not np.isfinite(rows).all():
        return not_estimable("a true label has probability 0")
    if len(rows) >= MANY:
        half = NormalDist().inv_cdf((1.0 + CONFIDENCE) / 2.0) * float(rows.std()) / math.sqrt(len(rows))
        centre = float(rows.mean())
        return estimate(centre, Interval(centre - half, centre + half, CONFIDENCE), "normal")
    interval = bootstrap_mean_interval(rows, rng, level=CONFIDENCE)
    return estimate(float(rows.mean()), interval, "bootstrap")
