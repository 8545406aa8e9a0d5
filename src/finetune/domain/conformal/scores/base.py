"""What every score offers, and how scores, thresholds and the keys that are compared belong together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import BoolArray, FloatArray, IntArray, Numbers
from finetune.domain.conformal.quantile import kth_smallest
from finetune.domain.row_reader import RowReader, row_blocks

# -log of a float above 0 is at most this.
_DEEPEST = 746
_INFINITY = int(np.float64(np.inf).view(np.int64))


_Work = Callable[[Numbers, slice, FloatArray | None], None]


class Limits(NamedTuple):
    """Thresholds, and the least keys that are within them.

    Parameters
    ----------
    threshold
        Greatest scores that are within.
    cut
        Least keys that are within, for keys on the scale of probabilities.
    """

    threshold: FloatArray
    cut: FloatArray

    @classmethod
    def of(cls, thresholds: float | FloatArray) -> Limits:
        """Limits at these thresholds, of any shape."""
        threshold = np.asarray(thresholds, dtype=np.float64)
        if threshold.ndim == 0:
            return cls(threshold, _least_probability_of_one(float(threshold)))
        return cls(threshold, _least_probability(threshold))

    def of_all(self, n: int) -> Limits:
        """One limit for n rows."""
        return Limits(np.broadcast_to(self.threshold, n), np.broadcast_to(self.cut, n))

    def of_rows(self, rows: Any) -> Limits:
        """Those of some rows."""
        return Limits(self.threshold[rows], self.cut[rows])

    def on_scale(self, *, logarithm: bool) -> FloatArray:
        """Least keys within, where the score is -log key, or else -key."""
        return self.cut if logarithm else -self.threshold


@dataclass(frozen=True)
class Score(ABC):
    """How strange each label would be as the true one; greater is stranger.

    Rows are what ``checked_rows(values, inputs=score.inputs)`` returned, or, but for :meth:`matrix`, a reader
    that checks them on the way; labels are what ``as_labels`` did; u is one uniform number in [0, 1) a row,
    shared by its labels, or None for the deterministic form.  All methods go through the rows in blocks and
    need little memory beside what they return.

    Parameters
    ----------
    inputs
        What the rows are: ``"probabilities"``, ``"log_probabilities"`` or ``"logits"``.
    """

    inputs: str = "probabilities"

    method: ClassVar[str]
    randomisable: ClassVar[bool] = False
    #: Whether reading rows twice, to check them and to score them, would cost more than scoring them.
    checked_on_the_way: ClassVar[bool] = False
    # Of temporary arrays, for each entry of a block: where each label is scored, and where each row has one
    # score or one bar.
    _bytes_by_label: ClassVar[int] = 80
    _bytes_by_row: ClassVar[int] = 32

    @property
    def options(self) -> dict[str, float]:
        """Options of the method by name, ready for JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "inputs"}

    def of_labels(
        self, rows: Numbers | RowReader, labels: IntArray, u: FloatArray | None = None
    ) -> FloatArray:
        """Score of one label a row, shape (n,): finite or +inf."""
        scores = np.empty(len(labels))

        def work(part: Numbers, block: slice, u: FloatArray | None) -> None:
            scores[block] = self._of_labels(part, labels[block], u)

        self._each_block(rows, u, work, self._bytes_by_row)
        return scores

    def quantile(
        self, rows: Numbers | RowReader, labels: IntArray, rank: int, u: FloatArray | None = None
    ) -> float:
        """Score of that rank, from 1, among those of one label a row; +inf beyond the last."""
        return kth_smallest(self.of_labels(rows, labels, u), rank)

    def matrix(self, rows: Numbers, u: FloatArray | None = None) -> FloatArray:
        """Score of every label, shape (n, K)."""
        scores = np.empty(rows.shape)

        def work(part: Numbers, block: slice, u: FloatArray | None) -> None:
            self._matrix(part, u, scores[block])

        self._each_block(rows, u, work, self._bytes_by_label)
        return scores

    def sets(
        self, rows: Numbers | RowReader, thresholds: float | FloatArray, u: FloatArray | None = None
    ) -> BoolArray:
        """Labels whose score is at most the threshold of their row.

        Parameters
        ----------
        rows
            Shape (n, K).
        thresholds
            One number, or shape (n,); +inf lets every label in and -inf none.
        u
            Shape (n,) or None.

        Returns
        -------
        BoolArray
            Shape (n, K): in every cell what ``matrix(rows, u) <= thresholds[:, None]`` is.
        """
        inside = np.empty(array_of(rows).shape, dtype=np.bool_)
        limits = Limits.of(thresholds).of_all(len(inside)) if np.ndim(thresholds) == 0 else None
        of_rows = np.asarray(thresholds, dtype=np.float64)

        def work(part: Numbers, block: slice, u: FloatArray | None) -> None:
            found = Limits.of(of_rows[block]) if limits is None else limits.of_rows(block)
            self._sets(part, found, u, inside[block])

        self._each_block(rows, u, work, self._bytes_by_row)
        return inside

    def label_sets(
        self, rows: Numbers | RowReader, thresholds: FloatArray, u: FloatArray | None = None
    ) -> BoolArray:
        """Labels whose score is at most the threshold of the label, shape (K,): see :meth:`sets`."""
        inside = np.empty(array_of(rows).shape, dtype=np.bool_)
        limits = Limits.of(thresholds)

        def work(part: Numbers, block: slice, u: FloatArray | None) -> None:
            self._label_sets(part, limits, u, inside[block])

        self._each_block(rows, u, work, self._bytes_by_label)
        return inside

    def _each_block(
        self, rows: Numbers | RowReader, u: FloatArray | None, work: _Work, bytes_made: int
    ) -> None:
        array = array_of(rows)
        # Infinite scores and sums that underflow are meant, whatever the caller's numpy settings say.
        with np.errstate(all="ignore"):
            for block in row_blocks(array, bytes_made=bytes_made):
                part = rows.read(block) if isinstance(rows, RowReader) else rows[block]
                work(part, block, None if u is None else u[block])

    @abstractmethod
    def _of_labels(self, block: Numbers, labels: IntArray, u: FloatArray | None) -> FloatArray: ...

    @abstractmethod
    def _matrix(self, block: Numbers, u: FloatArray | None, out: FloatArray) -> None: ...

    @abstractmethod
    def _sets(self, block: Numbers, limits: Limits, u: FloatArray | None, out: BoolArray) -> None: ...

    @abstractmethod
    def _label_sets(self, block: Numbers, limits: Limits, u: FloatArray | None, out: BoolArray) -> None: ...


