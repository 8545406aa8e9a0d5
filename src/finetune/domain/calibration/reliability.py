"""Reliability bins of one event a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.domain.calibration.bin_errors import (
    BinTotals,
    DebiasedError,
    debiased_error,
    expected_error,
    largest_error,
    root_mean_square_error,
)
from finetune.domain.calibration.bins import BINNINGS, BinSums, equal_mass, equal_width
from finetune.domain.calibration.confidence import confidence_blocks, event_blocks, joined_confidence
from finetune.domain.checks import FloatArray, IntArray, as_choice, as_count
from finetune.domain.errors import InvalidInput


def reliability_bins(
    y_prob: npt.ArrayLike, y_true: npt.ArrayLike, n_bins: int = 10, *, binning: str = "width"
) -> ReliabilityBins:
    """Sort confidences into bins (a, b] and count how often they were right.

    Parameters
    ----------
    y_prob
        Shape (n, K): the confidence is that of the most likely label (the first one on a tie).
        Shape (n,): the probability that y = 1, which is the confidence of that event.
    y_true
        Shape (n,): label indices; for the second form bool, or 0 and 1.
    n_bins
        Number of bins; 1.0 falls into the last one and 0.0 into the first.  The ends are rounded to the
        precision of ``y_prob``: 0.3 is in (0.2, 0.3], in float32 as in float64 (half is read as float32).
    binning
        ``"width"``: equal width over [0, 1].  ``"mass"``: about equal numbers of rows; equal confidences
        share a bin, so some may be empty.

    Returns
    -------
    ReliabilityBins
        The counts, with the errors as properties.

    Raises
    ------
    InvalidInput
        If the input is not as above.

    Notes
    -----
    With bins of equal width the rows are read block by block, and nothing that grows with their number is
    allocated but what the checks of a list or of half precision need.

    References
    ----------
    Naeini, Cooper, Hauskrecht (2015). Obtaining well calibrated probabilities using Bayesian binning. AAAI.

    Examples
    --------
    >>> bins = reliability_bins([0.25, 0.25, 0.55, 0.75, 0.75], [0, 0, 1, 1, 1], n_bins=2)
    >>> bins.counts.tolist(), round(bins.ece, 4)
    ([2, 3], 0.29)
    """
    n_bins = as_count(n_bins, name="n_bins")
    sums = BinSums.empty(1, n_bins)
    if as_choice(binning, BINNINGS, name="binning") == "width":
        edges = equal_width(n_bins)
        for confidence, hits in confidence_blocks(y_prob, y_true):
            sums.add_events(confidence, hits, edges)
    else:
        confidence, hits = joined_confidence(y_prob, y_true)
        edges = equal_mass(confidence, n_bins)
        for block in event_blocks(len(hits)):
            sums.add_events(confidence[block], hits[block], edges)
    return bins_of_event(sums, 0, edges)


def bins_of_event(sums: BinSums, event: int, edges: FloatArray) -> ReliabilityBins:
    """Bins of one of the events that were summed up."""
    confidence, squares, hit_confidence = sums.sums.value[:, event]
    return ReliabilityBins(
        edges, sums.counts[event].copy(), confidence, sums.hits[event].copy(), squares, hit_confidence
    )


@dataclass(frozen=True)
class ReliabilityBins:
    """Counts per bin; they add up over batches by :meth:`merge`.

    Parameters
    ----------
    edges
        Shape (n_bins + 1,).
    counts, hits
        Rows, and rows that were right, per bin.
    confidence_sums, squared_sums, hit_confidence_sums
        Per bin, the sum of the confidences, of their squares, and of those of rows that were right.
    """

    edges: FloatArray
    counts: IntArray
    confidence_sums: FloatArray
    hits: IntArray
    squared_sums: FloatArray
    hit_confidence_sums: FloatArray

    @property
    def totals(self) -> BinTotals:
        """What the errors are functions of."""
        return BinTotals(self.counts[None], self.hits[None], self.confidence_sums[None])

    @property
    def gaps(self) -> FloatArray:
        """|accuracy - mean confidence| of the bins that have rows, in their order."""
        filled = self.counts > 0
        return np.abs(self.hits - self.confidence_sums)[filled] / self.counts[filled]

    @property
    def ece(self) -> float:
        """Mean gap, each bin weighted by its rows."""
        return expected_error(self.totals)

    @property
    def mce(self) -> float:
        """Largest gap."""
        return largest_error(self.totals)

    @property
    def rmsce(self) -> float:
        """Root of the mean squared gap, each bin weighted by its rows."""
        return root_mean_square_error(self.totals)

    @property
    def debiased(self) -> DebiasedError | None:
        """Squared error without the bias of small bins; None if no bin has two rows."""
        return debiased_error(self.totals)

    def merge(self, other: ReliabilityBins) -> ReliabilityBins:
        """Bins of both sets of rows together; the edges must be the same."""
        if not isinstance(other, ReliabilityBins) or not np.array_equal(self.edges, other.edges):
            raise InvalidInput(
                "the bins have different edges",
                seen=getattr(other, "edges", other),
                remedy="merge bins of equal width and number",
            )
        return ReliabilityBins(
            self.edges,
            self.counts + other.counts,
            self.confidence_sums + other.confidence_sums,
            self.hits + other.hits,
            self.squared_sums + other.squared_sums,
            self.hit_confidence_sums + other.hit_confidence_sums,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready table; what an empty bin would show is None, for it is not estimable."""
        return {
            "version": 1,
            "edges": self.edges.tolist(),
            "counts": self.counts.tolist(),
            "confidence": _ratios(self.confidence_sums, self.counts),
            "accuracy": _ratios(self.hits, self.counts),
        }


def _ratios(sums: FloatArray | IntArray, counts: IntArray) -> list[float | None]:
    return [float(total / count) if count else None for total, count in zip(sums, counts, strict=True)]
