"""Decide or abstain, with a bound on the error rate of what is decided."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import FloatArray, IntArray, as_choice, as_count, as_labels, as_level
from finetune.domain.errors import InvalidInput
from finetune.domain.probabilities import INPUTS, as_log_probabilities
from finetune.domain.risk.costs import as_cost_matrix, bayes_actions
from finetune.domain.risk.selective import SelectiveThreshold, confidence_logit, selective_threshold

ABSTAINED = -1


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
        Least :func:`confidence_logit` that is answered, from :func:`selective_threshold`.
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
    return np.where(scores >= threshold, actions, ABSTAINED)


class ScoredActions(NamedTuple):
    """Action of each row before any threshold, -1 for abstention, and its confidence; shape (n,)."""

    actions: IntArray
    scores: FloatArray


def scored_actions(
    log_probs: npt.ArrayLike, costs: npt.ArrayLike | None, abstain_index: int | None
) -> ScoredActions:
    """Find the action of least expected cost, with its log-odds; see :func:`risk_controlled_actions`.

    Examples
    --------
    >>> scored_actions(np.log([[0.75, 0.25], [0.4, 0.6]]), None, abstain_index=1)
    ScoredActions(actions=array([ 0, -1]), scores=array([1.09861229, 0.40546511]))
    """
    rows = as_log_probabilities(log_probs, inputs="log_probabilities", name="log_probs")
    n_labels = rows.shape[1]
    if abstain_index is not None and as_count(abstain_index, name="abstain_index", minimum=0) >= n_labels:
        raise InvalidInput(
            f"abstain_index is not one of the {n_labels} labels", seen=abstain_index, remedy="count from 0"
        )
    if costs is None:
        actions = rows.argmax(axis=1)
    else:
        matrix = as_cost_matrix(costs, n_labels)
        if matrix.shape[1] > n_labels + 1:
            raise InvalidInput(
                f"costs must have {n_labels} columns, or {n_labels + 1} with abstention last",
                seen=matrix.shape,
                remedy="build the matrix with cost_matrix",
            )
        actions = bayes_actions(rows, matrix).actions
    abstains = (
        actions == n_labels if abstain_index is None else (actions == n_labels) | (actions == abstain_index)
    )
    scores = confidence_logit(rows, np.minimum(actions, n_labels - 1))
    return ScoredActions(np.where(abstains, ABSTAINED, actions), scores)


class _Rows(NamedTuple):
    log_probs: FloatArray
    labels: IntArray
    costs: FloatArray | None
    risk_level: float


class RiskControlledPredictor:
    """Label or abstention, with the error rate among the labels given bounded.

    The action is the one of least expected cost (the most likely label without costs).  The predictor
    abstains where that action is the abstention, or where its log-odds are below the threshold that
    :func:`~finetune.domain.risk.selective.selective_threshold` finds.

    Parameters
    ----------
    delta
        Probability allowed, over the draw of the calibration rows, that the bound fails.
    abstain_index
        Label that is the abstention: true where a case is undecidable or out of scope.
    inputs
        What the rows are: ``"probabilities"``, ``"log_probabilities"`` or ``"logits"``.

    Raises
    ------
    InvalidInput
        If a parameter is out of its range.

    Notes
    -----
    An error is a row that is answered with a label that is not its true one.  The bound counts errors, not
    costs.  It holds for the rule of one cost matrix that was fixed without the calibration rows: for a
    matrix other than that of :meth:`calibrate`, :meth:`predict` finds the threshold anew on the kept
    calibration rows, and the bound holds for that rule by itself.  It does not hold at once for many
    matrices, nor for one chosen by looking at their results.

    References
    ----------
    Chow, C. K. (1970). On optimum recognition error and reject tradeoff. IEEE Trans. Inf. Theory 16.
    Geifman, Y. and El-Yaniv, R. (2017). Selective classification for deep neural networks. NeurIPS.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rows = rng.dirichlet(np.full(3, 0.2), size=3000)
    >>> labels = np.array([rng.choice(3, p=p) for p in rows])
    >>> predictor = RiskControlledPredictor(delta=0.1).calibrate(rows[:2000], labels[:2000], risk_level=0.1)
    >>> actions = predictor.predict(rows[2000:])
    >>> answered = actions >= 0
    >>> bool(answered.mean() > 0.5), bool((actions != labels[2000:])[answered].mean() < 0.1)
    (True, True)
    """

    def __init__(
        self, delta: float = 0.1, *, abstain_index: int | None = None, inputs: str = "probabilities"
    ) -> None:
        self.delta = as_level(delta, name="delta")
        self.abstain_index = (
            None if abstain_index is None else as_count(abstain_index, name="abstain_index", minimum=0)
        )
        self.inputs = as_choice(inputs, INPUTS, name="inputs")
        self._rows: _Rows | None = None
        self._found: dict[tuple[tuple[int, ...], bytes] | None, SelectiveThreshold] = {}

    def calibrate(
        self,
        cal_probs: npt.ArrayLike,
        cal_labels: npt.ArrayLike,
        risk_level: float = 0.1,
        cost_matrix: npt.ArrayLike | None = None,
    ) -> RiskControlledPredictor:
        """Find the threshold, and keep the rows for other cost matrices.

        Parameters
        ----------
        cal_probs
            Shape (n, K).
        cal_labels
            Shape (n,): label indices.
        risk_level
            Error rate allowed among answered rows, in (0, 1).
        cost_matrix
            Shape (K, K), or (K, K + 1) with abstention last; None: the most likely label is the action.

        Returns
        -------
        RiskControlledPredictor
            This object.

        Raises
        ------
        InvalidInput
            If the input is not as above.
        InfeasibleGuarantee
            If no threshold can be shown to keep the risk; the predictor stays as it was.
        """
        log_probs = as_log_probabilities(cal_probs, inputs=self.inputs, name="cal_probs")
        n_labels = log_probs.shape[1]
        labels = as_labels(cal_labels, n_rows=len(log_probs), n_labels=n_labels, name="cal_labels")
        costs = None if cost_matrix is None else as_cost_matrix(cost_matrix, n_labels)
        rows = _Rows(log_probs, labels, costs, as_level(risk_level, name="risk_level"))
        found = self._find(rows, costs)
        self._rows, self._found = rows, {_key(costs): found}
        return self

    def predict(self, test_probs: npt.ArrayLike, cost_matrix: npt.ArrayLike | None = None) -> IntArray:
        """Label index of each row, or -1 for abstention.

        Parameters
        ----------
        test_probs
            Shape (n, K), the same labels in the same order as in calibration.
        cost_matrix
            As in :meth:`calibrate`; None: the one given there.

        Returns
        -------
        IntArray
            Shape (n,), in [-1, K).

        Raises
        ------
        InvalidInput
            If the predictor is not calibrated or the input is not as above.
        InfeasibleGuarantee
            If no threshold can be shown to keep the risk with this matrix.
        """
        fitted = self._fitted()
        log_probs = as_log_probabilities(test_probs, inputs=self.inputs, name="test_probs")
        if log_probs.shape[1] != fitted.log_probs.shape[1]:
            raise InvalidInput(
                f"the predictor was calibrated with {fitted.log_probs.shape[1]} labels",
                seen=log_probs.shape,
                remedy="pass the same label set, in the same order",
            )
        costs = self._costs(cost_matrix)
        threshold = self.threshold(costs).threshold
        return risk_controlled_actions(log_probs, threshold, costs=costs, abstain_index=self.abstain_index)

    def threshold(self, cost_matrix: npt.ArrayLike | None = None) -> SelectiveThreshold:
        """Threshold and evidence for a cost matrix; None: that of :meth:`calibrate`."""
        rows, costs = self._fitted(), self._costs(cost_matrix)
        key = _key(costs)
        if key not in self._found:
            self._found[key] = self._find(rows, costs)
        return self._found[key]

    def _find(self, rows: _Rows, costs: FloatArray | None) -> SelectiveThreshold:
        actions, scores = scored_actions(rows.log_probs, costs, self.abstain_index)
        return selective_threshold(
            scores, actions != rows.labels, rows.risk_level, self.delta, eligible=actions != ABSTAINED
        )

    def _costs(self, cost_matrix: npt.ArrayLike | None) -> FloatArray | None:
        rows = self._fitted()
        return rows.costs if cost_matrix is None else as_cost_matrix(cost_matrix, rows.log_probs.shape[1])

    def _fitted(self) -> _Rows:
        if self._rows is None:
            raise InvalidInput("the predictor is not calibrated", remedy="call calibrate first")
        return self._rows


def _key(costs: FloatArray | None) -> tuple[tuple[int, ...], bytes] | None:
    return None if costs is None else (costs.shape, costs.tobytes())
