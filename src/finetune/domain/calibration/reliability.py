"""Reliability bins and the calibration errors that are read off them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import (
    BoolArray,
    FloatArray,
    IntArray,
    as_array,
    as_choice,
    as_count,
    as_flags,
    as_labels,
)
from finetune.domain.errors import InvalidInput
from finetune.domain.probabilities import as_event_probabilities, as_rows


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
        Number of bins; 1.0 falls into the last one and 0.0 into the first.
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

    References
    ----------
    Naeini, Cooper, Hauskrecht (2015). Obtaining well calibrated probabilities using Bayesian binning. AAAI.

    Examples
    --------
    >>> bins = reliability_bins([0.25, 0.25, 0.55, 0.75, 0.75], [0, 0, 1, 1, 1], n_bins=2)
    >>> bins.counts.tolist(), round(bins.ece, 4)
    ([2, 3], 0.29)
    """
    confidence, hits = confidence_and_hits(y_prob, y_true)
    edges = bin_edges(confidence, n_bins, binning)
    index = bin_index(confidence, edges)
    size = len(edges) - 1
    sums = np.bincount(index, weights=confidence, minlength=size)
    return ReliabilityBins(
        edges,
        np.bincount(index, minlength=size).astype(np.int64),
        sums.astype(np.float64, copy=False),
        np.bincount(index, weights=hits, minlength=size).astype(np.int64),
    )


def compute_ece(y_prob: npt.ArrayLike, y_true: npt.ArrayLike, n_bins: int = 10) -> float:
    """Compute the expected calibration error: mean over rows of |accuracy - confidence| of the row's bin.

    Parameters
    ----------
    y_prob, y_true, n_bins
        As in :func:`reliability_bins`, with bins of equal width.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    InvalidInput
        If the input is not as described there.

    Notes
    -----
    Biased upwards: a perfectly calibrated model shows about 0.1 at n = 100.  Read it beside
    :func:`~finetune.domain.calibration.null_band.ece_null_band`.

    References
    ----------
    Guo, Pleiss, Sun, Weinberger (2017). On calibration of modern neural networks. ICML, eq. 3.

    Examples
    --------
    >>> round(compute_ece([[0.9, 0.1], [0.6, 0.4]], [0, 1]), 3)
    0.35
    """
    return reliability_bins(y_prob, y_true, n_bins).ece


def compute_mce(y_prob: npt.ArrayLike, y_true: npt.ArrayLike, n_bins: int = 10) -> float:
    """Compute the maximum calibration error: the largest |accuracy - mean confidence| of a bin that has rows.

    Parameters
    ----------
    y_prob, y_true, n_bins
        As in :func:`reliability_bins`, with bins of equal width.

    Returns
    -------
    float
        In [0, 1].  One bin with one row can decide it: no statement about the population.

    Raises
    ------
    InvalidInput
        If the input is not as described there.

    References
    ----------
    Guo, Pleiss, Sun, Weinberger (2017). On calibration of modern neural networks. ICML, eq. 5.

    Examples
    --------
    >>> round(compute_mce([[0.9, 0.1], [0.6, 0.4]], [0, 1]), 3)
    0.6
    """
    return reliability_bins(y_prob, y_true, n_bins).mce


def confidence_and_hits(y_prob: npt.ArrayLike, y_true: npt.ArrayLike) -> tuple[FloatArray, BoolArray]:
    """Confidence of the predicted event, and whether it happened; see :func:`reliability_bins`.

    Examples
    --------
    >>> confidence_and_hits([[0.2, 0.8], [0.7, 0.3]], [1, 1])
    (array([0.8, 0.7]), array([ True, False]))
    """
    confidence, predicted, n_labels = top_confidence(y_prob)
    if predicted is None:
        return confidence, as_flags(y_true, n_rows=len(confidence), name="y_true")
    labels = as_labels(y_true, n_rows=len(confidence), n_labels=n_labels, name="y_true")
    return confidence, labels == predicted


def bin_edges(confidence: FloatArray, n_bins: int, binning: str) -> FloatArray:
    """Place the ends of the bins, ascending from 0 to 1, shape (n_bins + 1,)."""
    n_bins = as_count(n_bins, name="n_bins")
    as_choice(binning, ("width", "mass"), name="binning")
    if binning == "width":
        # A division per edge, not linspace: 3 / 10 is the float that a user writes as 0.3.
        return np.arange(n_bins + 1) / n_bins
    ranks = -(-np.arange(1, n_bins) * len(confidence) // n_bins) - 1
    return np.concatenate([[0.0], np.sort(confidence)[np.maximum(ranks, 0)], [1.0]])


def bin_index(confidence: FloatArray, edges: FloatArray) -> IntArray:
    """Index of the bin (a, b] that holds each confidence."""
    return np.maximum(np.searchsorted(edges, confidence, side="left") - 1, 0)


def top_confidence(y_prob: npt.ArrayLike) -> tuple[FloatArray, IntArray | None, int]:
    """Confidence of the predicted event, its label (None: y = 1 in every row), and the number of labels."""
    if as_array(y_prob, "y_prob").ndim == 1:
        return as_event_probabilities(y_prob, name="y_prob"), None, 2
    rows = as_rows(y_prob, name="y_prob")
    predicted = rows.argmax(axis=1)
    return rows[np.arange(len(rows)), predicted], predicted, rows.shape[1]


@dataclass(frozen=True)
class ReliabilityBins:
    """Counts per bin; they add up over batches and workers by :meth:`merge`.

    Parameters
    ----------
    edges
        Shape (n_bins + 1,).
    counts, hits
        Rows, and rows that were right, per bin.
    confidence_sums
        Sum of the confidences per bin.
    """

    edges: FloatArray
    counts: IntArray
    confidence_sums: FloatArray
    hits: IntArray

    @property
    def gaps(self) -> FloatArray:
        """|accuracy - mean confidence| of the bins that have rows, in their order."""
        filled = self.counts > 0
        return np.abs(self.hits - self.confidence_sums)[filled] / self.counts[filled]

    @property
    def ece(self) -> float:
        """Mean gap, each bin weighted by its rows."""
        return float(np.abs(self.hits - self.confidence_sums).sum() / self.counts.sum())

    @property
    def mce(self) -> float:
        """Largest gap."""
        return float(self.gaps.max())

    @property
    def rmsce(self) -> float:
        """Root of the mean squared gap, each bin weighted by its rows."""
        weights = self.counts[self.counts > 0] / self.counts.sum()
        return float(np.sqrt(weights @ self.gaps**2))

    def merge(self, other: ReliabilityBins) -> ReliabilityBins:
        """Bins of both sets of rows together; the edges must be the same."""
        if not np.array_equal(self.edges, other.edges):
            raise InvalidInput(
                "the bins have different edges",
                seen=other.edges.tolist(),
                remedy="merge bins of equal width and number",
            )
        return ReliabilityBins(
            self.edges,
            self.counts + other.counts,
            self.confidence_sums + other.confidence_sums,
            self.hits + other.hits,
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
