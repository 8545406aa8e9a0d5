"""Scores that depend on where a label stands among the sorted probabilities of its row.

Such a score is a *key* of the place, which rises from the least likely label to the likeliest.  Labels of
equal probability form one group with one key, so nothing depends on the order of the columns.  A set needs
no key of each label: the first place of the sorted row that is within the threshold says from which
probability on the labels are in the set.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, TypeVar

import numpy as np

from finetune.domain.checks import BoolArray, FloatArray, IntArray, Numbers
from finetune.domain.conformal.scores.base import Limits, Score, scores_of
from finetune.domain.conformal.scores.logarithms import sorted_logarithms
from finetune.domain.row_reader import signed_bits

# Below this, exp of a log-probability and the sums over it lose digits to subnormal numbers.
_DEEP = -690.0
_EVERY_ROW = slice(None)
_Table = TypeVar("_Table", FloatArray, Numbers)


class Ladder:
    """Sorted rows.

    Parameters
    ----------
    values
        Shape (n, K): ascending, as they came in.
    masses
        Shape (n, K): their probabilities, or the logarithms of these.
    deep
        Whether ``masses`` are logarithms.
    """

    def __init__(self, values: Numbers, masses: Numbers, *, deep: bool) -> None:
        self.values = values
        self.masses = masses
        self.deep = deep

    @cached_property
    def sums(self) -> FloatArray:
        """Mass, or its logarithm, of the 0, 1, ..., K least likely labels, shape (n, K + 1)."""
        n, k = self.values.shape
        if n > k and not self.deep:
            # Place by place for all rows at once: the additions of cumsum in half its time.
            columns = np.empty((k + 1, n))
            columns[0], columns[1:] = 0.0, self.masses.T
            for below, through in pairwise(columns):
                through += below
            return columns.T
        sums = np.empty((n, k + 1))
        if self.deep:
            sums[:, 0] = -np.inf
            np.logaddexp.accumulate(self.masses, axis=1, out=sums[:, 1:])
        else:
            sums[:, 0] = 0.0
            np.cumsum(self.masses, axis=1, dtype=np.float64, out=sums[:, 1:])
        return sums

    @property
    def n_labels(self) -> int:
        """K."""
        return int(self.values.shape[1])


@dataclass(frozen=True)
class LadderScore(Score):
    """A score that is a key of the place in the sorted row.

    Attributes
    ----------
    _logarithm
        Whether the score is -log key, with keys on the scale of probabilities, or else -key.
    _tells_deep_apart
        Whether rows with probabilities too small for floats get keys that are logarithms.
    _least
        Score of the likeliest labels in the deterministic form, the least there is: they are in every set.
        None: they have the score of their key.
    """

    _logarithm: ClassVar[bool] = False
    _tells_deep_apart: ClassVar[bool] = False
    _least: ClassVar[float | None] = None

    @abstractmethod
    def _place_keys(self, ladder: Ladder, u: FloatArray | None) -> FloatArray:
        """Keys of the places, shape (n, K) or (1, K), rising along the row.

        Without u, the key of a group that begins at this place.  With u, a bound: at most that key, and at
        least the key of a group that ends one place below.
        """

    @abstractmethod
    def _group_keys(
        self, ladder: Ladder, first: IntArray, last: IntArray, u: FloatArray | None
    ) -> FloatArray:
        """Keys of groups that begin and, where u is given, end at these places.

        The places have the shape (n, m), or (1, m) where they are the same in all rows, u the shape (n, 1).
        """

    def _of_labels(self, block: Numbers, labels: IntArray, u: FloatArray | None) -> FloatArray:
        own = block[np.arange(len(block)), labels][:, None]
        scores = np.empty(own.shape)
        for rows, ladder in self._ladders(self._ascending(block)):
            keys = self._group_keys(ladder, *_group_of(ladder.values, own[rows], u), _column(u, rows))
            scores[rows] = self._scores(ladder, keys, own[rows], u)
        return scores[:, 0]

    def _matrix(self, block: Numbers, u: FloatArray | None, out: FloatArray) -> None:
        for rows, ladder, keys in self._label_keys(block, u):
            out[rows] = self._scores(ladder, keys, block[rows], u)

    def _label_sets(self, block: Numbers, limits: Limits, u: FloatArray | None, out: BoolArray) -> None:
        for rows, ladder, keys in self._label_keys(block, u):
            inside = keys >= limits.on_scale(logarithm=self._logarithm and not ladder.deep)
            if self._least is not None and u is None:
                inside |= block[rows] == ladder.values[:, -1:]
                inside &= limits.threshold >= self._least
            out[rows] = inside

    def _sets(self, block: Numbers, limits: Limits, u: FloatArray | None, out: BoolArray) -> None:
        bars = np.empty((len(block), 1), dtype=block.dtype)
        for rows, ladder in self._ladders(self._ascending(block)):
            bars[rows] = self._bars(ladder, limits.of_rows(rows), _column(u, rows))
        np.greater_equal(block, bars, out=out)

    def _bars(self, ladder: Ladder, limits: Limits, u: FloatArray | None) -> Numbers:
        """Least value in the set of each row, shape (n, 1)."""
        values, thresholds = ladder.values, limits.threshold[:, None]
        cuts = limits.on_scale(logarithm=self._logarithm and not ladder.deep)[:, None]
        begin = _first(self._place_keys(ladder, u) >= cuts)
        # All that is greater than the value one place below is in the set, and its equals are not ...
        beaten = gather(values, np.maximum(begin - 1, 0))
        bars: Numbers = np.nextafter(beaten, np.array(np.inf, dtype=values.dtype))
        if u is not None:
            # ... unless the key of their group is within, of which the key of the place is but a bound.
            within = self._group_keys(ladder, *_group_of(values, beaten, u), u) >= cuts
            bars = np.where(within, beaten, bars)
        bars[begin == 0] = -np.inf
        if self._least is not None and u is None:
            bars = np.minimum(bars, values[:, -1:])
            bars[thresholds < self._least] = np.inf
        return bars

    def _label_keys(self, block: Numbers, u: FloatArray | None) -> Iterator[tuple[Any, Ladder, FloatArray]]:
        """Keys of the labels in the order of the columns."""
        order = np.argsort(block, axis=1)
        for rows, ladder in self._ladders(np.take_along_axis(block, order, axis=1)):
            places = order[rows]
            keys = np.empty(places.shape)
            in_order = self._group_keys(ladder, *_groups(ladder.values), _column(u, rows))
            np.put_along_axis(keys, places, in_order, axis=1)
            yield rows, ladder, keys

    def _ascending(self, block: Numbers) -> Numbers:
        """Sort each row."""
        ordered = block.copy()
        # A zero with a sign comes first among the bits, which is where zeros are.
        (signed_bits(ordered) if self.inputs == "probabilities" else ordered).sort(axis=1)
        return ordered

    def _ladders(self, ascending: Numbers) -> Iterator[tuple[Any, Ladder]]:
        """Rows whose probabilities can be added up as they are, and rows that need logarithms."""
        if self.inputs == "probabilities":
            if len(ascending) > ascending.shape[1]:
                # Place by place in memory, so that all rows take each step at once.
                ascending = np.asfortranarray(ascending)
            yield _EVERY_ROW, Ladder(ascending, ascending, deep=False)
            return
        logs = sorted_logarithms(ascending, self.inputs)
        deep = np.any((logs < _DEEP) & (logs > -np.inf), axis=1)
        if not (self._tells_deep_apart and deep.any()):
            yield _EVERY_ROW, Ladder(ascending, np.exp(logs), deep=False)
            return
        yield deep, Ladder(ascending[deep], logs[deep], deep=True)
        if not deep.all():
            yield ~deep, Ladder(ascending[~deep], np.exp(logs[~deep]), deep=False)

    def _scores(self, ladder: Ladder, keys: FloatArray, values: Numbers, u: FloatArray | None) -> FloatArray:
        scores = scores_of(keys, logarithm=self._logarithm and not ladder.deep)
        if self._least is None or u is not None:
            return scores
        # The maximum: a sum of all but the likeliest may round above 1.
        return np.where(values == ladder.values[:, -1:], self._least, np.maximum(scores, self._least))


def gather(table: _Table, places: IntArray) -> _Table:
    """Entries of each row at the given places of it; one row of places serves all rows."""
    if len(places) == 1:
        return table[:, places[0]]
    return table[np.arange(len(table))[:, None], places]


def _column(u: FloatArray | None, rows: Any) -> FloatArray | None:
    return None if u is None else u[rows, None]


def _first(mask: BoolArray) -> IntArray:
    """First place that is true, or K where none is, shape (n, 1); all places behind it are true."""
    k = mask.shape[1]
    small = np.uint8 if k < 256 else np.int64  # in one byte the sum takes a tenth of the time
    within: IntArray = mask.view(np.uint8).sum(axis=1, keepdims=True, dtype=small).astype(np.int64)
    return np.subtract(k, within)


def _group_of(ascending: Numbers, values: Numbers, u: FloatArray | None) -> tuple[IntArray, IntArray]:
    """Places where the equals of one value a row, shape (n, 1), begin and, where u needs it, end."""
    first = _first(ascending >= values)
    return first, first if u is None else _first(ascending > values) - 1


def _groups(ascending: Numbers) -> tuple[IntArray, IntArray]:
    """Places where the equals of each value begin and end, shape (n, K), or (1, K) where none are equal."""
    places = np.arange(ascending.shape[1])[None]
    equal = ascending[:, 1:] == ascending[:, :-1]
    if not equal.any():
        return places, places
    first, last = np.repeat(places, len(ascending), axis=0), np.repeat(places, len(ascending), axis=0)
    first[:, 1:][equal] = 0
    last[:, :-1][equal] = places[0, -1]
    return (
        np.maximum.accumulate(first, axis=1),
        np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1],
    )
