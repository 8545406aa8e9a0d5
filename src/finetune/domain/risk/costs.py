"""What decisions cost, and the decision that is expected to cost least."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import FloatArray, IntArray, as_array, is_number
from finetune.domain.errors import InvalidInput
from finetune.domain.labels import ABSTAIN
from finetune.domain.probabilities import as_rows
from finetune.domain.sums import row_products

MAX_COST = 1e100
"""Greatest cost that is accepted: sums of finite costs stay finite."""
_NO_COST = f"a cost must be a number from 0 to {MAX_COST:g}"
_COST_REMEDY = (
    "costs count in relation to one another: express gains as smaller costs, and choose a larger unit"
)


def cost_matrix(
    outcomes: Sequence[str],
    *,
    default: float = 1.0,
    abstain: float | None = None,
    pairs: Mapping[str, Mapping[str, float]] | None = None,
    abstain_outcome: str | None = None,
) -> FloatArray:
    """Cost of each action (column) when each outcome (row) is true.

    Parameters
    ----------
    outcomes
        Names of the K outcomes, in the order of the probabilities.
    default
        Cost of a wrong decision.
    abstain
        Cost of handing over to a human, whatever is true; None: ``default`` where abstention is an outcome,
        else there is no abstention.
    pairs
        ``{true: {decided: cost}}`` for single cells.  A right decision costs 0.
    abstain_outcome
        The outcome that is also the abstention: true where a case is undecidable or out of scope.  None:
        the outcome named ``"abstain"``, if there is one.

    Returns
    -------
    FloatArray
        Shape (K, K), or (K, K + 1) where abstention is not an outcome but has a cost: then the last column
        is the abstention, named ``"abstain"`` in ``pairs``.

    Raises
    ------
    InvalidInput
        If a name is not known or given twice, or a cost is not a number from 0 to 1e100.

    Examples
    --------
    >>> cost_matrix(("urgent", "routine"), abstain=0.3, pairs={"urgent": {"routine": 100.0}})
    array([[  0. , 100. ,   0.3],
           [  1. ,   0. ,   0.3]])
    """
    scalar = (
        isinstance(outcomes, str) or not isinstance(outcomes, Iterable) or getattr(outcomes, "ndim", 1) == 0
    )
    rows = [] if scalar else list(outcomes)
    if not all(isinstance(name, str) for name in rows) or len(rows) < 2 or len(set(rows)) < len(rows):
        raise InvalidInput(
            "there must be at least two outcomes, each named once", seen=outcomes, remedy="correct the names"
        )
    if abstain_outcome is None and ABSTAIN in rows:
        abstain_outcome = ABSTAIN
    columns = rows
    if abstain_outcome is None and abstain is not None:
        columns = [*rows, ABSTAIN]
    costs = np.full((len(rows), len(columns)), _cost(default, "default"))
    if abstain is not None:
        column = _position(abstain_outcome or ABSTAIN, columns, "abstain_outcome")
        costs[:, column] = _cost(abstain, "abstain")
    elif abstain_outcome is not None:
        _position(abstain_outcome, rows, "abstain_outcome")
    np.fill_diagonal(costs, 0.0)
    for true, decided_costs in _table({} if pairs is None else pairs, "pairs").items():
        for decided, cost in _table(decided_costs, f"pairs.{true}").items():
            where = f"pairs.{true}.{decided}"
            if true == decided:
                raise InvalidInput(
                    "a right decision costs 0", where=where, seen=cost, remedy="remove the entry"
                )
            cell = _position(true, rows, where), _position(decided, columns, where)
            costs[cell] = _cost(cost, where)
    return costs


class BayesActions(NamedTuple):
    """Actions and what they are expected to cost; both of shape (n,)."""

    actions: IntArray
    expected_cost: FloatArray


def bayes_actions(log_probs: npt.ArrayLike, costs: npt.ArrayLike) -> BayesActions:
    """Find the action of least expected cost for each row.

    Parameters
    ----------
    log_probs
        Shape (n, K), natural logarithms.
    costs
        Shape (K, A), from :func:`cost_matrix` or of its form.

    Returns
    -------
    BayesActions
        Column index of the action, the lowest one on a tie (costs equal but for rounding are tied), and its
        expected cost.  As good as the probabilities are calibrated, and no better.

    Raises
    ------
    InvalidInput
        If the input is not as above.

    References
    ----------
    Chow, C. K. (1970). On optimum recognition error and reject tradeoff. IEEE Trans. Inf. Theory 16.

    Examples
    --------
    >>> costs = cost_matrix(("urgent", "routine"), abstain=0.3, pairs={"urgent": {"routine": 100.0}})
    >>> bayes_actions(np.log([[0.001, 0.999], [0.01, 0.99], [0.8, 0.2]]), costs).actions.tolist()
    [1, 2, 0]
    """
    rows = as_rows(log_probs, inputs="log_probabilities", name="log_probs")
    matrix = as_cost_matrix(costs, rows.shape[1])
    with np.errstate(under="ignore"):
        expected = row_products(np.exp(rows), matrix)
    lowest = expected.min(axis=1, keepdims=True)
    # Sums of the same costs in another order round differently: ties must survive that.
    actions = (expected <= lowest * (1.0 + 1e-12)).argmax(axis=1)
    return BayesActions(actions, expected[np.arange(len(rows)), actions])


def as_cost_matrix(costs: npt.ArrayLike, n_labels: int) -> FloatArray:
    """Check a matrix of costs with a row for each label: from 0 to 1e100, float64, shape (K, A)."""
    matrix = as_array(costs, "costs")
    if matrix.dtype.kind not in "fiu" or matrix.ndim != 2 or len(matrix) != n_labels or matrix.shape[1] < 2:
        raise InvalidInput(
            f"costs must be numbers with a row for each of the {n_labels} labels, a column for each action",
            seen=(matrix.dtype.name, matrix.shape),
            remedy="build the matrix with cost_matrix",
        )
    matrix = matrix.astype(np.float64)
    bad = ~((matrix >= 0) & (matrix <= MAX_COST))
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise InvalidInput(
            _NO_COST,
            where=f"costs[{row}, {column}]",
            seen=float(matrix[row, column]),
            remedy=_COST_REMEDY,
        )
    return matrix


def _table(value: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    raise InvalidInput(
        "this is no table", where=where, seen=value, remedy="write {true: {decided: cost}}, by name"
    )


def _cost(value: float, where: str) -> float:
    # As a number of Python: the cap is infinite in single precision.
    number = value.item() if isinstance(value, np.generic) else value
    if is_number(number) and 0 <= number <= MAX_COST:
        return float(number)
    raise InvalidInput(_NO_COST, where=where, seen=value, remedy=_COST_REMEDY)


def _position(name: str, names: Sequence[str], where: str) -> int:
    if name in names:
        return names.index(name)
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f"did you mean {close[0]!r}" if close else "use one of " + ", ".join(names)
    raise InvalidInput("the name is not known", where=where, seen=name, remedy=hint)
