"""Prediction sets for a stream that may change: scores of any method at the level of adaptive inference."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from finetune.domain.checks import (
    BoolArray,
    Extended,
    FloatArray,
    as_array,
    as_choice,
    as_labels,
    read_extended,
    read_record,
    write_extended,
)
from finetune.domain.conformal.online import AdaptiveLevel
from finetune.domain.conformal.quantile import conformal_rank
from finetune.domain.conformal.row_scorer import ScoringPredictor
from finetune.domain.errors import InvalidInput

HISTORIES = ("fixed", "growing", "sliding")


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    kind: Literal["adaptive_conformal_predictor"]
    version: Literal[1]
    method: str
    inputs: str
    options: dict[str, float]
    randomized: bool
    history: str
    n_labels: int
    level: dict[str, Any]
    scores: list[Extended]
    pending: list[Extended] | None


class AdaptiveConformalPredictor(ScoringPredictor):
    """Prediction sets one case at a time, whose share of misses tends to alpha whatever the stream does.

    For each case :meth:`predict`, then, when its true label is known, :meth:`update`.

    Parameters
    ----------
    method, inputs, randomized, rng, **options
        As in :class:`~finetune.domain.conformal.split.ConformalPredictor`.
    gamma, start
        As in :class:`~finetune.domain.conformal.online.AdaptiveLevel`.
    history
        Scores that thresholds are taken from.  ``"fixed"``: those of the calibration rows, always.
        ``"growing"``: the score of each new case is added.  ``"sliding"``: and the oldest one is dropped.

    Raises
    ------
    InvalidInput
        If an option is not as above.

    Notes
    -----
    Promised, and not promised: as in :class:`~finetune.domain.conformal.online.AdaptiveLevel`.  The promise
    needs nothing of the model, the scores or the history; these decide how large the sets are.

    References
    ----------
    Gibbs, I. and Candès, E. (2021). Adaptive conformal inference under distribution shift. NeurIPS, sec. 2.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rows = rng.dirichlet(np.ones(3), size=300)
    >>> labels = rng.integers(3, size=300)  # the model knows nothing
    >>> predictor = AdaptiveConformalPredictor("lac", gamma=0.05)
    >>> predictor = predictor.calibrate(rows[:50], labels[:50], alpha=0.2)
    >>> for row, label in zip(rows[50:], labels[50:]):
    ...     in_set = predictor.predict(row)
    ...     covered = predictor.update(label)
    >>> abs(predictor.level.miscoverage - 0.2) <= predictor.level.bound < 0.07
    True
    """

    def __init__(
        self,
        method: str = "lac",
        *,
        gamma: float = 0.005,
        start: float | None = None,
        history: str = "fixed",
        inputs: str = "probabilities",
        randomized: bool = False,
        rng: np.random.Generator | None = None,
        **options: float,
    ) -> None:
        super().__init__(method, inputs=inputs, randomized=randomized, rng=rng, **options)
        self._gamma, self._start = gamma, start
        AdaptiveLevel(gamma=gamma, start=start)  # here, and not in calibrate only, bad options are refused
        self._history = as_choice(history, HISTORIES, name="history")
        self._level: AdaptiveLevel | None = None
        self._n_labels = 0
        self._in_order: deque[float] = deque()
        self._ascending: list[float] = []
        self._pending: FloatArray | None = None

    def calibrate(
        self, cal_probs: npt.ArrayLike, cal_labels: npt.ArrayLike, alpha: float = 0.1
    ) -> AdaptiveConformalPredictor:
        """Take the scores of rows that come before the stream, and begin at its first step.

        Parameters
        ----------
        cal_probs
            Shape (n, K).
        cal_labels
            Shape (n,): label indices.
        alpha
            Miscoverage aimed at, in (0, 1).

        Returns
        -------
        AdaptiveConformalPredictor
            This object.

        Raises
        ------
        InvalidInput
            If the input is not as above.
        """
        level = AdaptiveLevel(alpha, gamma=self._gamma, start=self._start)
        k, _, scores = self._scorer.of_labels(cal_probs, cal_labels)
        in_order = scores.tolist()
        self._level, self._n_labels, self._pending = level, k, None
        self._in_order, self._ascending = deque(in_order), sorted(in_order)
        return self

    def predict(self, row: npt.ArrayLike) -> BoolArray:
        """Set of the next case.

        Parameters
        ----------
        row
            Shape (K,), the labels of the calibration rows.

        Returns
        -------
        BoolArray
            Shape (K,): whether the label is in the set.

        Raises
        ------
        InvalidInput
            If the predictor is not calibrated, the input is not as above, or the label of the case before
            was not told.
        """
        threshold = self.threshold
        if self._pending is not None:
            raise InvalidInput(
                "the true label of the last case was not told",
                remedy="call update with it, or discard if it will never be known",
            )
        rows = self._scorer.rows(as_array(row, "row")[None], name="row", n_labels=self._n_labels)
        self._pending = self._scorer.score.matrix(rows, self._scorer.draws(1))[0]
        return np.asarray(self._pending <= threshold)

    def update(self, label: int) -> bool:
        """Tell the true label of the case predicted last, and return whether its set held it.

        Raises
        ------
        InvalidInput
            If no case waits for its label, or the label is no index in [0, K).
        """
        if self._pending is None:
            raise InvalidInput("no case waits for its label", remedy="call predict first")
        true = int(as_labels([label], n_rows=1, n_labels=self._n_labels, name="label")[0])
        score = float(self._pending[true])
        covered = score <= self.threshold
        self.level.update(covered)
        self._pending = None
        if self.history != "fixed":
            self._in_order.append(score)
            insort(self._ascending, score)
        if self.history == "sliding":
            del self._ascending[bisect_left(self._ascending, self._in_order.popleft())]
        return covered

    def discard(self) -> None:
        """Forget the case predicted last: its label will never be known.

        It does not count as a step: the promise is about the cases whose labels were told.
        """
        self._pending = None

    @property
    def history(self) -> str:
        """Scores that thresholds are taken from."""
        return self._history

    @property
    def alpha(self) -> float:
        """Miscoverage aimed at."""
        return self.level.alpha

    @property
    def level(self) -> AdaptiveLevel:
        """The level, its history and the guarantee."""
        if self._level is None:
            raise InvalidInput("the predictor is not calibrated", remedy="call calibrate first")
        return self._level

    @property
    def threshold(self) -> float:
        """Greatest score that is in the next set; +inf: every label is; -inf: none is."""
        alpha = self.level.value
        if not 0.0 < alpha < 1.0:
            return math.inf if alpha <= 0.0 else -math.inf
        rank = conformal_rank(len(self._ascending), alpha)
        return math.inf if rank > len(self._ascending) else self._ascending[rank - 1]

    @property
    def statement(self) -> str:
        """The guarantee, and what was seen, in words."""
        return self.level.statement

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready record of the whole state, a case that waits for its label included."""
        waiting = None if self._pending is None else [write_extended(s) for s in self._pending.tolist()]
        return {
            "kind": "adaptive_conformal_predictor",
            "version": 1,
            **self._scorer.to_dict(),
            "history": self.history,
            "n_labels": self._n_labels,
            "level": self.level.to_dict(),
            "scores": [write_extended(score) for score in self._in_order],
            "pending": waiting,
        }

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], *, rng: np.random.Generator | None = None
    ) -> AdaptiveConformalPredictor:
        """Go on from what :meth:`to_dict` wrote; a randomised predictor needs ``rng`` again, a new one."""
        record = read_record(_Record, data)
        level = AdaptiveLevel.from_dict(record.level)
        if (
            record.n_labels < 2
            or not record.scores
            or (record.pending is not None and len(record.pending) != record.n_labels)
        ):
            raise InvalidInput("the record contradicts itself", seen=record.n_labels, remedy="start anew")
        predictor = cls(
            record.method,
            gamma=level.gamma,
            start=level.start,
            history=record.history,
            inputs=record.inputs,
            randomized=record.randomized,
            rng=rng,
            **record.options,
        )
        predictor._level, predictor._n_labels = level, record.n_labels
        predictor._in_order = deque(map(read_extended, record.scores))
        predictor._ascending = sorted(predictor._in_order)
        if record.pending is not None:
            predictor._pending = np.array([read_extended(score) for score in record.pending])
        return predictor
