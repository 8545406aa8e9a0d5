"""The thresholds that are tried, and where the search for the loosest one starts; neither sees any data."""

from __future__ import annotations

import math

import numpy as np

from finetune.domain.checks import FloatArray, IntArray

_LINEAR_END, _LOOSEST, _STEP = 16.0, -8.0, 1 / 16
_GEOMETRIC = 63
# Multiples of the log-odds of 1 - risk_level, with the share of delta that each starts with.
_STARTS = {
    **dict.fromkeys((128.0, 64.0, 32.0, 16.0, 8.0), 0.008),
    **dict.fromkeys((4.0, 2.0, 1.0, 0.5), 0.19),
}
_LAST = 0.2


def threshold_grid() -> FloatArray:
    """Candidate thresholds on the scale of log-odds, strictest first.

    1/16 apart from -8 to 16, each 1/16 greater than the one before from there to 729, near where
    probabilities end in double precision; the last one is -inf.

    Examples
    --------
    >>> grid = threshold_grid()
    >>> len(grid), grid[[0, 62, 63, -2, -1]].round(1).tolist()
    (449, [729.2, 17.0, 16.0, -8.0, -inf])
    """
    steps = round((_LINEAR_END - _LOOSEST) / _STEP)
    geometric = _LINEAR_END * (1 + _STEP) ** np.arange(_GEOMETRIC, 0, -1)
    return np.concatenate([geometric, _LINEAR_END - _STEP * np.arange(steps + 1), [-np.inf]])


def start_weights(risk_level: float) -> FloatArray:
    """Share of delta that each candidate of :func:`threshold_grid` starts with, of sum 1.

    The starts are multiples of logit(1 - risk_level), the log-odds at which a calibrated model makes so many
    errors (at least 1): from 4 down to 1/2 for models that are calibrated or overconfident by a small
    factor, with 0.76 of delta; from 128 to 8 for saturated ones, with 0.04; -inf, "answer everything", with
    0.2, for models that are right more often than any of their log-odds says.
    """
    grid = threshold_grid()
    calibrated = max(math.log1p(-risk_level) - math.log(risk_level), 1.0)
    weights = np.zeros(len(grid))
    weights[-1] = _LAST
    for multiple, share in _STARTS.items():
        weights[int(np.argmax(grid <= calibrated * multiple))] += share
    return weights


def count_at_least(scores: FloatArray, thresholds: FloatArray) -> IntArray:
    """Count the scores >= each threshold.

    Examples
    --------
    >>> count_at_least(np.array([3.0, 1.0, 2.0]), np.array([2.0, -np.inf])).tolist()
    [2, 3]
    """
    return len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left")
