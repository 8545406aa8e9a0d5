"""What every score offers, and how scores, thresholds and the keys that are compared belong together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import BoolArray, FloatArray, IntArray, Numbers
from finetune.domain.probabilities import row_blocks

_BLOCK_CELLS = 1 << 15
# -log of a float above 0 is at most this.
_DEEPEST = 746
_INFINITY = int(np.float64(np.inf).view(np.int64))


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
        return cls(threshold, _least_probability(np.atleast_1d(threshold)).reshape(threshold.shape))

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

    Rows are what ``checked_rows(values, inputs=score.inputs)`` returned, labels what ``as_labels`` did, u one
    uniform number in [0, 1) a row, shared by its labels, or None for the deterministic form.  All methods
    go through the rows in blocks and need little memory beside what they return.

    Parameters
    ----------
    inputs
        What the rows are: ``"probabilities"``, ``"log_probabilities"`` or ``"logits"``.
    """

    inputs: str = "probabilities"

    method: ClassVar[str]
    randomisable: ClassVar[bool] = False

    @property
    def options(self) -> dict[str, float]:
        """Options of the method by name, ready for JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "inputs"}

    def of_labels(self, rows: Numbers, labels: IntArray, u: FloatArray | None = None) -> FloatArray:
        """Score of one label a row, shape (n,): finite or +inf."""
        scores = np.empty(len(rows))

        def work(block: slice, part: FloatArray | None) -> None:
            scores[block] = self._of_labels(rows[block], labels[block], part)

        _each_block(rows, u, work)
        return scores

    def matrix(self, rows: Numbers, u: FloatArray | None = None) -> FloatArray:
        """Score of every label, shape (n, K)."""
        scores = np.empty(rows.shape)
        _each_block(rows, u, lambda block, part: self._matrix(rows[block], part, scores[block]))
        return scores

    def sets(self, rows: Numbers, thresholds: float | FloatArray, u: FloatArray | None = None) -> BoolArray:
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
        inside = np.empty(rows.shape, dtype=np.bool_)
        of_rows = np.broadcast_to(thresholds, len(rows))
        one = Limits.of(thresholds) if np.ndim(thresholds) == 0 else None

        def work(block: slice, part: FloatArray | None) -> None:
            limits = Limits.of(of_rows[block]) if one is None else one.of_all(len(rows[block]))
            self._sets(rows[block], limits, part, inside[block])

        _each_block(rows, u, work)
        return inside

    def label_sets(self, rows: Numbers, thresholds: FloatArray, u: FloatArray | None = None) -> BoolArray:
        """Labels whose score is at most the threshold of the label, shape (K,): see :meth:`sets`."""
        inside = np.empty(rows.shape, dtype=np.bool_)
        limits = Limits.of(thresholds)
        _each_block(rows, u, lambda block, part: self._label_sets(rows[block], limits, part, inside[block]))
        return inside

    @abstractmethod
    def _of_labels(self, block: Numbers, labels: IntArray, u: FloatArray | None) -> FloatArray: ...

    @abstractmethod
    def _matrix(self, block: Numbers, u: FloatArray | None, out: FloatArray) -> None: ...

    @abstractmethod
    def _sets(self, block: Numbers, limits: Limits, u: FloatArray | None, out: BoolArray) -> None: ...

    @abstractmethod
    def _label_sets(self, block: Numbers, limits: Limits, u: FloatArray | None, out: BoolArray) -> None: ...


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


def _each_block(
    rows: Numbers, u: FloatArray | None, work: Callable[[slice, FloatArray | None], None]
) -> None:
    # Infinite scores and sums that underflow are meant, whatever the caller's numpy settings say.
    with np.errstate(all="ignore"):
        for block in row_blocks(rows, _BLOCK_CELLS):
            work(block, None if u is None else u[block])
