"""How far the labels that happened to come can have moved a calibration error."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtri

from finetune.domain.calibration.reliability import ReliabilityBins
from finetune.domain.checks import as_level


def ece_noise(bins: ReliabilityBins, level: float = 0.95) -> float:
    """Bound what chance in the labels does to the expected calibration error of these texts.

    Parameters
    ----------
    bins
        Reliability bins of at least one row, however they were summed up.
    level
        In (0, 1).

    Returns
    -------
    float
        Non-negative: with a probability of at least ``level`` over labels drawn anew for the same texts, the
        ECE is no further than this from the one that the true probabilities of the labels would give in
        their place.

    Notes
    -----
    With D_b the sum of y - p over the n_b rows of bin b, the ECE is sum_b |D_b| / n, and the error it
    estimates is T = sum_b |E D_b| / n.  So |ECE - T| <= N = sum_b |D_b - E D_b| / n, whatever T is.  The
    variance of D_b is at most E S_b with S_b the sum of (y - p)^2, which is known, and taken to be no less
    than the sum of p (1 - p), which it would be on average if p were right: a few rows may all be hits.  For
    normal D_b this gives E N <= sqrt(2 / pi) sum_b sqrt(S_b) / n.  As a function of standard normals N is
    convex and changes by at most sqrt(sum_b S_b) / n where they change by 1: it exceeds its median, which is
    not above its mean, by z of that with a probability of at most 1 - Phi(z).  The mean is part of the bound
    because the ECE of few rows is not only uncertain but too large.

    A model's own probabilities, of which :func:`~finetune.domain.calibration.null_band` draws labels, are no
    measure of the noise of a model that is too sure: it claims that there is none.

    Not guaranteed: S_b stands for its mean, and the sum over a bin of few rows is not normal.  Nothing is
    said of other texts.

    References
    ----------
    Borell, C. (1975). The Brunn-Minkowski inequality in Gauss space. Inventiones Mathematicae 30, thm. 3.1.
    Kwapien, S. (1994). A remark on the median and the expectation of convex functions of Gaussian vectors.
    Probability in Banach Spaces 9.

    Examples
    --------
    >>> from finetune.domain.calibration import reliability_bins
    >>> few, many = (reliability_bins(np.full(n, 0.8), np.arange(n) % 5 > 0) for n in (100, 10_000))
    >>> round(ece_noise(few), 4), round(ece_noise(many), 4)
    (0.0977, 0.0098)
    """
    level = as_level(level, name="level")
    seen = bins.hits - 2.0 * bins.hit_confidence_sums + bins.squared_sums
    claimed = bins.confidence_sums - bins.squared_sums
    squares = np.maximum(np.maximum(seen, claimed), 0.0)
    mean = math.sqrt(2.0 / math.pi) * np.sqrt(squares).sum()
    beyond = max(float(ndtri(level)), 0.0) * math.sqrt(squares.sum())
    return float((mean + beyond) / bins.counts.sum())
