"""What to do where errors cost differently: the cheapest action, and how cheap it promises to be."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import FloatArray, IntArray
from finetune.domain.errors import InvalidInput
from finetune.domain.probabilities import as_log_probabilities
from finetune.domain.risk.actions import (
    ABSTAINED,
    ScoredActions,
    answers,
    as_abstain_index,
    as_label_costs,
)
from finetune.domain.risk.costs import bayes_actions


def cost_scored_actions(
    log_probs: npt.ArrayLike, costs: npt.ArrayLike, abstain_index: int | None = None
) -> ScoredActions:
    """Find the action of least expected cost, with ln((m - e) / e) as its score.

    e is the expected cost of the action and m the greatest cost that an answer can have.  Where every error
    costs the same this is the log-odds of the action, :func:`~finetune.domain.risk.actions.confidence_logit`.

    Parameters
    ----------
    log_probs
        Shape (n, K), natural logarithms.
    costs
        Shape (K, K), or (K, K + 1) with abstention last.
    abstain_index
        Label that is the abstention.

    Returns
    -------
    ScoredActions
        Label index of each row, -1 for abstention, whose score means nothing; scores in [-inf, +inf].

    Raises
    ------
    InvalidInput
        If the input is not as above, or no answer costs anything.

    Examples
    --------
    >>> cost_scored_actions(np.log([[0.75, 0.25], [0.4, 0.6]]), [[0, 10], [1, 0]]).scores.round(2)
    array([3.66, 2.75])
    """
    rows = as_log_probabilities(log_probs, inputs="log_probabilities", name="log_probs")
    n_labels = rows.shape[1]
    matrix, abstention = as_label_costs(costs, n_labels), as_abstain_index(abstain_index, n_labels)
    actions, expected = bayes_actions(rows, matrix)
    greatest = greatest_cost(matrix, abstention)
    abstains = (actions == n_labels) | (actions == abstention)
    expected = np.minimum(expected, greatest)
    with np.errstate(divide="ignore"):
        scores = np.log(greatest - expected) - np.log(expected)
    return ScoredActions(np.where(abstains, ABSTAINED, actions), scores)


def cost_controlled_actions(
    log_probs: npt.ArrayLike,
    threshold: float,
    costs: npt.ArrayLike,
    abstain_index: int | None = None,
) -> IntArray:
    """Label index of each row's action of least expected cost, or -1 where its score is too low.

    Parameters
    ----------
    log_probs, costs, abstain_index
        As in :func:`cost_scored_actions`, the same costs as in calibration.
    threshold
        From :func:`~finetune.domain.risk.cost_control.control_cost`.

    Returns
    -------
    IntArray
        Shape (n,), in [-1, K).

    Raises
    ------
    InvalidInput
        If the input is not as above.

    Examples
    --------
    >>> cost_controlled_actions(np.log([[0.75, 0.25], [0.4, 0.6]]), 3.0, [[0, 10], [1, 0]]).tolist()
    [0, -1]
    """
    actions, scores = cost_scored_actions(log_probs, costs, abstain_index)
    return np.where(answers(scores, threshold), actions, ABSTAINED)


def greatest_cost(costs: FloatArray, abstain_index: int | None) -> float:
    """Greatest cost of a checked matrix that a label, other than the abstention, can have."""
    labels = np.arange(len(costs))
    greatest = float(costs[:, labels[labels != abstain_index]].max())
    if greatest > 0.0:
        return greatest
    raise InvalidInput("no answer costs anything", seen=costs.tolist(), remedy="give errors a cost")
