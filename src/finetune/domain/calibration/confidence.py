"""What a model claims in each row, and whether it came true, block by block."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import (
    BoolArray,
    FloatArray,
    IntArray,
    Numbers,
    as_array,
    as_flags,
    as_labels,
    as_numbers,
    reject_first,
    sum_tolerance,
)
from finetune.domain.errors import InvalidInput
from finetune.domain.probabilities import checked_rows
from finetune.domain.row_reader import Peaks, open_rows, row_blocks

_BLOCK_CELLS = 1 << 18
# Few enough that a plain running sum over one block, as numpy.bincount makes it, keeps 12 digits.
_BLOCK_ROWS = 4096
_EVENT_ROWS = 4 * _BLOCK_ROWS
# Entries of a block whose peaks are read: it may be copied.
_PEAK_CELLS = 1 << 19
# Half of the largest sum that a row may have by the rounding of its type.
_HALF = 0.51


def confidence_and_hits(y_prob: npt.ArrayLike, y_true: npt.ArrayLike) -> tuple[FloatArray, BoolArray]:
    """Confidence of the predicted event in each row, and whether it happened.

    Parameters
    ----------
    y_prob
        Shape (n, K): the confidence is the probability of the most likely label (the first one on a tie),
        as it stands: a row that is off 1 by the rounding of its type is not scaled.
        Shape (n,): the probability that y = 1, which is the confidence of that event.
    y_true
        Shape (n,): label indices; for the second form bool, or 0 and 1.

    Returns
    -------
    tuple of arrays
        Shapes (n,) and (n,).

    Raises
    ------
    InvalidInput
        If the input is not as above.

    Examples
    --------
    >>> confidence_and_hits([[0.2, 0.8], [0.7, 0.3]], [1, 1])
    (array([0.8, 0.7]), array([ True, False]))
    """
    confidence, hits = joined_confidence(y_prob, y_true)
    return confidence.astype(np.float64, copy=False), hits


def joined_confidence(y_prob: npt.ArrayLike, y_true: npt.ArrayLike) -> tuple[Numbers, BoolArray]:
    """Join the blocks of :func:`confidence_blocks`, in the precision of the input."""
    confidence, hits = zip(*confidence_blocks(y_prob, y_true), strict=True)
    return np.concatenate(confidence), np.concatenate(hits)


def confidence_blocks(y_prob: npt.ArrayLike, y_true: npt.ArrayLike) -> Iterator[tuple[Numbers, BoolArray]]:
    """Yield the confidences and hits of some thousand rows at a time; all rows are checked before."""
    array = as_array(y_prob, "y_prob")
    if array.ndim == 1:
        events = checked_events(array, name="y_prob")
        flags = as_flags(y_true, n_rows=len(events), name="y_true")
        for block in event_blocks(len(events)):
            yield events[block], flags[block]
        return
    reader = open_rows(y_prob, name="y_prob")
    n, n_labels = reader.rows.shape
    labels = as_labels(y_true, n_rows=n, n_labels=n_labels, name="y_true")
    confidence, hits = np.empty(n, reader.rows.dtype), np.empty(n, np.bool_)
    for block in row_blocks(reader.rows, bytes_made=3, most_cells=_PEAK_CELLS):
        peaks = reader.read_peaks(block)
        confidence[block] = peaks.maxima
        hits[block] = _predicted(peaks, labels[block])
    np.minimum(confidence, 1.0, out=confidence)
    for block in event_blocks(n):
        yield confidence[block], hits[block]


def _predicted(peaks: Peaks, labels: IntArray) -> BoolArray:
    """Whether the label of each row is the predicted one: the first that has the maximum."""
    rows, maxima, unique = peaks
    hits: BoolArray = rows.ravel().take(np.arange(0, rows.size, rows.shape[1]) + labels) == maxima
    if not unique:
        # Only half of the mass or less can be the maximum of two labels.
        unsure = np.flatnonzero(hits & (maxima <= _HALF))
        hits[unsure] = rows.take(unsure, axis=0).argmax(axis=1) == labels[unsure]
    return hits


def checked_pair(
    y_prob: npt.ArrayLike, y_true: npt.ArrayLike, *, inputs: str = "probabilities"
) -> tuple[Numbers, IntArray]:
    """Check rows over labels, which keep their precision, and the true labels."""
    rows = checked_rows(y_prob, inputs=inputs, name="y_prob")
    return rows, as_labels(y_true, n_rows=len(rows), n_labels=rows.shape[1], name="y_true")


def claimed_confidence(y_prob: npt.ArrayLike) -> Numbers:
    """Confidences alone, in the precision of the input, where there are no true labels; shape (n,)."""
    array = as_array(y_prob, "y_prob")
    if array.ndim == 1:
        return checked_events(array, name="y_prob")
    reader = open_rows(y_prob, name="y_prob")
    largest = np.empty(len(reader.rows), reader.rows.dtype)
    for block in row_blocks(reader.rows, bytes_made=3, most_cells=_PEAK_CELLS):
        np.minimum(reader.read_peaks(block).maxima, 1.0, out=largest[block])
    return largest


def checked_events(values: npt.ArrayLike, *, name: str) -> Numbers:
    """Check probabilities of one event a row, and return them in their own precision, shape (n,).

    As :func:`~finetune.domain.probabilities.checked_rows` does for rows over labels; what is above 1 by
    rounding in its type is 1.
    """
    array = as_numbers(values, name)
    if array.ndim != 1 or array.size == 0:
        raise InvalidInput(
            f"{name} must have the shape (rows,) with at least one row",
            seen=array.shape,
            remedy="pass one probability per row",
        )
    kept = np.float32 if array.dtype.kind not in "iu" and array.dtype.itemsize <= 4 else np.float64
    with np.errstate(over="ignore", invalid="ignore"):
        events: Numbers = np.asarray(array, dtype=kept)
    high = 1.0 + sum_tolerance(array)
    for block in event_blocks(len(events)):
        part = events[block]
        reject_first(
            ~((part >= 0.0) & (part <= high)),
            part,
            name=name,
            start=block.start,
            what="the value is not a number in [0, 1]",
            remedy="correct the value or drop the row",
        )
    return np.minimum(events, 1.0) if events.max() > 1.0 else events


def blocks(n_rows: int, n_columns: int) -> Iterator[slice]:
    """Slices of rows whose temporary arrays stay in the processor's cache."""
    step = max(1, min(_BLOCK_ROWS, _BLOCK_CELLS // n_columns))
    return (slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step))


def event_blocks(n_rows: int) -> Iterator[slice]:
    """Slices of rows of which few numbers each are computed, half of the rows at most unless they are few."""
    step = max(_BLOCK_ROWS, min(-(-n_rows // 2), _EVENT_ROWS))
    return (slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step))
