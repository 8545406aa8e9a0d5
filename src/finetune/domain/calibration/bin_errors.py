"""Errors of calibration as functions of what is summed up in bins."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.domain.calibration.smooth import smoothed_error
from finetune.domain.checks import FloatArray


class BinTotals(NamedTuple):
    """Sums per event and bin, each of shape (n_events, n_bins): rows, rows that came true, confidences."""

    counts: npt.NDArray[Any]
    hits: npt.NDArray[Any]
    confidence: FloatArray


class DebiasedError(NamedTuple):
    """Squared error without the bias of small bins.

    Parameters
    ----------
    squared
        The estimate; below 0 where the gaps are smaller than chance alone would make them.
    rows_left_out
        Rows that are alone in their bin: their noise is not estimable, and they do not count.
    """

    squared: float
    rows_left_out: int

    @property
    def root(self) -> float:
        """Root of the estimate; 0 where it is negative."""
        return math.sqrt(max(self.squared, 0.0))


class Decomposition(NamedTuple):
    """Murphy's parts of the Brier score, from binned probabilities."""

    reliability: float
    resolution: float
    uncertainty: float


def expected_error(totals: BinTotals) -> float:
    """Mean gap of the rows' bins; over several events, the mean of theirs."""
    gaps = np.abs(totals.hits - totals.confidence).sum(axis=1) / totals.counts.sum(axis=1)
    return float(gaps.mean())


def largest_error(totals: BinTotals) -> float:
    """Largest gap of a bin that has rows."""
    return float(_gaps(totals).max())


def root_mean_square_error(totals: BinTotals) -> float:
    """Root of the mean squared gap of the rows' bins."""
    return math.sqrt(float((totals.counts * _gaps(totals) ** 2).sum() / totals.counts.sum()))


def debiased_error(totals: BinTotals) -> DebiasedError | None:
    """Squared error less what chance adds to it; None if every row is alone in its bin."""
    used = totals.counts > 1
    counts, rates = totals.counts[used], totals.hits[used] / totals.counts[used]
    if not used.any():
        return None
    terms = (totals.confidence[used] / counts - rates) ** 2 - rates * (1.0 - rates) / (counts - 1)
    return DebiasedError(float(counts @ terms / counts.sum()), int(totals.counts.sum() - counts.sum()))


def decomposition(totals: BinTotals) -> Decomposition:
    """Parts of the Brier score, summed over the events."""
    n = totals.counts.sum(axis=1, keepdims=True)
    base = totals.hits.sum(axis=1, keepdims=True) / n
    weights = totals.counts / n
    rates = np.divide(totals.hits, totals.counts, out=np.zeros(weights.shape), where=totals.counts > 0)
    return Decomposition(
        float((weights * _gaps(totals) ** 2).sum()),
        float((weights * (rates - base) ** 2).sum()),
        float((base * (1.0 - base)).sum()),
    )


def _gaps(totals: BinTotals) -> FloatArray:
    return np.asarray(np.abs(totals.hits - totals.confidence) / np.maximum(totals.counts, 1))


def _debiased_root(totals: BinTotals) -> float:
    error = debiased_error(totals)
    return math.nan if error is None else error.root


def _smooth(totals: BinTotals) -> float:
    return smoothed_error((totals.hits - totals.confidence)[0] / totals.counts.sum())


class BinnedError(NamedTuple):
    """How an error comes about: whose bins, of which kind, and what is made of their sums.

    ``events`` is ``"top"`` for the one predicted event of a row, ``"labels"`` for each label's, or
    ``"grid"`` for the predicted event on the fine grid of the smooth error; ``binning`` is None where the
    caller may choose.
    """

    events: str
    binning: str | None
    of: Callable[[BinTotals], float]


BINNED_ERRORS = {
    "ece": BinnedError("top", None, expected_error),
    "mce": BinnedError("top", None, largest_error),
    "rmsce": BinnedError("top", None, root_mean_square_error),
    "debiased_rmsce": BinnedError("top", None, _debiased_root),
    "smooth_ece": BinnedError("grid", "width", _smooth),
    "classwise_ece": BinnedError("labels", None, expected_error),
    "ace": BinnedError("labels", "mass", expected_error),
    "reliability": BinnedError("labels", None, lambda totals: decomposition(totals).reliability),
    "resolution": BinnedError("labels", None, lambda totals: decomposition(totals).resolution),
    "uncertainty": BinnedError("labels", None, lambda totals: decomposition(totals).uncertainty),
}
