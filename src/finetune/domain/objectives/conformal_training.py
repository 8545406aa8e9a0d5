"""Conformal training: the size of prediction sets as a loss."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from finetune.domain.checks import FloatArray, as_level, as_positive
from finetune.domain.conformal.quantile import conformal_rank
from finetune.domain.objectives.rows import as_option, checked_pair, of_label

LOG_OFFSET = 1e-8
"""Added inside the logarithm."""


def threshold_rank(n: int, alpha: float) -> int:
    """Return which of the n log-probabilities of true labels is the threshold, counted from the lowest, 1.

    Where there are fewer rows than a finite conformal threshold needs, it is the lowest.

    Examples
    --------
    >>> threshold_rank(19, 0.1), threshold_rank(2, 0.1)
    (2, 1)
    """
    return max(n + 1 - conformal_rank(n, alpha), 1)


def conformal_training_loss(
    log_probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    alpha: float = 0.1,
    temperature: float = 0.1,
    size_weight: float = 1.0,
    target_size: float = 1.0,
) -> FloatArray:
    """Conformal training: L = log(1e-8 + mean_i(1 - C_iy + lambda max(0, sum_k C_ik - kappa))), for all rows.

    Rows 0, 2, 4, ... calibrate: tau is the log-probability of their true labels with :func:`threshold_rank`.
    Rows 1, 3, 5, ... are measured: C_ik = sigmoid((log p_ik - tau) / T) is how far label k is in the set of
    row i.  A single row does both.  With fewer than (1 - alpha) / alpha rows to calibrate with, tau is the
    lowest.

    Gradient, with m rows measured: g_ik = (lambda [sum_j C_ij > kappa] - [k = y]) C_ik (1 - C_ik) / (T m e^L)
    with respect to log p_ik, and -sum_ik g_ik with respect to the log-probability that is tau; with respect
    to the logits of a row, g - p sum_k g_k.  It is next to 0 where no label is within a few T of tau.

    An undecidable example has no fixed point of its own: what becomes of it depends on the rows beside it.
    Among rows like itself with pi = (.6, .4) it is drawn to the uniform distribution for lambda = 1, and away
    from it for lambda = 0.1.  The loss trains sets, not probabilities.

    Parameters
    ----------
    log_probabilities, labels
        As in :func:`~finetune.domain.objectives.cross_entropy_loss`; the rows of one forward.
    alpha
        In (0, 1): the miscoverage at which sets are made.
    temperature
        T > 0, in nats: how soft their borders are.
    size_weight
        lambda, from 0 to 100: what a label more than `target_size` costs, where a missed label costs 1.
    target_size
        kappa, from 0 on: labels of a set that cost nothing.

    Returns
    -------
    FloatArray
        Shape (n,): n times the same number, so that its mean is the loss.

    Raises
    ------
    InvalidInput
        If the input is not as above.

    Notes
    -----
    The paper sorts by a smooth sorting network; here tau is one of the log-probabilities, so that the
    gradient passes through one row, and the loss has kinks where ranks change.  The paper's batches are
    halved in the middle, and its quantile is that of level alpha (1 + 1/n).  Of its losses this is the one
    with the identity as loss matrix.  No coverage is promised: after training, sets are calibrated anew, on
    rows of their own.

    References
    ----------
    Stutz, D., Dvijotham, K., Cemgil, A. T., Doucet, A. (2022). Learning optimal conformal classifiers. ICLR,
    sec. 3.

    Examples
    --------
    >>> rows = np.log([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.9, 0.05, 0.05], [0.2, 0.7, 0.1]])
    >>> conformal_training_loss(rows, [0, 0, 0, 1]).round(3)
    array([-0.31, -0.31, -0.31, -0.31])
    """
    log_p, y = checked_pair(log_probabilities, labels)
    softness = as_positive(temperature, name="temperature")
    weight = as_option(size_weight, name="size_weight", high=100.0)
    free = as_option(target_size, name="target_size", high=1e9)
    level = as_level(alpha, name="alpha")
    calibrating = np.sort(of_label(log_p, y)[::2])
    tau = calibrating[threshold_rank(len(calibrating), level) - 1]
    measured = slice(1, None, 2) if len(y) > 1 else slice(None)
    rows, truth = log_p[measured], y[measured]
    # Not 1 - C, which has no digits left where C is next to 1.
    missed = expit((tau - of_label(rows, truth)) / softness)
    too_large = np.maximum(expit((rows - tau) / softness).sum(axis=1) - free, 0.0)
    loss = math.log(float((missed + weight * too_large).mean()) + LOG_OFFSET)
    return np.full(len(y), loss)
