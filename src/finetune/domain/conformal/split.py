"""Split conformal prediction: sets of labels that hold the true one with a stated probability."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from finetune.domain.checks import (
    BoolArray,
    Extended,
    as_level,
    read_extended,
    read_record,
    write_extended,
)
from finetune.domain.conformal.quantile import CoverageLaw, conformal_rank
from finetune.domain.conformal.row_scorer import ScoringPredictor
from finetune.domain.errors import InvalidInput


class Calibration(NamedTuple):
    """What a calibrated predictor knows: nothing but these numbers decides its sets."""

    n_labels: int
    alpha: float
    n_calibration: int
    threshold: float


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    kind: Literal["conformal_predictor"]
    version: Literal[1]
    method: str
    inputs: str
    options: dict[str, float] = {}
    randomized: bool
    n_labels: int
    alpha: float
    n_calibration: int
    rank: int
    threshold: Extended


class ConformalPredictor(ScoringPredictor):
    """Prediction sets with marginal coverage of at least 1 - alpha.

    Parameters
    ----------
    method
        ``"lac"``: the smallest sets on average.  ``"aps"``: sets that adapt to how hard a case is.
        ``"raps"``: the same, with a brake on large sets.  ``"saps"``: adaptive by ranks, little by
        probabilities.  ``"margin"``: by the distance to the strongest other label.  ``"topk"``: always the
        same number of labels.
    inputs
        What the rows are: ``"probabilities"``, ``"log_probabilities"`` or ``"logits"``.  The last two keep
        labels apart that a saturated softmax rounds to probability 0.
    randomized
        Draw one uniform number per row, in calibration and in prediction alike, which makes the coverage
        exact instead of conservative.  Only for ``"aps"``, ``"raps"`` and ``"saps"``.
    rng
        Source of these draws.
    **options
        Of the method, by name.  ``"raps"``: ``penalty`` (0.01) for each rank beyond ``k_reg`` (1), both >= 0.
        ``"saps"``: ``weight`` (0.2) of one rank, >= 0.  Any values keep the promise, if they were not
        chosen on the calibration rows.

    Raises
    ------
    InvalidInput
        If a name is not known, an option is not one of the method or not valid, the method has no randomised
        form, or it is randomised without a generator.

    Notes
    -----
    Holds if calibration rows and new rows are exchangeable, and calibration rows were used neither to
    train the model nor to fit a calibration map.  The coverage is marginal: an average over calibration
    sets and cases, not a promise for a label, a group or one case.

    References
    ----------
    Papadopoulos, Proedrou, Vovk, Gammerman (2002). Inductive confidence machines for regression. ECML.
    Angelopoulos, A. N. and Bates, S. (2023). Conformal prediction: a gentle introduction, sec. 1.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rows = rng.dirichlet(np.ones(3), size=1000)
    >>> labels = np.array([rng.choice(3, p=p) for p in rows])
    >>> predictor = ConformalPredictor("lac").calibrate(rows[:500], labels[:500], alpha=0.1)
    >>> sets = predictor.predict(rows[500:])
    >>> bool(sets[np.arange(500), labels[500:]].mean() > 0.87)
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
        self._calibration: Calibration | None = None

    def calibrate(
        self, cal_probs: npt.ArrayLike, cal_labels: npt.ArrayLike, alpha: float = 0.1
    ) -> ConformalPredictor:
        """Find the threshold.

        Parameters
        ----------
        cal_probs
            Shape (n, K).
        cal_labels
            Shape (n,): label indices.
        alpha
            Miscoverage allowed, in (0, 1).

        Returns
        -------
        ConformalPredictor
            This object.  With fewer than 1 / alpha - 1 rows every set is the whole label set, which
            :attr:`covers_everything` and :attr:`statement` say.

        Raises
        ------
        InvalidInput
            If the input is not as above.
        """
        alpha = as_level(alpha, name="alpha")
        k, n, threshold = self._scorer.threshold(cal_probs, cal_labels, alpha)
        self._calibration = Calibration(k, alpha, n, threshold)
        return self

    def predict(self, test_probs: npt.ArrayLike) -> BoolArray:
        """Prediction sets.

        Parameters
        ----------
        test_probs
            Shape (n, K), the same labels in the same order as in calibration.

        Returns
        -------
        BoolArray
            Shape (n, K): whether the label is in the set.  A set may be empty or hold all labels.

        Raises
        ------
        InvalidInput
            If the predictor is not calibrated or the input is not as above.
        """
        fitted = self.calibration
        return self._scorer.sets(test_probs, fitted.threshold, name="test_probs", n_labels=fitted.n_labels)

    @property
    def calibration(self) -> Calibration:
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
        return self.calibration.n_calibration

    @property
    def threshold(self) -> float:
        """Greatest score that is in the set; +inf where every label is."""
        return self.calibration.threshold

    @property
    def rank(self) -> int:
        """Rank of the threshold among the calibration scores; n + 1 where there is none."""
        return conformal_rank(self.n_calibration, self.alpha)

    @property
    def law(self) -> CoverageLaw:
        """Law of the coverage given the calibration rows."""
        return CoverageLaw(self.n_calibration, self.rank)

    @property
    def covers_everything(self) -> bool:
        """Whether every set is the whole label set."""
        return self.threshold == math.inf

    @property
    def statement(self) -> str:
        """The guarantee in words."""
        n, law = self.n_calibration, self.law
        text = (
            f"The set of labels given for a new case contains the true label with a probability of at least "
            f"{1 - self.alpha:.6g}, provided that the new case and the {n} calibration cases come from the "
            f"same source in no particular order, and that the calibration cases were used neither to train "
            f"the model nor to fit its calibration map. This is an average over all cases and over "
            f"calibration sets: it does not hold for each label, each group or each single case."
        )
        if self.covers_everything:
            why = f"{n} calibration cases are too few" if law.rank > n else "the model excludes true labels"
            return text + f" For this level {why}, so every set contains all labels and tells nothing."
        low, high, level = law.interval(0.9)
        return text + (
            f" For calibration sets of this size the coverage lies between {low:.4f} and {high:.4f} in "
            f"{100 * level:g} % of them, or above where cases tie."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready record; an infinite threshold is written as ``"+inf"``."""
        fitted = self.calibration
        return {
            "kind": "conformal_predictor",
            "version": 1,
            **self._scorer.to_dict(),
            "n_labels": fitted.n_labels,
            "alpha": fitted.alpha,
            "n_calibration": fitted.n_calibration,
            "rank": self.rank,
            "threshold": write_extended(fitted.threshold),
        }

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], *, rng: np.random.Generator | None = None
    ) -> ConformalPredictor:
        """Read what :meth:`to_dict` wrote; a randomised predictor needs ``rng`` again."""
        record = read_record(_Record, data)
        threshold, n = read_extended(record.threshold), record.n_calibration
        if (
            record.n_labels < 2
            or record.rank != conformal_rank(n, record.alpha)
            or (record.rank > n and threshold != math.inf)
        ):
            raise InvalidInput(
                "the record contradicts itself",
                seen=(record.n_labels, n, record.alpha, record.rank, threshold),
                remedy="calibrate again",
            )
        predictor = cls(
            record.method, inputs=record.inputs, randomized=record.randomized, rng=rng, **record.options
        )
        predictor._calibration = Calibration(record.n_labels, record.alpha, n, threshold)
        return predictor
