"""Calibration errors over rows that come in parts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from finetune.domain.accumulators.base import Accumulator, require_labels
from finetune.domain.calibration.bins import BinSums, equal_width
from finetune.domain.calibration.classwise import ClasswiseBins, bins_of_labels
from finetune.domain.calibration.confidence import blocks, checked_pair, confidence_blocks
from finetune.domain.calibration.reliability import ReliabilityBins, bins_of_event
from finetune.domain.calibration.smooth import NODES, add_residuals, smoothed_error
from finetune.domain.checks import as_count


class _Bins(Accumulator):
    """Shared by both kinds of bins: their sums are the state."""

    def __init__(self, settings: dict[str, int], n_events: int, n_bins: int) -> None:
        shape = (n_events, n_bins)
        super().__init__(settings, {"counts": shape, "hits": shape}, (3, *shape))
        self._edges = equal_width(n_bins)

    @property
    def _bins(self) -> BinSums:
        return BinSums(self._counts["counts"], self._counts["hits"], self._sums)

    def _consistent(self) -> bool:
        counts, hits = self._counts["counts"], self._counts["hits"]
        sums = self._sums.value
        bounded = np.all((sums >= -1e-9) & (sums <= counts + 1e-9 * (1 + counts)))
        return bool(bounded and np.all(hits <= counts) and np.ptp(counts.sum(axis=1)) == 0)


class ReliabilityAccumulator(_Bins):
    """Reliability bins of the predicted event of each row, of equal width.

    Parameters
    ----------
    n_bins
        Number of bins.

    Examples
    --------
    >>> parts = ReliabilityAccumulator(n_bins=2), ReliabilityAccumulator(n_bins=2)
    >>> parts[0].update([0.25, 0.25], [0, 0])
    >>> parts[1].update([0.55, 0.75, 0.75], [1, 1, 1])
    >>> round(parts[0].merge(parts[1]).result().ece, 4)
    0.29
    """

    kind = "reliability_accumulator"
    setting_names = ("n_bins",)

    def __init__(self, n_bins: int = 10) -> None:
        n_bins = as_count(n_bins, name="n_bins")
        super().__init__({"n_bins": n_bins}, 1, n_bins)

    def update(self, y_prob: npt.ArrayLike, y_true: npt.ArrayLike) -> None:
        """Add rows, as in :func:`~finetune.domain.calibration.reliability_bins`."""
        bins = self._bins
        for confidence, hits in confidence_blocks(y_prob, y_true):
            bins.add_events(confidence, hits, self._edges)

    def result(self) -> ReliabilityBins | None:
        """Return the bins; None before the first row."""
        return bins_of_event(self._bins, 0, self._edges) if self._counts["counts"].any() else None


class ClasswiseAccumulator(_Bins):
    """Reliability bins of each label, of equal width.

    Parameters
    ----------
    n_labels
        Number of labels, K.
    n_bins
        Number of bins of each.

    Examples
    --------
    >>> accumulator = ClasswiseAccumulator(n_labels=2)
    >>> accumulator.update([[0.8, 0.2], [0.8, 0.2], [0.6, 0.4]], [0, 1, 0])
    >>> round(accumulator.result().ece, 4)
    0.3333
    """

    kind = "classwise_accumulator"
    setting_names = ("n_labels", "n_bins")

    def __init__(self, n_labels: int, n_bins: int = 10) -> None:
        n_labels = as_count(n_labels, name="n_labels", minimum=2)
        n_bins = as_count(n_bins, name="n_bins")
        super().__init__({"n_labels": n_labels, "n_bins": n_bins}, n_labels, n_bins)

    def update(self, y_prob: npt.ArrayLike, y_true: npt.ArrayLike) -> None:
        """Add rows over the labels, shape (n, K), with their true labels, shape (n,)."""
        rows, labels = checked_pair(y_prob, y_true)
        require_labels(rows.shape[1], self._settings["n_labels"])
        bins = self._bins
        for block in blocks(*rows.shape):
            bins.add_rows(rows[block], labels[block], self._edges)

    def result(self) -> ClasswiseBins | None:
        """Return the bins of each label; None before the first row."""
        return bins_of_labels(self._bins, self._edges) if self._counts["counts"].any() else None


class SmoothErrorAccumulator(Accumulator):
    """Smooth calibration error of the predicted event of each row.

    Examples
    --------
    >>> accumulator = SmoothErrorAccumulator()
    >>> accumulator.update([0.8], [0])
    >>> accumulator.update([0.8], [1])
    >>> round(accumulator.result(), 3)
    0.3
    """

    kind = "smooth_error_accumulator"

    def __init__(self) -> None:
        super().__init__({}, {"rows": ()}, (NODES,))

    def update(self, y_prob: npt.ArrayLike, y_true: npt.ArrayLike) -> None:
        """Add rows, as in :func:`~finetune.domain.calibration.compute_smooth_ece`."""
        self._counts["rows"] += add_residuals(self._sums, y_prob, y_true)

    def result(self) -> float | None:
        """Return the error; None before the first row."""
        rows = int(self._counts["rows"])
        return smoothed_error(self._sums.value / rows) if rows else None

    def _consistent(self) -> bool:
        rows = int(self._counts["rows"])
        return bool(np.abs(self._sums.value).sum() <= rows + 1e-9 * (1 + rows))
