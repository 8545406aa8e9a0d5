"""Decide or abstain, with a bound on the error rate of what is decided."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import FloatArray, IntArray, as_choice, as_labels, as_level
from finetune.domain.errors import InvalidInput
from finetune.domain.probabilities import as_log_probabilities
from finetune.domain.risk.actions import (
    ABSTAINED,
    as_abstain_index,
    risk_controlled_actions,
    scored_actions,
)
from finetune.domain.risk.costs import as_cost_matrix
from finetune.domain.risk.selective import SelectiveThreshold, selective_threshold
from finetune.domain.row_reader import INPUTS


class _Rows(NamedTuple):
    log_probs: FloatArray
    labels: IntArray
    risk_level: float


class _Found(NamedTuple):
    costs: FloatArray | None
    evidence: SelectiveThreshold


class _Fitted(NamedTuple):
    rows: _Rows
    found: _Found


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
        self.abstain_index = as_abstain_index(abstain_index)
        self.inputs = as_choice(inputs, INPUTS, name="inputs")
        self._state: _Fitted | None = None
        self._other: _Found | None = None

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
        rows = _Rows(log_probs, labels, as_level(risk_level, name="risk_level"))
        self._state, self._other = _Fitted(rows, _Found(costs, self._find(rows, costs))), None
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
        if log_probs.shape[1] != fitted.rows.log_probs.shape[1]:
            raise InvalidInput(
                f"the predictor was calibrated with {fitted.rows.log_probs.shape[1]} labels",
                seen=log_probs.shape,
                remedy="pass the same label set, in the same order",
            )
        found = self._found(cost_matrix)
        return risk_controlled_actions(
            log_probs, found.evidence.threshold, costs=found.costs, abstain_index=self.abstain_index
        )

    @property
    def threshold(self) -> float:
        """Least log-odds that is answered with the costs of :meth:`calibrate`; -inf: every row may be."""
        return self.evidence().threshold

    @property
    def statement(self) -> str:
        """The guarantee in words, for the costs of :meth:`calibrate`."""
        return self.evidence().statement

    def evidence(self, cost_matrix: npt.ArrayLike | None = None) -> SelectiveThreshold:
        """Threshold for a cost matrix with the counts that prove it; None: that of :meth:`calibrate`.

        Raises
        ------
        InvalidInput, InfeasibleGuarantee
            As in :meth:`predict`.
        """
        return self._found(cost_matrix).evidence

    def _found(self, cost_matrix: npt.ArrayLike | None) -> _Found:
        rows, own = self._fitted()
        if cost_matrix is None:
            return own
        costs = as_cost_matrix(cost_matrix, rows.log_probs.shape[1])
        for found in (own, self._other):
            if found is not None and found.costs is not None and np.array_equal(found.costs, costs):
                return found
        self._other = _Found(costs, self._find(rows, costs))
        return self._other

    def _find(self, rows: _Rows, costs: FloatArray | None) -> SelectiveThreshold:
        actions, scores = scored_actions(rows.log_probs, costs, self.abstain_index)
        return selective_threshold(
            scores, actions != rows.labels, rows.risk_level, self.delta, eligible=actions != ABSTAINED
        )

    def _fitted(self) -> _Fitted:
        if self._state is None:
            raise InvalidInput("the predictor is not calibrated", remedy="call calibrate first")
        return self._state
