"""A score with one threshold for each category of cases: what its predictors have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from finetune.domain.checks import BoolArray, FloatArray, as_level, read_record
from finetune.domain.conformal.categories import Category, CategoryRecord, write_category
from finetune.domain.conformal.row_scorer import ScoringPredictor
from finetune.domain.errors import InvalidInput


class MondrianCalibration(NamedTuple):
    """What a calibrated predictor knows: nothing but these numbers decides its sets."""

    n_labels: int
    alpha: float
    categories: tuple[Category, ...]


class MondrianRecord(BaseModel):
    """A predictor as it is written to JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    kind: str
    version: Literal[1]
    method: str
    inputs: str
    options: dict[str, float] = {}
    randomized: bool
    n_labels: int
    alpha: float
    categories: list[CategoryRecord]


class MondrianPredictor(ScoringPredictor, ABC):
    """A score, and one threshold for each category of cases.

    Parameters
    ----------
    method, inputs, randomized, rng, **options
        As of :class:`~finetune.domain.conformal.split.ConformalPredictor`.

    Raises
    ------
    InvalidInput
        As there.
    """

    kind: ClassVar[str]
    record: ClassVar[type[MondrianRecord]] = MondrianRecord

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
        self._calibration: MondrianCalibration | None = None

    @property
    def calibration(self) -> MondrianCalibration:
        """The fitted numbers."""
        if self._calibration is None:
            raise InvalidInput("the predictor is not calibrated", remedy="call calibrate first")
        return self._calibration

    @property
    def alpha(self) -> float:
        """Miscoverage allowed in each category."""
        return self.calibration.alpha

    @property
    def categories(self) -> tuple[Category, ...]:
        """Rows, rank, threshold and law of each category."""
        return self.calibration.categories

    @property
    @abstractmethod
    def statement(self) -> str:
        """The guarantee in words."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready record; infinite thresholds are written as ``"+inf"``."""
        fitted = self.calibration
        return {
            "kind": self.kind,
            "version": 1,
            **self._scorer.to_dict(),
            "n_labels": fitted.n_labels,
            "alpha": fitted.alpha,
            "categories": [write_category(category) for category in fitted.categories],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, rng: np.random.Generator | None = None) -> Self:
        """Read what :meth:`to_dict` wrote; a randomised predictor needs ``rng`` again."""
        record = read_record(cls.record, data)
        alpha = as_level(record.alpha, name="alpha")
        if record.kind != cls.kind or record.n_labels < 2:
            raise InvalidInput(
                f"the record is not a valid {cls.kind}",
                seen=(record.kind, record.n_labels),
                remedy="calibrate again, or read it with the class that wrote it",
            )
        predictor = cls(
            record.method, inputs=record.inputs, randomized=record.randomized, rng=rng, **record.options
        )
        categories = tuple(category.read(alpha) for category in record.categories)
        predictor._calibration = MondrianCalibration(record.n_labels, alpha, categories)
        predictor._restore(record)
        return predictor

    @abstractmethod
    def _restore(self, record: Any) -> None:
        """Take what else the record holds, and refuse categories that cannot be."""

    def _label_sets(self, test_probs: npt.ArrayLike, thresholds: FloatArray) -> BoolArray:
        return self._scorer.label_sets(
            test_probs, thresholds, name="test_probs", n_labels=self.calibration.n_labels
        )
