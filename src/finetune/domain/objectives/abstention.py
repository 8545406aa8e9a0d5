"""The abstention-aware loss: an unsure answer pays a part of its cross-entropy, and is paid for entropy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from finetune.domain.checks import FloatArray, as_vector
from finetune.domain.errors import InvalidInput
from finetune.domain.objectives.rows import as_option, checked_pair, floored_rows, of_label

GATE_WIDTH = 0.05
"""Over how much confidence the gate closes."""


def abstention_gate(log_probabilities: npt.ArrayLike, *, confidence_threshold: float = 0.7) -> FloatArray:
    """How far each row counts as an abstention: a = sigmoid((tau - max_k p_k) / 0.05).

    Parameters
    ----------
    log_probabilities
        Shape (n, K), natural logarithms, each row normalised.
    confidence_threshold
        tau in [0, 1].

    Returns
    -------
    FloatArray
        Shape (n,), in (0, 1).

    Raises
    ------
    InvalidInput
        If the input is not as above.

    Examples
    --------
    >>> abstention_gate(np.log([[0.99, 0.01], [0.7, 0.3], [0.5, 0.5]])).round(3)
    array([0.003, 0.5  , 0.982])
    """
    tau = as_option(confidence_threshold, name="confidence_threshold", high=1.0)
    confidence = np.exp(floored_rows(log_probabilities).max(axis=1))
    return np.asarray(expit((tau - confidence) / GATE_WIDTH))


def abstention_loss(
    log_probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    confidence_threshold: float = 0.7,
    abstention_penalty: float = 0.3,
    uncertainty_weight: float = 0.1,
    gate: npt.ArrayLike | None = None,
) -> FloatArray:
    """Abstention-aware loss: L = (1 - a + a lambda) (-log p_y - mu a H(p) / log K).

    H is the entropy, and a comes from :func:`abstention_gate`.

    Gradient, in which **a is a constant**: (1 - a + a lambda) (p - onehot(y) + mu a p (log p + H) / log K).

    An undecidable example comes to rest where p = pi - mu a p (log p + H) / log K: at its posterior, but for
    the entropy term, which draws it a little to the uniform distribution (by default the likeliest label by
    at most .025, however many there are; of two labels .6 goes to .589, .8 to .796, .9 to .8995).  lambda
    only says how hard an answer below the threshold may still pull; at 0 it teaches next to nothing.

    If a had a gradient, it would pay to forget: the loss falls when a half-known row is pushed below the
    threshold, and undecidable examples go to the uniform distribution (docs/adr/0023-objectives.md).

    Parameters
    ----------
    log_probabilities, labels
        As in :func:`~finetune.domain.objectives.cross_entropy_loss`.
    confidence_threshold
        tau in [0, 1]: the confidence below which an answer is rather an abstention.
    abstention_penalty
        lambda, from 0 to 100: the share of the cross-entropy that an abstention pays.
    uncertainty_weight
        mu, from 0 to 100: what the greatest possible entropy, log K, is worth to an abstention, in nats.
    gate
        Shape (n,), in [0, 1]: a, where it shall stay as it was while p moves; None: as p says.

    Returns
    -------
    FloatArray
        Shape (n,); may be below 0.

    Raises
    ------
    InvalidInput
        If the input is not as above.

    References
    ----------
    This project's own.  Its entropy term, there for all rows: Pereyra, G. et al. (2017). Regularizing neural
    networks by penalizing confident output distributions. ICLR workshop, sec. 3.

    Examples
    --------
    >>> abstention_loss(np.log([[0.99, 0.01], [0.6, 0.4]]), [0, 0]).round(3)
    array([0.01 , 0.163])
    """
    log_p, y = checked_pair(log_probabilities, labels)
    penalty = as_option(abstention_penalty, name="abstention_penalty", high=100.0)
    weight = as_option(uncertainty_weight, name="uncertainty_weight", high=100.0)
    if gate is None:
        a = abstention_gate(log_p, confidence_threshold=confidence_threshold)
    else:
        a = as_vector(gate, name="gate", low=0.0, high=1.0)
        if len(a) != len(y):
            raise InvalidInput(
                "gate must have one entry for each row", seen=len(a), remedy="take it from abstention_gate"
            )
    with np.errstate(under="ignore"):
        entropy = -(np.exp(log_p) * log_p).sum(axis=1)
    uncertainty = entropy / np.log(log_p.shape[1])
    return np.asarray((1.0 - a + a * penalty) * (-of_label(log_p, y) - weight * a * uncertainty))
