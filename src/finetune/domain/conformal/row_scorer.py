"""What every predictor here does with rows: check them, draw for them, score them, always by one rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import BoolArray, FloatArray, IntArray, Numbers, as_generator, as_labels
from finetune.domain.conformal.quantile import conformal_rank
from finetune.domain.conformal.scores import Score, make_score
from finetune.domain.errors import InvalidInput
from finetune.domain.row_reader import RowReader, open_rows

_Thresholds = TypeVar("_Thresholds", float | FloatArray, FloatArray)


class RowScorer:
    """A score with its options and its source of randomness.

    Parameters
    ----------
    method, inputs, options
        As in :func:`~finetune.domain.conformal.scores.make_score`.
    randomized
        Draw one uniform number per row.
    rng
        Source of these draws.

    Raises
    ------
    InvalidInput
        If a name is not known, ``randomized`` is no bool, the method has no randomised form, or it is
        randomised without a generator.

    Examples
    --------
    >>> scorer = RowScorer("lac", "probabilities", {}, randomized=False, rng=None)
    >>> scorer.of_labels([[0.5, 0.5]], [0])
    (2, array([0]), array([0.69314718]))
    """

    def __init__(
        self,
        method: str,
        inputs: str,
        options: Mapping[str, object],
        *,
        randomized: bool,
        rng: np.random.Generator | None,
    ) -> None:
        self.score = make_score(method, inputs=inputs, options=options)
        if not isinstance(randomized, (bool, np.bool_)):
            raise InvalidInput("randomized must be True or False", seen=randomized, remedy="pass a bool")
        if randomized and not self.score.randomisable:
            raise InvalidInput(
                f"the method {method!r} has no randomised form",
                seen=randomized,
                remedy="leave randomized out",
            )
        self._rng = as_generator(rng) if randomized else None

    def rows(self, values: npt.ArrayLike, *, name: str, n_labels: int | None = None) -> Numbers:
        """Check rows, and that they have the labels of the calibration rows."""
        return self._open(values, name, n_labels).read_all()

    def to_calibrate(
        self, cal_probs: npt.ArrayLike, cal_labels: npt.ArrayLike
    ) -> tuple[Numbers | RowReader, IntArray, int]:
        """Check labels, and rows unless the score checks them on the way; both, and the number of labels."""
        reader = self._open(cal_probs, "cal_probs", None)
        n, n_labels = reader.rows.shape
        labels = as_labels(cal_labels, n_rows=n, n_labels=n_labels, name="cal_labels")
        return self._to_read(reader), labels, n_labels

    def of_labels(
        self, cal_probs: npt.ArrayLike, cal_labels: npt.ArrayLike
    ) -> tuple[int, IntArray, FloatArray]:
        """Check calibration rows and labels; number of labels, label and score of each row."""
        rows, labels, n_labels = self.to_calibrate(cal_probs, cal_labels)
        return n_labels, labels, self.score.of_labels(rows, labels, self.draws(len(labels)))

    def threshold(
        self, cal_probs: npt.ArrayLike, cal_labels: npt.ArrayLike, alpha: float
    ) -> tuple[int, int, float]:
        """Check calibration rows and labels; number of labels, number of rows and conformal quantile."""
        rows, labels, n_labels = self.to_calibrate(cal_probs, cal_labels)
        n = len(labels)
        return n_labels, n, self.score.quantile(rows, labels, conformal_rank(n, alpha), self.draws(n))

    def sets(
        self, values: npt.ArrayLike, thresholds: float | FloatArray, *, name: str, n_labels: int
    ) -> BoolArray:
        """Check rows and give their labels with a score of at most the threshold of the row."""
        return self.score.sets(*self._to_predict(values, thresholds, name, n_labels))

    def label_sets(
        self, values: npt.ArrayLike, thresholds: FloatArray, *, name: str, n_labels: int
    ) -> BoolArray:
        """Check rows and give their labels with a score of at most the threshold of the label."""
        return self.score.label_sets(*self._to_predict(values, thresholds, name, n_labels))

    def draws(self, n: int) -> FloatArray | None:
        """One uniform number for each of n rows, or None if the scores are deterministic."""
        return None if self._rng is None else self._rng.random(n)

    def _open(self, values: npt.ArrayLike, name: str, n_labels: int | None) -> RowReader:
        reader = open_rows(values, inputs=self.score.inputs, name=name)
        if n_labels is not None and reader.rows.shape[1] != n_labels:
            raise InvalidInput(
                f"the predictor was calibrated with {n_labels} labels",
                seen=reader.rows.shape,
                remedy="pass the same label set, in the same order",
            )
        return reader

    def _to_predict(
        self, values: npt.ArrayLike, thresholds: _Thresholds, name: str, n_labels: int
    ) -> tuple[Numbers | RowReader, _Thresholds, FloatArray | None]:
        reader = self._open(values, name, n_labels)
        return self._to_read(reader), thresholds, self.draws(len(reader.rows))

    def _to_read(self, reader: RowReader) -> Numbers | RowReader:
        return reader if self.score.checked_on_the_way else reader.read_all()

    @property
    def randomized(self) -> bool:
        """Whether each row gets a uniform number."""
        return self._rng is not None

    def to_dict(self) -> dict[str, Any]:
        """Write the part of a record that says how rows are scored."""
        return {
            "method": self.score.method,
            "inputs": self.score.inputs,
            "options": dict(self.score.options),
            "randomized": self.randomized,
        }


class ScoringPredictor:
    """A predictor that scores the labels of rows: the part that all of them have in common.

    Parameters
    ----------
    method, inputs, randomized, rng, **options
        As in :class:`~finetune.domain.conformal.split.ConformalPredictor`.

    Raises
    ------
    InvalidInput
        As there.

    Examples
    --------
    >>> predictor = ScoringPredictor("raps", penalty=0.1)
    >>> predictor.method, predictor.inputs, predictor.options, predictor.randomized
    ('raps', 'probabilities', {'penalty': 0.1, 'k_reg': 1}, False)
    >>> predictor
    ScoringPredictor('raps', inputs='probabilities', randomized=False, penalty=0.1, k_reg=1)
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
        self._scorer = RowScorer(method, inputs, options, randomized=randomized, rng=rng)

    def __repr__(self) -> str:
        told = {"inputs": self.inputs, "randomized": self.randomized, **self.options}
        arguments = ", ".join(f"{name}={value!r}" for name, value in told.items())
        return f"{type(self).__name__}({self.method!r}, {arguments})"

    @property
    def score(self) -> Score:
        """How labels are scored."""
        return self._scorer.score

    @property
    def method(self) -> str:
        """Name of the score."""
        return self.score.method

    @property
    def inputs(self) -> str:
        """What the rows are."""
        return self.score.inputs

    @property
    def options(self) -> dict[str, float]:
        """Options of the method, by name."""
        return self.score.options

    @property
    def randomized(self) -> bool:
        """Whether each row gets a uniform number."""
        return self._scorer.randomized
