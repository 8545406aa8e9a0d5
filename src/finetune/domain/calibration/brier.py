"""The Brier score taken apart: calibration, sharpness, and how hard the question is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finetune.domain.calibration.bin_errors import decomposition
from finetune.domain.calibration.classwise import ClasswiseBins, classwise_bins


def decompose_brier(
    y_prob: npt.ArrayLike, y_true: npt.ArrayLike, n_bins: int = 10, *, binning: str = "width"
) -> BrierParts:
    """Take the Brier score apart into reliability, resolution, uncertainty and what the bins hide.

    Parameters
    ----------
    y_prob
        Shape (n, K): the parts are summed over the labels, as the score is.
        Shape (n,): the probability that y = 1, which is the only event.
    y_true
        Shape (n,): label indices; for the second form bool, or 0 and 1.
    n_bins, binning
        As in :func:`~finetune.domain.calibration.reliability_bins`.

    Returns
    -------
    BrierParts
        Its ``score`` is the Brier score but for rounding (of rows that sum to 1), whatever the bins.

    Raises
    ------
    InvalidInput
        If the input is not as above.

    Notes
    -----
    Reliability and resolution are both biased upwards where bins hold few rows.

    References
    ----------
    Murphy, A. H. (1973). A new vector partition of the probability score. J. Appl. Meteor. 12.
    Stephenson, Coelho, Jolliffe (2008). Two extra components in the Brier score decomposition. Weather and
    Forecasting 23.

    Examples
    --------
    >>> parts = decompose_brier([0.1, 0.9, 0.8, 0.3], [0, 1, 1, 0], n_bins=2)
    >>> round(parts.reliability, 6), round(parts.resolution, 6), parts.uncertainty, round(parts.score, 6)
    (0.03125, 0.25, 0.25, 0.0375)
    """
    return brier_parts(classwise_bins(y_prob, y_true, n_bins, binning=binning))


def brier_parts(bins: ClasswiseBins) -> BrierParts:
    """Parts of the Brier score that the bins were made from, summed over their labels."""
    parts = np.zeros(5)
    for of_label in bins.labels:
        filled = of_label.counts > 0
        counts, hits = of_label.counts[filled], of_label.hits[filled]
        sums = of_label.confidence_sums[filled]
        variance = of_label.squared_sums[filled] - sums**2 / counts
        covariance = of_label.hit_confidence_sums[filled] - sums * hits / counts
        n = counts.sum()
        parts += [
            *decomposition(of_label.totals),
            np.maximum(variance, 0.0).sum() / n,
            2.0 * covariance.sum() / n,
        ]
    return BrierParts(*parts.tolist())


@dataclass(frozen=True)
class BrierParts:
    """Parts of a Brier score.

    Parameters
    ----------
    reliability
        Mean squared gap between confidence and frequency; 0 is best.
    resolution
        Mean squared distance of the bins' frequencies from the overall one; more is better.
    uncertainty
        Score of always giving the overall frequency; no model changes it.
    within_variance, within_covariance
        What the bins hide: variance of the probabilities inside them, and twice their covariance with the
        outcome.  Both are 0 where the probabilities of a bin are equal.
    """

    reliability: float
    resolution: float
    uncertainty: float
    within_variance: float
    within_covariance: float

    @property
    def score(self) -> float:
        """The Brier score."""
        return (
            self.reliability
            - self.resolution
            + self.uncertainty
            + self.within_variance
            - self.within_covariance
        )
