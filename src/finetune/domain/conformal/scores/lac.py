"""Least ambiguous classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from finetune.domain.checks import BoolArray, FloatArray, IntArray, Numbers
from finetune.domain.conformal.quantile import select
from finetune.domain.conformal.scores.base import Limits, Score, array_of, scores_of
from finetune.domain.conformal.scores.logarithms import log_normaliser
from finetune.domain.row_reader import RowReader, signed_bits


@dataclass(frozen=True)
class Lac(Score):
    """Least ambiguous classifier: s = -log p.

    References
    ----------
    Sadinle, Lei, Wasserman (2019). Least ambiguous set-valued classifiers. JASA 114.  Their score 1 - p
    puts the labels into the same order, but loses all digits where p is small.

    Examples
    --------
    >>> Lac().matrix(np.array([[0.5, 0.3, 0.2]])).round(3)
    array([[0.693, 1.204, 1.609]])
    """

    method: ClassVar[str] = "lac"
    checked_on_the_way: ClassVar[bool] = True
    _bytes_by_label: ClassVar[int] = 1
    _bytes_by_row: ClassVar[int] = 1

    def of_labels(
        self, rows: Numbers | RowReader, labels: IntArray, u: FloatArray | None = None
    ) -> FloatArray:
        """Score of one label a row: see :meth:`Score.of_labels`."""
        if self.inputs == "logits":
            return super().of_labels(rows, labels, u)
        scores = self._keys_of_labels(rows, labels).astype(np.float64, copy=False)
        if self._logarithm:
            with np.errstate(divide="ignore"):
                np.log(scores, out=scores)
        return np.subtract(0.0, scores, out=scores)

    def quantile(
        self, rows: Numbers | RowReader, labels: IntArray, rank: int, u: FloatArray | None = None
    ) -> float:
        """Score of that rank among those of one label a row: see :meth:`Score.quantile`."""
        if self.inputs == "logits" or rank > len(labels):
            return super().quantile(rows, labels, rank, u)
        # The score falls as the key grows, so that it is that of one key: no other logarithm is needed.
        keys = self._keys_of_labels(rows, labels)
        key = select(signed_bits(keys) if self._logarithm else keys, len(keys) - rank).view(keys.dtype)
        with np.errstate(divide="ignore"):
            return float(scores_of(np.asarray(key), logarithm=self._logarithm))

    def sets(
        self, rows: Numbers | RowReader, thresholds: float | FloatArray, u: FloatArray | None = None
    ) -> BoolArray:
        """Labels whose score is at most the threshold of their row: see :meth:`Score.sets`."""
        if np.ndim(thresholds) == 0:
            # One number for every cell: nothing to prepare for each row.
            return self.label_sets(rows, np.asarray(thresholds, dtype=np.float64), u)
        return super().sets(rows, thresholds, u)

    def _of_labels(self, block: Numbers, labels: IntArray, _u: FloatArray | None) -> FloatArray:
        return scores_of(self._keys(block)[np.arange(len(block)), labels], logarithm=self._logarithm)

    def _matrix(self, block: Numbers, _u: FloatArray | None, out: FloatArray) -> None:
        out[...] = scores_of(self._keys(block), logarithm=self._logarithm)

    def _sets(self, block: Numbers, limits: Limits, _u: FloatArray | None, out: BoolArray) -> None:
        self._label_sets(block, limits.of_rows((slice(None), None)), _u, out)

    def _label_sets(self, block: Numbers, limits: Limits, _u: FloatArray | None, out: BoolArray) -> None:
        keys = self._keys(block)
        np.greater_equal(keys, _round_up(limits.on_scale(logarithm=self._logarithm), keys.dtype), out=out)

    def _keys(self, block: Numbers) -> Numbers:
        if self.inputs != "logits":
            return block
        top, log_total = log_normaliser(np.sort(block, axis=1))
        return np.asarray((block - top) - log_total)

    def _keys_of_labels(self, rows: Numbers | RowReader, labels: IntArray) -> Numbers:
        """Copy the entry of one label a row, shape (n,)."""
        keys = np.empty(len(labels), array_of(rows).dtype)

        def work(part: Numbers, block: slice, _u: FloatArray | None) -> None:
            places = np.arange(0, part.size, part.shape[1])
            places += labels[block]
            # No place is outside, labels have been checked; with the default, keys would be written twice.
            part.ravel().take(places, out=keys[block], mode="wrap")

        # A place for each row.
        self._each_block(rows, None, work, -(-8 // array_of(rows).shape[1]))
        return keys

    @property
    def _logarithm(self) -> bool:
        return self.inputs == "probabilities"


def _round_up(values: FloatArray, dtype: np.dtype[np.floating]) -> Numbers:
    """Least numbers of a type that are not below these: what is compared with must not be rounded down."""
    rounded = np.asarray(values.astype(dtype))
    np.nextafter(rounded, dtype.type(np.inf), out=rounded, where=rounded < values)
    return rounded
