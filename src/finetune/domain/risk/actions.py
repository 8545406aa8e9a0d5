"""The rule that answers or abstains: the cheapest action, how sure it is, and whether that is enough."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import BoolArray, FloatArray, IntArray, as_count, as_labels, as_vector, is_number
from finetune.domain.errors import InvalidInput
from finetune.domain.probabilities import as_log_probabilities, as_rows
from finetune.domain.risk.costs import as_cost_matrix, bayes_actions

ABSTAINED = -1


class ScoredActions(NamedTuple):
    """Action of each row before any threshold, -1 for abstention, and its confidence; shape (n,)."""

    actions: IntArray
    scores: FloatArray


def scored_actions(
    log_probs: npt.ArrayLike, costs: npt.ArrayLike | None = None, abstain_index: int | None = None
) -> ScoredActions:
    """Find the action of least expected cost, with its log-odds; see :func:`risk_controlled_actions`.

    Rows whose action is a label, and that :func:`answers` picks by their score, get that label.  The score
    of an abstention means nothing.

    Examples
    --------
    >>> scored_actions(np.log([[0.75, 0.25], [0.4, 0.6]]), abstain_index=1)
    ScoredActions(actions=array([ 0, -1]), scores=array([1.09861229, 0.40546511]))
    """
    rows = as_log_probabilities(log_probs, inputs="log_probabilities", name="log_probs")
    n_labels = rows.shape[1]
    abstention = as_abstain_index(abstain_index, n_labels)
    if costs is None:
        actions = rows.argmax(axis=1)
    else:
        actions = bayes_actions(rows, as_label_costs(costs, n_labels)).actions
    abstains = (actions == n_labels) | (actions == abstention)
    scores = confidence_logit(rows, np.minimum(actions, n_labels - 1))
    return ScoredActions(np.where(abstains, ABSTAINED, actions), scores)


def as_abstain_index(value: object, n_labels: int | None = None) -> int | None:
    """Check the label that is the abstention; None: no label is."""
    if value is None:
        return None
    index = as_count(value, name="abstain_index", minimum=0)
    if n_labels is not None and index >= n_labels:
        raise InvalidInput(
            f"abstain_index is not one of the {n_labels} labels", seen=index, remedy="count from 0"
        )
    return index


def as_label_costs(costs: npt.ArrayLike, n_labels: int) -> FloatArray:
    """Check costs whose actions are the labels, and abstention in a last column if there is one more."""
    matrix = as_cost_matrix(costs, n_labels)
    if matrix.shape[1] > n_labels + 1:
        raise InvalidInput(
            f"costs must have {n_labels} columns, or {n_labels + 1} with abstention last",
            seen=matrix.shape,
            remedy="build the matrix with cost_matrix",
        )
    return matrix


def answers(scores: npt.ArrayLike, threshold: npt.ArrayLike) -> BoolArray:
    """Whether each score is high enough to answer; the one place where that is decided.

    Parameters
    ----------
    scores
        Shape (n,), in [-inf, +inf].
    threshold
        Least score that is answered, one number or one for each row: -inf answers every row, +inf none,
        whatever its score.

    Returns
    -------
    BoolArray
        Shape (n,).

    Raises
    ------
    InvalidInput
        If a score or the threshold is not a number.

    Examples
    --------
    >>> answers([2.0, 1.0, np.inf], 2.0).tolist(), answers([np.inf], np.inf).tolist()
    ([True, False, True], [False])
    """
    values = as_vector(scores, name="scores")
    least = as_vector([threshold] if is_number(threshold) else threshold, name="threshold")
    if len(least) not in (1, len(values)):
        raise InvalidInput(
            f"threshold must be one number, or one for each of the {len(values)} rows",
            seen=len(least),
            remedy="pass both for the same rows",
        )
    return (values >= least) & (least < np.inf)


def risk_controlled_actions(
    log_probs: npt.ArrayLike,
    threshold: float,
    *,
    costs: npt.ArrayLike | None = None,
    abstain_index: int | None = None,
) -> IntArray:
    """Label index of each row's action, or -1 where the rule abstains.

    Parameters
    ----------
    log_probs
        Shape (n, K).
    threshold
        Least :func:`confidence_logit` that is answered, from :func:`selective_threshold`; +inf: none is.
    costs
        Shape (K, K), or (K, K + 1) with abstention last; None: the most likely label.
    abstain_index
        Label that is the abstention.

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
    >>> risk_controlled_actions(np.log([[0.9, 0.1], [0.4, 0.6]]), threshold=1.0).tolist()
    [0, -1]
    """
    actions, scores = scored_actions(log_probs, costs, abstain_index)
    return np.where(answers(scores, threshold), actions, ABSTAINED)


def confidence_logit(log_probs: npt.ArrayLike, actions: npt.ArrayLike) -> FloatArray:
    """Log-odds of each row's action: log p_a - log(sum of the other p).

    Parameters
    ----------
    log_probs
        Shape (n, K).
    actions
        Shape (n,): label indices.

    Returns
    -------
    FloatArray
        Shape (n,), in [-inf, +inf]; keeps its digits where p_a rounds to 1.

    Raises
    ------
    InvalidInput
        If the input is not as above.

    Examples
    --------
    >>> confidence_logit([[-1e-30, -69.0776]], [0]).round(3)
    array([69.078])
    """
    rows = as_rows(log_probs, inputs="log_probabilities", name="log_probs")
    chosen = as_labels(actions, n_rows=len(rows), n_labels=rows.shape[1], name="actions")
    index = np.arange(len(rows))
    own = rows[index, chosen]
    others = rows.copy()
    others[index, chosen] = -np.inf
    highest = others.max(axis=1)
    shift = np.where(np.isneginf(highest), 0.0, highest)
    with np.errstate(divide="ignore", under="ignore"):
        rest = shift + np.log(np.exp(others - shift[:, None]).sum(axis=1))
    return np.asarray(own - rest)
