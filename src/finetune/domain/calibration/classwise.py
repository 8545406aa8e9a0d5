"""Calibration errors over all labels: each label's probability against how often it was the true one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finetune.domain.calibration.bins import BINNINGS, BinSums, equal_mass, equal_width
from finetune.domain.calibration.confidence import blocks, checked_pair
from finetune.domain.calibration.reliability import ReliabilityBins, bins_of_event, reliability_bins
from finetune.domain.checks import FloatArray, Numbers, as_array, as_choice, as_count
from finetune.domain.errors import InvalidInput


def classwise_bins(
    y_prob: npt.ArrayLike, y_true: npt.ArrayLike, n_bins: int = 10, *, binning: str = "width"
) -> ClasswiseBins:
    """Reliability bins of each label, as an event of its own: every row counts once for every label.

    Parameters
    ----------
    y_prob
        Shape (n, K).  Shape (n,): the probability that y = 1, the only event that is then looked at.
    y_true
        Shape (n,): label indices; for the second form bool, or 0 and 1.
    n_bins, binning
        As in :func:`reliability_bins`; with ``"mass"`` each label has its own ends.

    Returns
    -------
    ClasswiseBins
        The bins of each label.

    Raises
    ------
    InvalidInput
        If the input is not as above.

    Examples
    --------
    >>> bins = classwise_bins([[0.8, 0.2], [0.8, 0.2], [0.6, 0.4]], [0, 1, 0], n_bins=2)
    >>> [of_label.counts.tolist() for of_label in bins.labels]
    [[0, 3], [3, 0]]
    """
    n_bins = as_count(n_bins, name="n_bins")
    as_choice(binning, BINNINGS, name="binning")
    array = as_array(y_prob, "y_prob")
    if array.ndim == 1:
        return ClasswiseBins((reliability_bins(array, y_true, n_bins, binning=binning),))
    rows, labels = checked_pair(array, y_true)
    edges = equal_width(n_bins) if binning == "width" else mass_edges(rows, n_bins)
    sums = BinSums.empty(rows.shape[1], n_bins)
    for block in blocks(*rows.shape):
        sums.add_rows(rows[block], labels[block], edges)
    return bins_of_labels(sums, edges)


def compute_classwise_ece(
    y_prob: npt.ArrayLike, y_true: npt.ArrayLike, n_bins: int = 10, *, binning: str = "width"
) -> float:
    """Compute the class-wise (static) calibration error: the ECE of each label's probability, averaged.

    Parameters
    ----------
    y_prob, y_true, n_bins, binning
        As in :func:`classwise_bins`.

    Returns
    -------
    float
        In [0, 1].  With many labels most probabilities are near 0, and so is this number whatever the
        model: compare it with other models on the same labels, or with its null band.

    Raises
    ------
    InvalidInput
        If the input is not as described there.

    References
    ----------
    Kull, Perello-Nieto, Kängsepp, Silva Filho, Song, Flach (2019). Beyond temperature scaling. NeurIPS
    (classwise-ECE).  Nixon, Dusenberry, Jerfel, Nguyen, Liu, Zhang, Tran (2019). Measuring
    calibration in deep learning. CVPR workshops (SCE).

    Examples
    --------
    >>> round(compute_classwise_ece([[0.8, 0.2], [0.8, 0.2], [0.6, 0.4]], [0, 1, 0]), 4)
    0.3333
    """
    return classwise_bins(y_prob, y_true, n_bins, binning=binning).ece


def compute_ace(y_prob: npt.ArrayLike, y_true: npt.ArrayLike, n_bins: int = 10) -> float:
    """Compute the adaptive calibration error: the class-wise error with bins of equal mass for each label.

    Parameters
    ----------
    y_prob, y_true, n_bins
        As in :func:`classwise_bins`.

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
    The published definition averages over bins, which hold floor(n / n_bins) rows each.  Here equal
    probabilities share a bin and no row is left over, so each bin is weighted by its rows: the same number
    where n_bins divides n and nothing ties.

    References
    ----------
    Nixon, Dusenberry, Jerfel, Nguyen, Liu, Zhang, Tran (2019). Measuring calibration in deep learning.
    CVPR workshops (ACE).

    Examples
    --------
    >>> round(compute_ace([0.6, 0.7, 0.8, 0.9], [0, 0, 1, 1], n_bins=2), 4)
    0.4
    """
    return compute_classwise_ece(y_prob, y_true, n_bins, binning="mass")


def mass_edges(rows: Numbers, n_bins: int) -> FloatArray:
    """Place the ends of each label's bins of equal mass, shape (K, n_bins + 1)."""
    return np.stack([equal_mass(np.minimum(column, 1.0), n_bins) for column in rows.T])


def bins_of_labels(sums: BinSums, edges: FloatArray) -> ClasswiseBins:
    """Bins of every label from its sums."""
    n_labels = len(sums.counts)
    ends = np.broadcast_to(edges, (n_labels, edges.shape[-1]))
    return ClasswiseBins(tuple(bins_of_event(sums, k, ends[k]) for k in range(n_labels)))


@dataclass(frozen=True)
class ClasswiseBins:
    """The reliability bins of each label."""

    labels: tuple[ReliabilityBins, ...]

    @property
    def ece(self) -> float:
        """Mean over the labels of their ECE."""
        return float(np.mean([bins.ece for bins in self.labels]))

    def merge(self, other: ClasswiseBins) -> ClasswiseBins:
        """Bins of both sets of rows together; the labels and the edges must be the same."""
        if not isinstance(other, ClasswiseBins) or len(self.labels) != len(other.labels):
            raise InvalidInput(
                f"the bins are those of {len(self.labels)} labels",
                seen=len(other.labels) if isinstance(other, ClasswiseBins) else other,
                remedy="merge bins of the same label set",
            )
        return ClasswiseBins(tuple(a.merge(b) for a, b in zip(self.labels, other.labels, strict=True)))
