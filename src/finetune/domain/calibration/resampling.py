"""Draws of what a sample's bins would hold: rows drawn again, or labels drawn from the model's own claims."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.domain.calibration.bin_errors import BINNED_ERRORS, BinTotals
from finetune.domain.calibration.bins import bin_index, equal_mass, equal_width, label_cells
from finetune.domain.calibration.classwise import mass_edges
from finetune.domain.calibration.confidence import blocks
from finetune.domain.checks import BoolArray, FloatArray, IntArray, Numbers
from finetune.domain.errors import InsufficientData

GRID = 1 << 10
# Up to here each row is drawn by itself; above, rows of the same bin, outcome and grid point are one group.
_SINGLE_ROWS = 1 << 15


def values_of(errors: Sequence[str], draws: Iterable[BinTotals]) -> FloatArray:
    """Values of each error on each of the draws, shape (len(errors), number of draws)."""
    functions = [BINNED_ERRORS[error].of for error in errors]
    values = np.array([[of(totals) for of in functions] for totals in draws]).T
    for error, of_error in zip(errors, values, strict=True):
        if np.isnan(of_error).any():
            raise InsufficientData(
                f"the error {error!r} is not estimable on a draw of the rows: no bin has two of them",
                remedy="collect more rows, or use fewer bins",
            )
    return values


class EventDraws:
    """Draws for one event a row.

    Parameters
    ----------
    confidences
        Shape (n,).
    hits
        Shape (n,); None: only labels are drawn.
    events, n_bins, binning
        Which bins; for the events ``"grid"`` the fine grid of the smooth error.  Ends of equal mass stay
        where they are.

    Notes
    -----
    More than 32768 rows are put into groups first, which stand for rows of the same bin and outcome and of
    confidences that differ by at most 1/1024; how many rows of each group are drawn is multinomial (of
    hits, binomial).  What is lost is the spread of the confidences within a group.
    """

    def __init__(
        self, confidences: Numbers, hits: BoolArray | None, events: str, n_bins: int, binning: str
    ) -> None:
        confidence: FloatArray = confidences.astype(np.float64, copy=False)
        nodes = np.rint(confidence * GRID).astype(np.int64)
        self._size = n_bins
        if events == "grid":
            self._size, index = GRID + 1, nodes
        else:  # in the precision of the input: its values may lie on the ends of the bins
            edges = equal_mass(confidences, n_bins) if binning == "mass" else equal_width(n_bins)
            index = bin_index(confidences, edges)
        came_true = np.zeros(len(confidence), np.int64) if hits is None else hits.astype(np.int64)
        self._rows = np.ones(len(confidence), np.int64)
        self._single = len(confidence) <= _SINGLE_ROWS
        if not self._single:
            key = (index * (GRID + 1) + nodes) * 2 + came_true
            _, first, group = np.unique(key, return_index=True, return_inverse=True)
            self._rows = np.bincount(group)
            confidence = np.minimum(np.bincount(group, weights=confidence) / self._rows, 1.0)
            index, came_true = index[first], came_true[first]
        self._confidence, self._index, self._hits = confidence, index, came_true

    def bootstrap(self, rng: np.random.Generator, n_resamples: int) -> Iterator[BinTotals]:
        """Yield totals of as many rows, drawn with replacement."""
        n = int(self._rows.sum())
        for _ in range(n_resamples):
            if self._single:
                drawn = np.bincount(rng.integers(n, size=n), minlength=n)
            else:
                drawn = rng.multinomial(n, self._rows / n)
            yield self._totals(drawn, drawn * self._hits)

    def null(self, rng: np.random.Generator, n_resamples: int) -> Iterator[BinTotals]:
        """Yield totals of the same rows, with hits drawn from their confidences."""
        fixed = self._totals(self._rows, self._rows)
        for _ in range(n_resamples):
            if self._single:
                hits = self._sum(rng.random(len(self._rows)) < self._confidence)
            else:
                hits = self._sum(rng.binomial(self._rows, self._confidence))
            yield fixed._replace(hits=hits)

    def _totals(self, rows: IntArray, hits: IntArray) -> BinTotals:
        return BinTotals(self._sum(rows), self._sum(hits), self._sum(rows * self._confidence))

    def _sum(self, values: npt.NDArray[Any]) -> FloatArray:
        sums = np.bincount(self._index, weights=values, minlength=self._size)
        return sums.astype(np.float64, copy=False)[None]


class LabelDraws:
    """Draws for rows over labels: a row carries all of its labels along.

    Parameters
    ----------
    rows
        Shape (n, K).
    labels
        Shape (n,); None: only labels are drawn.
    n_bins, binning
        Bins of each label; ends of equal mass stay where they are.
    """

    def __init__(self, rows: Numbers, labels: IntArray | None, n_bins: int, binning: str) -> None:
        self._edges = equal_width(n_bins) if binning == "width" else mass_edges(rows, n_bins)
        self._rows = rows
        self._labels = np.zeros(len(rows), np.int64) if labels is None else labels
        self._shape = (rows.shape[1], n_bins)

    def bootstrap(self, rng: np.random.Generator, n_resamples: int) -> Iterator[BinTotals]:
        """Yield totals of as many rows, drawn with replacement."""
        n, n_labels = self._rows.shape
        slices = list(blocks(n, n_labels))
        cells = [self._cells(block) for block in slices]
        for _ in range(n_resamples):
            drawn = np.bincount(rng.integers(n, size=n), minlength=n)
            totals = np.zeros((3, *self._shape))
            for block, of_block in zip(slices, cells, strict=True):
                weights = drawn[block]
                true = of_block[np.arange(len(weights)), self._labels[block]]
                totals[0] += self._sum(of_block, np.repeat(weights, n_labels))
                totals[1] += self._sum(true, weights)
                totals[2] += self._sum(of_block, (weights[:, None] * self._rows[block]).ravel())
            yield BinTotals(*totals)

    def null(self, rng: np.random.Generator, n_resamples: int) -> Iterator[BinTotals]:
        """Yield totals of the same rows, with labels drawn from them."""
        counts, confidence = np.zeros(self._shape), np.zeros(self._shape)
        hits = np.zeros((n_resamples, *self._shape))
        # Block by block, not draw by draw: what a block needs is computed once.
        for block in blocks(*self._rows.shape):
            cells, p = self._cells(block), self._rows[block].astype(np.float64)
            counts += self._sum(cells, np.ones(cells.size))
            confidence += self._sum(cells, p.ravel())
            upto = p.cumsum(axis=1)
            # One ascending vector: row i runs from i to i + 1.
            ends = (upto / upto[:, -1:] + np.arange(len(p))[:, None]).ravel()
            last = (np.arange(len(p)) + 1) * p.shape[1] - 1
            for of_draw in hits:
                places = np.searchsorted(ends, np.arange(len(p)) + rng.random(len(p)), side="right")
                true = cells.ravel()[np.minimum(places, last)]
                of_draw += self._sum(true, np.ones(len(true)))
        return (BinTotals(counts, of_draw, confidence) for of_draw in hits)

    def _cells(self, block: slice) -> npt.NDArray[np.int32]:
        return label_cells(self._rows[block], self._edges).astype(np.int32)

    def _sum(self, cells: npt.NDArray[np.int32], weights: npt.NDArray[Any]) -> FloatArray:
        size = self._shape[0] * self._shape[1]
        sums = np.bincount(cells.ravel(), weights=weights, minlength=size)
        return sums.astype(np.float64, copy=False).reshape(self._shape)
