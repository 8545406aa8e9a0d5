"""What decisions drawn from the model's probabilities cost."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import FloatArray
from finetune.domain.errors import InvalidInput
from finetune.domain.objectives.rows import checked_pair
from finetune.domain.risk.costs import as_cost_matrix


def relative_costs(costs: npt.ArrayLike, n_labels: int) -> FloatArray:
    """Divide costs by the mean of those off the diagonal, so that their unit does not matter.

    Parameters
    ----------
    costs
        Shape (K, K), from 0 to 1e100: what deciding the column costs when the row is true.
    n_labels
        K.

    Returns
    -------
    FloatArray
        Shape (K, K).

    Raises
    ------
    InvalidInput
        If the input is not as above, or no mistake costs anything.

    Examples
    --------
    >>> relative_costs([[0.0, 30.0], [10.0, 0.0]], 2)
    array([[0. , 1.5],
           [0.5, 0. ]])
    """
    matrix = as_cost_matrix(costs, n_labels)
    if matrix.shape[1] != n_labels:
        raise InvalidInput(
            "costs must have one column for each label",
            seen=matrix.shape,
            remedy="leave out the column of handing over, which the model gives no probability",
        )
    mean = matrix[~np.eye(n_labels, dtype=np.bool_)].mean()
    if mean == 0.0:
        raise InvalidInput("no mistake costs anything", where="costs", remedy="give mistakes a cost above 0")
    return np.asarray(matrix / mean)


def expected_cost_loss(
    log_probabilities: npt.ArrayLike, labels: npt.ArrayLike, *, costs: npt.ArrayLike
) -> FloatArray:
    """Cost of a decision that is drawn from p: L = sum_k c_yk p_k, with c from :func:`relative_costs`.

    Gradient: p_k (c_yk - L).  The loss is linear in p: an undecidable example goes to probability 1 for the
    decision that costs least under pi, **not** to its posterior.  Where the model is sure the gradient is
    next to 0, right or wrong.  The loss trains decisions, not probabilities.

    Parameters
    ----------
    log_probabilities, labels
        As in :func:`~finetune.domain.objectives.cross_entropy_loss`.
    costs
        As in :func:`relative_costs`.

    Returns
    -------
    FloatArray
        Shape (n,).

    Raises
    ------
    InvalidInput
        If the input is not as above, or no mistake costs anything.

    References
    ----------
    Elkan, C. (2001). The foundations of cost-sensitive learning. IJCAI, eq. 1.

    Examples
    --------
    >>> expected_cost_loss(np.log([[0.8, 0.2], [0.8, 0.2]]), [0, 1], costs=[[0, 30], [10, 0]]).round(4)
    array([0.3, 0.4])
    """
    log_p, y = checked_pair(log_probabilities, labels)
    matrix = relative_costs(costs, log_p.shape[1])
    with np.errstate(under="ignore"):
        return np.asarray((matrix[y] * np.exp(log_p)).sum(axis=1))
