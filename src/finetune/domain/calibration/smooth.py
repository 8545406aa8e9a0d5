"""Smooth calibration error: no bins, and no number of bins to choose."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from finetune.domain.calibration.confidence import confidence_blocks
from finetune.domain.checks import FloatArray
from finetune.domain.sums import Sums

_INTERVALS = 1 << 14
NODES = _INTERVALS + 1
_PRECISION = 1e-12
_MAX_STEPS = 100


def compute_smooth_ece(y_prob: npt.ArrayLike, y_true: npt.ArrayLike) -> float:
    """Compute the smooth calibration error: mean |smoothed (outcome - confidence)|, at its own bandwidth.

    The residuals are smoothed with a Gaussian that is reflected at 0 and 1; its bandwidth is the one that
    equals the error.

    Parameters
    ----------
    y_prob, y_true
        As in :func:`~finetune.domain.calibration.confidence_and_hits`.

    Returns
    -------
    float
        In [0, 1]; continuous in the confidences, and within a constant factor of the distance to the
        nearest calibrated model (of the root of that distance, from the other side).

    Raises
    ------
    InvalidInput
        If the input is not as described there.

    Notes
    -----
    Each residual is shared by the two nearest of h = 1 / 16384 apart nodes.  With the error s this shifts
    it by at most 0.13 (h / s)^2 times the mean |residual|: 5e-6 of that at s = 0.01, 5e-4 at s = 0.001.
    Biased upwards as every error of this kind is: read it beside
    :func:`~finetune.domain.calibration.null_band`.

    References
    ----------
    Błasiok, J. and Nakkiran, P. (2023). Smooth ECE: principled reliability diagrams via kernel smoothing.
    ICLR 2024.

    Examples
    --------
    >>> compute_smooth_ece([0.25, 0.25, 0.25, 0.25], [0, 0, 0, 1])
    0.0
    >>> round(compute_smooth_ece([0.8, 0.8], [0, 1]), 3)
    0.3
    """
    sums = Sums((NODES,))
    rows = add_residuals(sums, y_prob, y_true)
    return smoothed_error(sums.value / rows)


def add_residuals(sums: Sums, y_prob: npt.ArrayLike, y_true: npt.ArrayLike) -> int:
    """Add outcome - confidence of these rows to the sums at the nodes; return the number of rows."""
    rows = 0
    for confidence, hits in confidence_blocks(y_prob, y_true):
        p: FloatArray = confidence.astype(np.float64, copy=False)
        places, residuals = p * _INTERVALS, hits - p
        below = np.minimum(places.astype(np.int64), _INTERVALS - 1)
        upper = residuals * (places - below)
        sums.add(
            np.bincount(below, weights=residuals - upper, minlength=NODES)
            + np.bincount(below + 1, weights=upper, minlength=NODES)
        )
        rows += len(hits)
    return rows


def smoothed_error(residuals: FloatArray) -> float:
    """Bandwidth at which the smoothed error equals the bandwidth, which is the smooth error.

    Parameters
    ----------
    residuals
        Shape (m + 1,): outcome less probability, summed at the nodes 0, 1/m, ..., 1 and divided by the
        number of rows.

    Returns
    -------
    float
        In [0, 1], to 1e-12.
    """
    m = len(residuals) - 1
    # On the circle of circumference 2 each residual sits at t and at -t; at 0 and 1 these are one point.
    circle = np.concatenate([residuals, residuals[-2:0:-1]])
    circle[[0, m]] *= 2.0
    spectrum = np.fft.rfft(circle)
    rates = 0.5 * (np.pi * np.arange(m + 1)) ** 2

    def excess(bandwidth: float) -> float:
        with np.errstate(under="ignore"):
            smooth = np.abs(np.fft.irfft(spectrum * np.exp(-rates * bandwidth**2), 2 * m)[: m + 1])
        return float(smooth.sum() - (smooth[0] + smooth[m]) / 2.0) - bandwidth

    return _root(excess)


def _root(excess: Callable[[float], float]) -> float:
    """Find the zero of a function that falls at least as fast as -x, by regula falsi (Illinois)."""
    low, high = 0.0, 1.0
    above, below = excess(low), excess(high)
    moved = 0.0
    for _ in range(_MAX_STEPS):
        point = low + (high - low) * above / (above - below)
        value = excess(point)
        if abs(value) <= _PRECISION:  # then the zero is as near as that
            break
        # An end that stays for two steps counts half, or it would never move.
        if value > 0.0:
            below *= 0.5 if moved > 0.0 else 1.0
            low, above = point, value
        else:
            above *= 0.5 if moved < 0.0 else 1.0
            high, below = point, value
        moved = value
    return point
