"""Prediction sets whose expected cost of missing the true label is controlled."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from finetune.domain.checks import BoolArray, FloatArray, as_vector, read_record
from finetune.domain.conformal.risk_control import RiskControl, as_risk_levels, first_within, rows_needed
from finetune.domain.conformal.row_scorer import ScoringPredictor
from finetune.domain.errors import InvalidInput


def miss_cost_threshold(
    scores: npt.ArrayLike, costs: npt.ArrayLike, alpha: float, *, bound: float = 1.0
) -> RiskControl:
    """Conformal risk control of sets {labels with score <= lambda}, over all real lambda.

    The loss of a row is its cost where the score of its true label is above lambda, a step that falls; so the
    smallest lambda is a calibration score, or an infinity, and is found by sorting, without a grid.

    Parameters
    ----------
    scores
        Shape (n,): scores of the true labels of the calibration rows, greater is stranger.
    costs
        Shape (n,), in [0, bound]: what it costs to miss the true label of each row.
    alpha
        Expected cost allowed, in (0, bound).
    bound
        B: the greatest cost possible, not the greatest one seen.

    Returns
    -------
    RiskControl
        Its lambda is +inf, every label is in every set, where no calibration score will do: with fewer rows
        than :func:`rows_needed` always.  It is -inf where even empty sets cost little enough.  All costs at
        ``bound`` give the conformal quantile at ``alpha / bound``.

    Raises
    ------
    InvalidInput
        If the input is not as above.

    Notes
    -----
    Guaranteed and not promised: as in :func:`conformal_risk_control`; +inf has loss 0, so there always is a
    lambda.

    References
    ----------
    Angelopoulos, Bates, Fisch, Lei, Schuster (2022). Conformal risk control. arXiv:2208.02814, thm. 1.

    Examples
    --------
    >>> miss_cost_threshold([0.1, 0.2, 0.3, 0.4], [1.0, 0.0, 0.5, 0.5], alpha=0.4).lambda_
    0.1
    >>> miss_cost_threshold([0.1, 0.2, 0.3, 0.4], [1.0, 1.0, 1.0, 1.0], alpha=0.1).lambda_
    inf
    """
    values = as_vector(scores, name="scores")
    alpha, bound = as_risk_levels(alpha, bound)
    paid = as_vector(costs, name="costs", low=0.0, high=bound)
    if len(paid) != len(values):
        raise InvalidInput(
            "scores and costs must have one entry for each row",
            seen=(len(values), len(paid)),
            remedy="pass both for the same rows",
        )
    order = np.argsort(values, kind="stable")
    values, paid = values[order], paid[order]
    candidates = np.unique(np.append(values, [-np.inf, np.inf]))
    first_missed = np.searchsorted(values, candidates, side="right")
    place = first_within(lambda at: paid[first_missed[at] :], len(candidates), len(values), alpha, bound)
    if place is None:  # fewer rows than rows_needed: +inf loses nothing, ever
        place = len(candidates) - 1
    return RiskControl(
        float(candidates[place]), math.fsum(paid[first_missed[place] :]), len(values), alpha, bound
    )


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    kind: Literal["cost_controlled_predictor"]
    version: Literal[1]
    method: str
    inputs: str
    options: dict[str, float]
    randomized: bool
    miss_cost: list[float]
    control: dict[str, Any]


class CostControlledPredictor(ScoringPredictor):
    """Prediction sets whose expected cost of missing the true label is at most alpha.

    Missing label y costs ``miss_cost[y]``; a set that holds the true label costs nothing.

    Parameters
    ----------
    method, inputs, randomized, rng, **options
        As in :class:`~finetune.domain.conformal.split.ConformalPredictor`.

    Raises
    ------
    InvalidInput
        If a name is not known, the method has no randomised form, or it is randomised without a generator.

    Notes
    -----
    Holds if calibration rows and new rows are exchangeable, calibration rows were used neither to train the
    model nor to fit a calibration map, and costs and alpha were fixed beforehand.  It is an average over
    cases and over calibration sets, not a promise for a label, a group or one case: what is cheap may be
    missed often.

    References
    ----------
    Angelopoulos, Bates, Fisch, Lei, Schuster (2022). Conformal risk control. arXiv:2208.02814, thm. 1.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rows = rng.dirichlet(np.ones(3), size=1000)
    >>> labels = np.array([rng.choice(3, p=p) for p in rows])
    >>> cost = np.array([10.0, 1.0, 1.0])
    >>> predictor = CostControlledPredictor("lac").calibrate(rows[:500], labels[:500], cost, alpha=0.5)
    >>> missed = ~predictor.predict(rows[500:])[np.arange(500), labels[500:]]
    >>> bool((cost[labels[500:]] * missed).mean() < 0.6)
    True
    """

    def __init__(
        self,
        method: str = "lac",
        *,
        inputs: str = "probabilities",
        randomized: bool = False,
        rng: np.random.Generator | None = None,
        **options: float,
    ) -> None:
        super().__init__(method, inputs=inputs, randomized=randomized, rng=rng, **options)
        self._fitted: tuple[FloatArray, RiskControl] | None = None

    def calibrate(
        self, cal_probs: npt.ArrayLike, cal_labels: npt.ArrayLike, miss_cost: npt.ArrayLike, alpha: float
    ) -> CostControlledPredictor:
        """Find the threshold.

        Parameters
        ----------
        cal_probs
            Shape (n, K).
        cal_labels
            Shape (n,): label indices.
        miss_cost
            Shape (K,), in [0, 1e100], not all 0, in any unit: cost of a set without the true label y.
        alpha
            Expected cost allowed in that unit, above 0 and below the greatest of them.

        Returns
        -------
        CostControlledPredictor
            This object.

        Raises
        ------
        InvalidInput
            If the input is not as above.
        """
        rows, labels, k = self._scorer.to_calibrate(cal_probs, cal_labels)
        costs = _as_costs(miss_cost, k)
        scores = self._scorer.score.of_labels(rows, labels, self._scorer.draws(len(labels)))
        self._fitted = costs, miss_cost_threshold(scores, costs[labels], alpha, bound=float(costs.max()))
        return self

    def predict(self, test_probs: npt.ArrayLike) -> BoolArray:
        """Prediction sets, shape (m, K), for rows of shape (m, K) with the labels of the calibration rows.

        Raises
        ------
        InvalidInput
            If the predictor is not calibrated or the input is not as above.
        """
        return self._scorer.sets(test_probs, self.threshold, name="test_probs", n_labels=len(self.miss_cost))

    @property
    def miss_cost(self) -> FloatArray:
        """Cost of missing each label, shape (K,), read-only."""
        return self._calibrated[0]

    @property
    def control(self) -> RiskControl:
        """Level, threshold and evidence."""
        return self._calibrated[1]

    @property
    def alpha(self) -> float:
        """Expected cost allowed."""
        return self.control.alpha

    @property
    def n_calibration(self) -> int:
        """Number of calibration rows."""
        return self.control.n_calibration

    @property
    def threshold(self) -> float:
        """Greatest score that is in the set; +inf: every label is; -inf: none is."""
        return self.control.lambda_

    @property
    def covers_everything(self) -> bool:
        """Whether every set is the whole label set."""
        return self.threshold == math.inf

    @property
    def statement(self) -> str:
        """The guarantee in words."""
        control = self.control
        text = (
            f"A new case costs at most {control.alpha:.6g} on average, where a set of labels that does not "
            f"contain the true label costs up to {control.bound:.6g}, depending on the label, and one that "
            f"does costs nothing; provided that the new case and the {control.n_calibration} calibration "
            f"cases come from the same source in no particular order, and that the calibration cases were "
            f"used neither to train the model nor to fit its calibration map. The calibration cases cost "
            f"{control.risk:.6g} on average. This is an average over all cases and over calibration sets: "
            f"it does not hold for each label, each group or each single case."
        )
        if self.covers_everything:
            needed = rows_needed(control.alpha, control.bound)
            few = control.n_calibration < needed
            why = f"fewer than {needed} calibration cases" if few else "a model that excludes true labels"
            text += f" With {why}, every set contains all labels and tells nothing."
        if self.threshold == -math.inf:
            text += " Missing every label costs no more than that, so every set is empty and tells nothing."
        return text

    @property
    def _calibrated(self) -> tuple[FloatArray, RiskControl]:
        if self._fitted is None:
            raise InvalidInput("the predictor is not calibrated", remedy="call calibrate first")
        return self._fitted

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready record."""
        return {
            "kind": "cost_controlled_predictor",
            "version": 1,
            **self._scorer.to_dict(),
            "miss_cost": self.miss_cost.tolist(),
            "control": self.control.to_dict(),
        }

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], *, rng: np.random.Generator | None = None
    ) -> CostControlledPredictor:
        """Read what :meth:`to_dict` wrote; a randomised predictor needs ``rng`` again."""
        record = read_record(_Record, data)
        predictor = cls(
            record.method, inputs=record.inputs, randomized=record.randomized, rng=rng, **record.options
        )
        costs, control = _as_costs(record.miss_cost, None), RiskControl.from_dict(record.control)
        if float(costs.max()) != control.bound:
            raise InvalidInput(
                "the record contradicts itself",
                seen=(record.miss_cost, control.bound),
                remedy="calibrate again",
            )
        predictor._fitted = costs, control
        return predictor


def _as_costs(miss_cost: npt.ArrayLike, n_labels: int | None) -> FloatArray:
    costs = as_vector(miss_cost, name="miss_cost", low=0.0, high=1e100).copy()
    if len(costs) != (n_labels or len(costs)) or len(costs) < 2 or not costs.any():
        raise InvalidInput(
            "miss_cost must have one entry for each of two or more labels, not all 0",
            seen=costs.tolist(),
            remedy="pass what it costs to miss each label, in the order of the columns",
        )
    costs.flags.writeable = False
    return costs
