"""Expected-cost control: the loosest threshold at which what is answered is proven to be cheap enough."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import (
    FloatArray,
    IntArray,
    as_choice,
    as_flags,
    as_labels,
    as_level,
    as_positive,
    as_vector,
)
from finetune.domain.errors import InfeasibleGuarantee, InvalidInput
from finetune.domain.risk.actions import ABSTAINED, as_label_costs
from finetune.domain.risk.betting import loss_free_rows_needed, wsr_p_value, wsr_upper_bound
from finetune.domain.risk.bounds import (
    error_free_rows_needed,
    hoeffding_bentkus_upper_bound,
    p_values_of_sums,
)
from finetune.domain.risk.candidates import count_at_least, start_weights, threshold_grid
from finetune.domain.risk.cost_actions import cost_scored_actions, greatest_cost
from finetune.domain.risk.cost_threshold import CostThreshold
from finetune.domain.risk.costs import MAX_COST
from finetune.domain.risk.learn_then_test import BOUNDS
from finetune.domain.risk.wording import confidence_text
from finetune.domain.statistics.intervals import binomial_upper_bound
from finetune.domain.statistics.multiplicity import fallback_sequence


def control_cost(
    log_probs: npt.ArrayLike,
    labels: npt.ArrayLike,
    costs: npt.ArrayLike,
    cost_level: float,
    delta: float,
    *,
    abstain_index: int | None = None,
    bound: str = "hoeffding_bentkus",
) -> CostThreshold:
    """Find the threshold for :func:`~finetune.domain.risk.cost_actions.cost_controlled_actions`.

    Parameters
    ----------
    log_probs, labels
        Shape (n, K), natural logarithms; shape (n,), label indices.
    costs
        Shape (K, K), or (K, K + 1) with abstention last, fixed without these rows.
    cost_level, delta, bound
        As in :func:`cost_threshold`.
    abstain_index
        Label that is the abstention.

    Returns
    -------
    CostThreshold
        The threshold and the evidence for it.

    Raises
    ------
    InvalidInput
        If the input is not as above.
    InfeasibleGuarantee
        If no threshold can be shown to keep the cost.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rows = rng.dirichlet([0.2, 0.2], size=3000)
    >>> labels = (rng.random(3000) < rows[:, 1]).astype(int)
    >>> found = control_cost(np.log(rows), labels, [[0, 10], [1, 0]], cost_level=0.2, delta=0.1)
    >>> found.n_answered > 2000, found.mean_cost < found.upper_bound <= 0.2
    (True, True)
    """
    actions, scores = cost_scored_actions(log_probs, costs, abstain_index)
    n_labels = np.shape(log_probs)[1]
    matrix = as_label_costs(costs, n_labels)
    truth = as_labels(labels, n_rows=len(actions), n_labels=n_labels)
    return cost_threshold(
        scores,
        np.where(actions == ABSTAINED, 0.0, matrix[truth, actions]),
        cost_level,
        delta,
        max_cost=greatest_cost(matrix, abstain_index),
        eligible=actions != ABSTAINED,
        bound=bound,
    )


def cost_threshold(
    scores: npt.ArrayLike,
    incurred: npt.ArrayLike,
    cost_level: float,
    delta: float,
    *,
    max_cost: float,
    eligible: npt.ArrayLike | None = None,
    bound: str = "hoeffding_bentkus",
) -> CostThreshold:
    """Loosest threshold at which the expected cost of an answered row is shown to be at most ``cost_level``.

    Parameters
    ----------
    scores
        Shape (n,): how cheap each row's action promises to be, on the scale of log-odds: see
        :func:`~finetune.domain.risk.cost_actions.cost_scored_actions`.
    incurred
        Shape (n,): what the action of each row cost, in [0, max_cost].
    cost_level
        Expected cost allowed, in (0, max_cost).
    delta
        Probability allowed, over the draw of these rows, that the threshold returned breaks it.
    max_cost
        Greatest cost that an answer can have, known beforehand: from the cost matrix, never from the rows.
    eligible
        Shape (n,), bool: rows that a rule fixed beforehand lets be answered at all; None: all.
    bound
        ``"hoeffding_bentkus"``; ``"wsr"``, better where costs of answered rows vary little, which reads
        the rows in the order given; ``"binomial"`` where every cost is 0 or ``max_cost``.

    Returns
    -------
    CostThreshold
        The threshold and the evidence for it.

    Raises
    ------
    InvalidInput
        If the input is not as above.
    InfeasibleGuarantee
        If no candidate passes.  ``needed`` is a number of eligible rows that would do if they cost nothing.

    Notes
    -----
    Proven as for :func:`~finetune.domain.risk.selective.selective_threshold`, with the cost divided by
    ``max_cost`` as the loss: given which rows are answered, their losses are independent draws with the
    mean that is bounded, so the p-value of each candidate is valid, and the fallback procedure over the fixed
    grid keeps ``delta``.

    Not promised: the cost of a label, a group or a single case, nor that of abstaining.

    References
    ----------
    Angelopoulos, Bates, Candès, Jordan, Lei (2021). Learn then test. arXiv:2110.01052, thm. 1.
    Chow, C. K. (1970). On optimum recognition error and reject tradeoff. IEEE Trans. Inf. Theory 16.

    Examples
    --------
    >>> found = cost_threshold([3.0] * 200 + [0.0] * 50, [0.0] * 200 + [10.0] * 50, 1.0, 0.1, max_cost=10.0)
    >>> found.n_answered, found.mean_cost
    (200, 0.0)
    """
    delta, bound = as_level(delta, name="delta"), as_choice(bound, BOUNDS, name="bound")
    max_cost = as_positive(max_cost, name="max_cost", high=MAX_COST)
    cost_level = as_positive(cost_level, name="cost_level", high=MAX_COST)
    level = as_level(cost_level / max_cost, name="cost_level / max_cost")
    values = as_vector(scores, name="scores")
    spent = as_vector(incurred, name="incurred", low=0.0, high=max_cost)
    if len(spent) != len(values):
        raise InvalidInput(
            f"incurred must have one entry for each of the {len(values)} rows",
            seen=len(spent),
            remedy="pass both for the same rows",
        )
    allowed = np.ones(len(values), bool)
    if eligible is not None:
        allowed = as_flags(eligible, n_rows=len(values), name="eligible")
    values, losses = values[allowed], spent[allowed] / max_cost
    grid, weights = threshold_grid(), start_weights(level)
    answered = count_at_least(values, grid)
    sums = np.append(0.0, np.cumsum(losses[np.argsort(-values, kind="stable")]))[answered]
    share = float(weights.max()) * delta
    if bound == "wsr":
        p_values = _wsr_p_values(values, losses, grid, answered, level, share)
    else:
        p_values = p_values_of_sums(sums, answered, level, bound, losses=losses)
    rejected, levels = fallback_sequence(p_values, weights, delta)
    if not rejected.any():
        needed = (loss_free_rows_needed if bound == "wsr" else error_free_rows_needed)(level, share)
        raise InfeasibleGuarantee(
            f"no threshold is proven to keep the expected cost of answered cases at or below {cost_level:g} "
            f"with confidence {confidence_text(delta)}",
            seen=f"{len(spent)} rows, {len(values)} that may be answered",
            remedy=f"{needed} answered rows without a cost would be enough; calibrate with more rows, allow "
            "a greater cost_level or delta, or improve the model",
            needed=needed,
        )
    best = int(np.flatnonzero(rejected)[-1])
    total, n, tail = float(sums[best]), int(answered[best]), float(levels[best])
    if bound == "wsr":
        upper = wsr_upper_bound(losses[values >= grid[best]], tail, share)
    elif bound == "binomial":
        upper = binomial_upper_bound(round(total), n, tail)
    else:
        upper = hoeffding_bentkus_upper_bound(int(total) if total.is_integer() else total, n, tail)
    return CostThreshold(
        threshold=float(grid[best]),
        n_calibration=len(spent),
        n_answered=n,
        mean_cost=min(total / n * max_cost, max_cost),
        upper_bound=upper * max_cost,
        level_used=tail,
        cost_level=cost_level,
        max_cost=max_cost,
        delta=delta,
        bound=bound,
    )


def _wsr_p_values(
    values: FloatArray, losses: FloatArray, grid: FloatArray, answered: IntArray, level: float, share: float
) -> FloatArray:
    # Candidates that answer the same rows share their p-value.
    _, first, place = np.unique(answered, return_index=True, return_inverse=True)
    distinct = [wsr_p_value(losses[values >= grid[i]], level, share) if answered[i] else 1.0 for i in first]
    return np.array(distinct)[place]
