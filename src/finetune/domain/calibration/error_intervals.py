"""Bootstrap intervals of the calibration errors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from finetune.domain.calibration.reliability import bin_edges, bin_index
from finetune.domain.checks import as_count, as_flags, as_generator
from finetune.domain.probabilities import as_event_probabilities
from finetune.domain.statistics.intervals import Interval
from finetune.domain.statistics.resampling import percentile_interval

_BLOCK_CELLS = 1 << 20


def calibration_error_intervals(
    confidence: npt.ArrayLike,
    hits: npt.ArrayLike,
    rng: np.random.Generator,
    n_bins: int = 10,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> tuple[Interval, Interval]:
    """Percentile bootstrap intervals of ECE and MCE, from the same draws of rows.

    What :func:`~finetune.domain.statistics.bootstrap_interval` gives for each, but for rounding, with every
    row put into its bin once.

    Parameters
    ----------
    confidence
        Shape (n,), in [0, 1].
    hits
        Shape (n,): whether the event happened, bool or 0 and 1.
    rng, n_resamples, level
        As in :func:`~finetune.domain.statistics.bootstrap_interval`.
    n_bins
        Number of bins of equal width.

    Returns
    -------
    tuple of Interval
        Of the ECE and of the MCE.  Both are biased upwards, and more so on a resample: an interval can lie
        above the value itself.

    Raises
    ------
    InvalidInput
        If the input is not as above.

    References
    ----------
    Efron, B. and Tibshirani, R. J. (1993). An Introduction to the Bootstrap, ch. 13.

    Examples
    --------
    >>> ece, mce = calibration_error_intervals(np.full(50, 0.5), [0, 1] * 25, np.random.default_rng(0))
    >>> ece == mce, ece.low < 0.02, 0.1 < ece.high < 0.2  # one bin; |Binomial(50, 1/2) / 50 - 1/2|
    (True, True, True)
    """
    p = as_event_probabilities(confidence, name="confidence")
    gaps = as_flags(hits, n_rows=len(p), name="hits") - p
    edges, rng = bin_edges(p, n_bins, "width"), as_generator(rng)
    index, n_bins = bin_index(p, edges), len(edges) - 1
    draws = np.empty((2, as_count(n_resamples, name="n_resamples")))
    step = max(1, _BLOCK_CELLS // len(p))
    for start in range(0, draws.shape[1], step):
        size = min(step, draws.shape[1] - start)
        rows = rng.integers(len(p), size=(size, len(p)))
        cells = (index[rows] + n_bins * np.arange(size)[:, None]).ravel()
        sums = np.bincount(cells, weights=gaps[rows].ravel(), minlength=size * n_bins)
        counts = np.bincount(cells, minlength=size * n_bins)
        sums, counts = np.abs(sums).reshape(size, n_bins), counts.reshape(size, n_bins)
        draws[0, start : start + size] = sums.sum(axis=1) / len(p)
        draws[1, start : start + size] = (sums / np.maximum(counts, 1)).max(axis=1)
    return percentile_interval(draws[0], level), percentile_interval(draws[1], level)