def array_of(rows: Numbers | RowReader) -> Numbers:
    """Rows that have been checked, or that a reader is going to check; shape (n, K)."""
    return rows.rows if isinstance(rows, RowReader) else rows


def scores_of(keys: npt.NDArray[Any], *, logarithm: bool) -> FloatArray:
    """Scores of keys, -log key or else -key; a zero is never -0.0."""
    scores: FloatArray = 0.0 - (np.log(keys.astype(np.float64, copy=False)) if logarithm else keys)
    return scores


def _least_probability(thresholds: FloatArray) -> FloatArray:
    # The smallest float x >= 0 with -log x <= threshold: the one rule by which a score on the scale of
    # logarithms and the key that it was computed from are compared with a threshold, in any order of events.
    # It is near exp(-threshold), closer than the floats x whose -log rounds to the same number are many; the
    # bits of floats above 0, read as whole numbers, are in the order of the floats.
    sizes = np.abs(thresholds[np.isfinite(thresholds)])
    reach = 8 * (1 + int(min(sizes.max(initial=0.0), _DEEPEST)))
    with np.errstate(all="ignore"):
        near = np.exp(-thresholds).view(np.int64)
        low, high = np.maximum(near - reach, 0), np.minimum(near + reach, _INFINITY)
        while (low < high).any():
            middle = low + (high - low) // 2
            within = scores_of(middle.view(np.float64), logarithm=True) <= thresholds
            low, high = np.where(within, low, middle + 1), np.where(within, middle, high)
    return high.view(np.float64)


def _least_probability_of_one(threshold: float) -> FloatArray:
    # The same of one number, where a look at all of the few hundred candidates is quicker than a search.
    reach = 8 * (1 + int(min(abs(threshold), _DEEPEST)))
    with np.errstate(all="ignore"):
        near = int(np.exp(np.float64(-threshold)).view(np.int64))
        candidates = np.arange(max(near - reach, 0), min(near + reach, _INFINITY) + 1).view(np.float64)
        within = np.log(candidates) >= -threshold
    return np.asarray(candidates[within.argmax()])
