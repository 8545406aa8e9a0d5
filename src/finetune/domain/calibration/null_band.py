"""How large a calibration error looks when there is none."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.domain.calibration.reliability import bin_edges, bin_index, top_confidence
from finetune.domain.checks import as_count, as_generator, as_level

_BLOCK_CELLS = 1 << 20


def ece_null_band(
    y_prob: npt.ArrayLike,
    rng: np.random.Generator,
    n_bins: int = 10,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> NullBand:
    """Simulate the ECE that a perfectly calibrated model with these very confidences would show.

    Labels are drawn from the model's own probabilities, so an observed ECE inside the band is no evidence
    of miscalibration.

    Parameters
    ----------
    y_prob
        Shape (n, K) or (n,), as in :func:`reliability_bins`.
    rng
        Source of the labels.
    n_bins
        Number of bins of equal width.
    n_resamples
        Number of simulated label vectors.
    level
        Probability in (0, 1) between the two ends.

    Returns
    -------
    NullBand
        Quantiles and mean of the simulated errors.

    Raises
    ------
    InvalidInput
        If the input is not as described there.

    References
    ----------
    Bröcker, J. and Smith, L. A. (2007). Increasing the reliability of reliability diagrams. Weather and
    Forecasting 22 (consistency bars).

    Examples
    --------
    >>> band = ece_null_band(np.full(100, 0.5), np.random.default_rng(0))
    >>> 0.03 < band.mean < 0.05  # mean of |Binomial(100, 1/2) / 100 - 1/2| = 0.0398
    True
    """
    confidence = top_confidence(y_prob)[0]
    level, rng = as_level(level, name="level"), as_generator(rng)
    errors = np.empty(as_count(n_resamples, name="n_resamples"))
    edges = bin_edges(confidence, n_bins, "width")
    index = bin_index(confidence, edges)
    order = np.argsort(index, kind="stable")
    confidence = confidence[order]
    starts = np.flatnonzero(np.diff(index[order], prepend=-1))
    expected = np.add.reduceat(confidence, starts)
    step = max(1, _BLOCK_CELLS // len(confidence))
    for start in range(0, len(errors), step):
        size = (min(step, len(errors) - start), len(confidence))
        hits = np.add.reduceat(rng.random(size) < confidence, starts, axis=1, dtype=np.float64)
        errors[start : start + step] = np.abs(hits - expected).sum(axis=1) / len(confidence)
    low, median, high = np.quantile(errors, [(1 - level) / 2, 0.5, (1 + level) / 2])
    return NullBand(float(low), float(median), float(high), float(errors.mean()), level)


class NullBand(NamedTuple):
    """Quantiles and mean of an error under perfect calibration; ``low`` and ``high`` hold ``level`` of it."""

    low: float
    median: float
    high: float
    mean: float
    level: float
