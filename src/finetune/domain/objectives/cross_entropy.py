"""Cross-entropy, with label smoothing, and the focal loss."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import FloatArray
from finetune.domain.errors import InvalidInput
from finetune.domain.objectives.rows import as_option, checked_pair, of_label


def cross_entropy_loss(
    log_probabilities: npt.ArrayLike, labels: npt.ArrayLike, *, label_smoothing: float = 0.0
) -> FloatArray:
    """Cross-entropy: L = -sum_k q_k log p_k with q = (1 - epsilon) onehot(y) + epsilon / K.

    Gradient: p - q.  An undecidable example goes to (1 - epsilon) pi + epsilon / K: without smoothing to its
    posterior.

    Parameters
    ----------
    log_probabilities
        Shape (n, K), natural logarithms, each row normalised.
    labels
        Shape (n,), label indices.
    label_smoothing
        epsilon in [0, 1): the share of each target that is spread evenly over all labels.

    Returns
    -------
    FloatArray
        Shape (n,).

    Raises
    ------
    InvalidInput
        If the input is not as above.

    References
    ----------
    Szegedy, C. et al. (2016). Rethinking the Inception Architecture for Computer Vision. CVPR, sec. 7.

    Examples
    --------
    >>> cross_entropy_loss(np.log([[0.8, 0.2]]), [0]).round(4)
    array([0.2231])
    """
    log_p, y = checked_pair(log_probabilities, labels)
    epsilon = as_option(label_smoothing, name="label_smoothing", high=1.0)
    if epsilon == 1.0:
        raise InvalidInput(
            "label_smoothing must be below 1",
            seen=label_smoothing,
            remedy="pass a smaller share: nothing would be left of the label",
        )
    return np.asarray(-(1.0 - epsilon) * of_label(log_p, y) - epsilon * log_p.mean(axis=1))


def focal_loss(log_probabilities: npt.ArrayLike, labels: npt.ArrayLike, *, gamma: float = 2.0) -> FloatArray:
    """Focal loss: L = -(1 - p_y)^gamma log p_y; the surer the model is of a label, the less the row counts.

    Gradient: A (p - onehot(y)) with A = (1 - p_y)^gamma - gamma p_y (1 - p_y)^(gamma - 1) log p_y.  It is
    no proper score: an undecidable example goes to a point between pi and the uniform distribution, and so
    does a nearly decided one (for gamma = 2 and two labels .6 to .538, .9 to .694, .99 to .846).

    Parameters
    ----------
    log_probabilities, labels
        As in :func:`cross_entropy_loss`.
    gamma
        From 0, which is cross-entropy, to 100.

    Returns
    -------
    FloatArray
        Shape (n,).

    Raises
    ------
    InvalidInput
        If the input is not as above.

    References
    ----------
    Lin, T.-Y. et al. (2017). Focal loss for dense object detection. ICCV, eq. 4.  Against overconfidence:
    Mukhoti, J. et al. (2020). Calibrating deep neural networks using focal loss. NeurIPS.

    Examples
    --------
    >>> focal_loss(np.log([[0.8, 0.2]]), [0]).round(4)
    array([0.0089])
    """
    log_p, y = checked_pair(log_probabilities, labels)
    exponent = as_option(gamma, name="gamma", high=100.0)
    right = of_label(log_p, y)
    with np.errstate(under="ignore"):
        return np.asarray(-((-np.expm1(right)) ** exponent) * right)
