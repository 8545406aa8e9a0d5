"""Prediction sets for cases whose law has shifted by a known ratio."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from finetune.domain.checks import (
    BoolArray,
    Extended,
    FloatArray,
    as_count,
    as_level,
    read_extended,
    read_record,
    write_extended,
)
from finetune.domain.conformal.row_scorer import ScoringPredictor
from finetune.domain.conformal.weighted import (
    as_test_weights,
    as_weighted_scores,
    effective_sample_size,
    weighted_thresholds,
)
from finetune.domain.errors import CoverageWarning, InvalidInput


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    kind: Literal["weighted_conformal_predictor"]
    version: Literal[1]
    method: str
    inputs: str
    options: dict[str, float]
    randomized: bool
    n_labels: int
    alpha: float
    scores: list[Extended]
    weights: list[float]


@dataclass(frozen=True, eq=False)
class WeightedCalibration:
    """What a calibrated predictor knows.

    Parameters
    ----------
    n_labels, alpha
        Number of labels, and miscoverage allowed.
    scores, weights
        Shape (n,) both, read-only: calibration scores, ascending, each with its weight.
    """

    n_labels: int
    alpha: float
    scores: FloatArray
    weights: FloatArray


class WeightedConformalPredictor(ScoringPredictor):
    """Prediction sets with marginal coverage of at least 1 - alpha under a known covariate shift.

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
    Guaranteed: P(true label in set) >= 1 - alpha for a test row, over the draw of calibration rows and test
    row, if rows are independent, the law of the label given the text is the same in both, and the weight of
    a row is w(x), proportional to the density of test texts at x over that of calibration texts, *known
    exactly* and defined without the calibration rows.

    Not promised: with estimated weights v the coverage may be lower by up to E|v - w| / 2, both scaled to
    mean 1 over calibration texts: the total variation between the test rows and those that v describes.
    Nothing holds where test texts cannot occur among calibration texts, or where the law of the labels given
    the text has changed.  It is an average: not a promise for a label, a group or a case.  The law of the
    coverage given the calibration rows is not known; it spreads about as much as that of
    :attr:`effective_sample_size` rows without weights.

    References
    ----------
    Tibshirani, Foygel Barber, Candès, Ramdas (2019). Conformal prediction under covariate shift. NeurIPS,
    cor. 1, sec. 2.
    Lei, L. and Candès, E. (2021). Conformal inference of counterfactuals and individual treatment effects.
    JRSS B 83 (estimated weights).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rows = rng.dirichlet(np.ones(3), size=1000)
    >>> labels = np.array([rng.choice(3, p=p) for p in rows])
    >>> ratio = 2 * rows[:, 0]
    >>> predictor = WeightedConformalPredictor("lac")
    >>> predictor = predictor.calibrate(rows[:500], labels[:500], ratio[:500], alpha=0.1)
    >>> predictor.predict(rows[500:], ratio[500:]).shape, round(predictor.effective_sample_size)
    ((500, 3), 335)
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
        self._calibration: WeightedCalibration | None = None

    def calibrate(
        self,
        cal_probs: npt.ArrayLike,
        cal_labels: npt.ArrayLike,
        cal_weights: npt.ArrayLike,
        alpha: float = 0.1,
    ) -> WeightedConformalPredictor:
        """Keep the scores of the calibration rows with their weights.

        Parameters
        ----------
        cal_probs
            Shape (n, K).
        cal_labels
            Shape (n,): label indices.
        cal_weights
            Shape (n,), finite, >= 0, not all 0: the likelihood ratio of each row, up to one factor.
        alpha
            Miscoverage allowed, in (0, 1).

        Returns
        -------
        WeightedConformalPredictor
            This object.

        Raises
        ------
        InvalidInput
            If the input is not as above.
        """
        alpha = as_level(alpha, name="alpha")
        k, _, scores = self._scorer.of_labels(cal_probs, cal_labels)
        scores, weights = as_weighted_scores(scores, cal_weights)
        self._calibration = WeightedCalibration(k, alpha, scores, weights)
        return self

    def predict(self, test_probs: npt.ArrayLike, test_weights: npt.ArrayLike) -> BoolArray:
        """Prediction sets.

        Parameters
        ----------
        test_probs
            Shape (m, K), the same labels in the same order as in calibration.
        test_weights
            Shape (m,), finite, >= 0: likelihood ratio of each row, with the factor of the calibration rows.

        Returns
        -------
        BoolArray
            Shape (m, K): whether the label is in the set.

        Raises
        ------
        InvalidInput
            If the predictor is not calibrated or the input is not as above.

        Warns
        -----
        CoverageWarning
            If rows get all labels because their weight is too great for the calibration rows.
        """
        fitted = self.calibration
        rows = self._scorer.rows(test_probs, name="test_probs", n_labels=fitted.n_labels)
        thresholds = self.thresholds(test_weights)
        if len(thresholds) != len(rows):
            raise InvalidInput(
                "test_probs and test_weights must have one entry for each row",
                seen=(len(rows), len(thresholds)),
                remedy="pass both for the same rows",
            )
        everything = int(np.isposinf(thresholds).sum())
        if everything:
            warnings.warn(
                f"{everything} of {len(rows)} sets hold all labels: no finite calibration score is high "
                f"enough for weights above {self.greatest_weight:.6g}; calibrate with more rows that "
                f"resemble these",
                CoverageWarning,
                stacklevel=2,
            )
        return self._scorer.score.sets(rows, thresholds, self._scorer.draws(len(rows)))

    def thresholds(self, test_weights: npt.ArrayLike) -> FloatArray:
        """Greatest score in the set of a row of each weight, shape (m,); +inf where every label is."""
        fitted = self.calibration
        weights = as_test_weights(test_weights)
        return weighted_thresholds(fitted.scores, fitted.weights, weights, fitted.alpha)

    @property
    def calibration(self) -> WeightedCalibration:
        """The fitted numbers."""
        if self._calibration is None:
            raise InvalidInput("the predictor is not calibrated", remedy="call calibrate first")
        return self._calibration

    @property
    def alpha(self) -> float:
        """Miscoverage allowed."""
        return self.calibration.alpha

    @property
    def n_calibration(self) -> int:
        """Number of calibration rows."""
        return len(self.calibration.scores)

    @property
    def effective_sample_size(self) -> float:
        """How many rows of equal weight would tell as much, by Kish's formula."""
        return effective_sample_size(self.calibration.weights)

    @property
    def greatest_weight(self) -> float:
        """Greatest weight of a test row, but for rounding, whose set need not hold all labels.

        0 where the model excludes so many true labels of calibration rows that every set holds all.
        """
        fitted = self.calibration
        greatest = fitted.weights.max()
        with np.errstate(over="ignore", under="ignore"):
            shares = fitted.weights / greatest
            spare = fitted.alpha * shares.sum() - shares[np.isposinf(fitted.scores)].sum()
            return float(max(spare, 0.0) / (1 - fitted.alpha) * greatest)

    @property
    def statement(self) -> str:
        """The guarantee in words."""
        fitted = self.calibration
        return (
            f"The set of labels given for a new case contains the true label with a probability of at least "
            f"{1 - fitted.alpha:.6g}, provided that the weights say exactly how much more often cases like "
            f"each one occur among the new cases than among those that the {self.n_calibration} calibration "
            f"cases were drawn from, that the same case has each label with the same probability in both, "
            f"and that the calibration cases were used neither to train the model nor to fit its calibration "
            f"map nor to find the weights. With estimated weights it holds only as nearly as they are right. "
            f"This is an average over all new cases and over calibration sets: it does not hold for each "
            f"label, each group or each single case. The calibration cases tell as much as "
            f"{self.effective_sample_size:.1f} cases of equal weight; a new case of a weight above "
            f"{self.greatest_weight:.6g} gets the set of all labels, which tells nothing."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready record; infinite scores are written as ``"+inf"``."""
        fitted = self.calibration
        return {
            "kind": "weighted_conformal_predictor",
            "version": 1,
            **self._scorer.to_dict(),
            "n_labels": fitted.n_labels,
            "alpha": fitted.alpha,
            "scores": [write_extended(score) for score in fitted.scores.tolist()],
            "weights": fitted.weights.tolist(),
        }

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], *, rng: np.random.Generator | None = None
    ) -> WeightedConformalPredictor:
        """Read what :meth:`to_dict` wrote; a randomised predictor needs ``rng`` again."""
        record = read_record(_Record, data)
        predictor = cls(
            record.method, inputs=record.inputs, randomized=record.randomized, rng=rng, **record.options
        )
        scores, weights = as_weighted_scores([read_extended(s) for s in record.scores], record.weights)
        predictor._calibration = WeightedCalibration(
            as_count(record.n_labels, name="n_labels", minimum=2),
            as_level(record.alpha, name="alpha"),
            scores,
            weights,
        )
        return predictor
