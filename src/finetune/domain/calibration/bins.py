"""Bins of probabilities: where they end, which one holds a value, and what is summed up in each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finetune.domain.checks import BoolArray, FloatArray, IntArray, Numbers
from finetune.domain.sums import Sums

BINNINGS = ("width", "mass")
# Few enough that a plain running sum over so many rows, as numpy.bincount makes it, keeps 12 digits.
_PART = 4096


def equal_width(n_bins: int) -> FloatArray:
    """Place the ends of bins of equal width, shape (n_bins + 1,).

    A division per edge, not linspace: 3 / 10 is the float that a user writes as 0.3.
    """
    return np.arange(n_bins + 1) / n_bins


def equal_mass(values: Numbers, n_bins: int) -> FloatArray:
    """Place the ends of bins that hold about equal numbers of these values; equal values share a bin."""
    ranks = -(-np.arange(1, n_bins) * len(values) // n_bins) - 1
    inner = np.sort(values)[np.maximum(ranks, 0)]
    return np.concatenate([[0.0], inner.astype(np.float64), [1.0]])


def bin_index(values: Numbers, edges: FloatArray) -> IntArray:
    """Index of the bin (a, b] that holds each value; 0.0 is in the first.

    The ends are rounded to the type of the values: 0.3 is in (0.2, 0.3] in single precision too.
    """
    ends = edges.astype(values.dtype, copy=False)
    n_bins = len(edges) - 1
    if not np.array_equal(edges, equal_width(n_bins)):
        return np.searchsorted(ends[1:-1], values, side="left").astype(np.int64, copy=False)
    # A product, and a step back from ends that belong to the bin below, take a third of the time of a search.
    index = (values * values.dtype.type(n_bins)).astype(np.int64)
    index -= values <= ends.take(index)
    return np.maximum(index, 0, out=index)


@dataclass(frozen=True)
class BinSums:
    """Sums per event and bin, which grow in place with every block of rows.

    A row has one event, or one for each label.

    Parameters
    ----------
    counts, hits
        Shape (n_events, n_bins): rows, and rows whose event happened.
    sums
        Shape (3, n_events, n_bins): the sum of the probabilities, of their squares, and of those whose
        event happened.
    """

    counts: IntArray
    hits: IntArray
    sums: Sums

    @classmethod
    def empty(cls, n_events: int, n_bins: int) -> BinSums:
        """Start with no rows."""
        shape = (n_events, n_bins)
        return cls(np.zeros(shape, np.int64), np.zeros(shape, np.int64), Sums((3, *shape)))

    def add_events(self, p: Numbers, happened: BoolArray, edges: FloatArray) -> None:
        """Add rows of the only event: probabilities and whether it happened, shape (m,)."""
        size, weights = self.counts.size, p.astype(np.float64)
        # A part of the rows for each part of the cells, and in it the rows whose event did not happen first.
        parts = -(-len(p) // _PART)
        cells = bin_index(p, edges)
        cells += size * happened
        for part in range(1, parts):
            cells[part * _PART : (part + 1) * _PART] += 2 * size * part
        shape = (parts, 2, 1, size)
        counts = np.bincount(cells, minlength=2 * size * parts).reshape(shape).sum(axis=0)
        sums = np.bincount(cells, weights=weights, minlength=2 * size * parts).reshape(shape).sum(axis=0)
        weights *= weights
        squares = np.bincount(cells, weights=weights, minlength=2 * size * parts)
        self.counts[...] += counts[0] + counts[1]
        self.hits[...] += counts[1]
        self.sums.add(np.array([sums[0] + sums[1], squares.reshape(shape).sum(axis=(0, 1)), sums[1]]))

    def add_rows(self, rows: Numbers, labels: IntArray, edges: FloatArray) -> None:
        """Add rows over labels, shape (m, K), with ends of bins of shape (n_bins + 1,) or (K, n_bins + 1)."""
        cells = label_cells(rows, edges)
        true = np.arange(len(rows)) * rows.shape[1] + labels
        p = np.minimum(rows, 1.0).astype(np.float64, copy=False)
        cells, p = cells.ravel(), p.ravel()
        shape, size = self.counts.shape, self.counts.size
        self.counts[...] += np.bincount(cells, minlength=size).reshape(shape)
        self.hits[...] += np.bincount(cells[true], minlength=size).reshape(shape)
        sums = (
            np.bincount(cells, weights=p, minlength=size),
            np.bincount(cells, weights=p * p, minlength=size),
            np.bincount(cells[true], weights=p[true], minlength=size),
        )
        self.sums.add(np.reshape(sums, (3, *shape)))


def label_cells(rows: Numbers, edges: FloatArray) -> IntArray:
    """Find the cell, label * n_bins + bin, of each probability of rows over labels; shape (m, K)."""
    n_labels, n_bins = rows.shape[1], edges.shape[-1] - 1
    if edges.ndim == 1:
        index = bin_index(rows, edges)
    else:
        index = np.column_stack([bin_index(rows[:, k], edges[k]) for k in range(n_labels)])
    return np.asarray(index + n_bins * np.arange(n_labels))
