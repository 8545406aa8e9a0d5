"""Calibration errors of the predicted event of a row, read off its reliability bins."""

from __future__ import annotations

import numpy.typing as npt

from finetune.domain.calibration.bin_errors import DebiasedError
from finetune.domain.calibration.reliability import reliability_bins


def compute_ece(
    y_prob: npt.ArrayLike, y_true: npt.ArrayLike, n_bins: int = 10, *, binning: str = "width"
) -> float:
    """Compute the expected calibration error: mean over rows of |accuracy - confidence| of the row's bin.

    Parameters
    ----------
    y_prob, y_true, n_bins, binning
        As in :func:`~finetune.domain.calibration.reliability_bins`.

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
    :func:`~finetune.domain.calibration.null_band`.

    References
    ----------
    Guo, Pleiss, Sun, Weinberger (2017). On calibration of modern neural networks. ICML, eq. 3.

    Examples
    --------
    >>> round(compute_ece([[0.9, 0.1], [0.6, 0.4]], [0, 1]), 3)
    0.35
    """
    return reliability_bins(y_prob, y_true, n_bins, binning=binning).ece


def compute_mce(
    y_prob: npt.ArrayLike, y_true: npt.ArrayLike, n_bins: int = 10, *, binning: str = "width"
) -> float:
    """Compute the maximum calibration error: the largest |accuracy - mean confidence| of a bin that has rows.

    Parameters
    ----------
    y_prob, y_true, n_bins, binning
        As in :func:`~finetune.domain.calibration.reliability_bins`.

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
    return reliability_bins(y_prob, y_true, n_bins, binning=binning).mce


def compute_rmsce(
    y_prob: npt.ArrayLike, y_true: npt.ArrayLike, n_bins: int = 10, *, binning: str = "width"
) -> float:
    """Compute the root mean squared calibration error, over the same gaps as :func:`compute_ece`.

    Parameters
    ----------
    y_prob, y_true, n_bins, binning
        As in :func:`~finetune.domain.calibration.reliability_bins`.

    Returns
    -------
    float
        In [0, 1], between ECE and MCE.  Biased upwards, nearly all of which
        :func:`compute_debiased_error` takes off.

    Raises
    ------
    InvalidInput
        If the input is not as described there.

    References
    ----------
    Hendrycks, Mazeika, Dietterich (2019). Deep anomaly detection with outlier exposure. ICLR
    (RMS calibration error).

    Examples
    --------
    >>> round(compute_rmsce([[0.9, 0.1], [0.6, 0.4]], [0, 1]), 3)
    0.43
    """
    return reliability_bins(y_prob, y_true, n_bins, binning=binning).rmsce


def compute_debiased_error(
    y_prob: npt.ArrayLike, y_true: npt.ArrayLike, n_bins: int = 10, *, binning: str = "width"
) -> DebiasedError | None:
    """Squared calibration error without the upward bias of few rows in a bin.

    From each bin's squared gap the part that chance adds, accuracy (1 - accuracy) / (n_b - 1), is taken off.

    Parameters
    ----------
    y_prob, y_true, n_bins, binning
        As in :func:`~finetune.domain.calibration.reliability_bins`.

    Returns
    -------
    DebiasedError or None
        The squared error, which may be below 0, and its ``root``.  A bin with one row has no estimate of
        its noise: the error is that of the other bins' rows, and the rows left out are counted.  None if no
        bin has two rows: not estimable.

    Raises
    ------
    InvalidInput
        If the input is not as described there.

    Notes
    -----
    Unbiased for the squared gap of a bin whose ends do not depend on the rows if its confidences are all the
    same, as they are after histogram binning.  Else it is off by (Var(p) - 2 Cov(p, y)) / n_b; for calibrated
    confidences that is -Var(p) / n_b, at most a quarter of the squared width of the bin, over n_b.  Gaps that
    cancel within a bin stay unseen.  The root is not unbiased.

    References
    ----------
    Kumar, Liang, Ma (2019). Verified uncertainty calibration. NeurIPS (the debiased estimator of sec. 4).

    Examples
    --------
    >>> compute_debiased_error([0.5, 0.5, 0.5, 0.5], [0, 1, 1, 1], 1)  # (1/4)^2 - (3/4)(1/4) / 3
    DebiasedError(squared=0.0, rows_left_out=0)
    """
    return reliability_bins(y_prob, y_true, n_bins, binning=binning).debiased
