"""What all objectives do with their rows and options before they compute."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import FloatArray, IntArray, as_labels, is_number
from finetune.domain.errors import InvalidInput
from finetune.domain.probabilities import as_rows

LOWEST = -1e4
"""Smaller log-probabilities count as this one: losses and gradients are finite, and 0 log 0 is 0."""


def floored_rows(log_probabilities: npt.ArrayLike) -> FloatArray:
    """Check log-probabilities, shape (n, K), and lift them to `LOWEST`."""
    rows = as_rows(log_probabilities, inputs="log_probabilities", name="log_probabilities")
    return np.maximum(rows, LOWEST)


def checked_pair(log_probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[FloatArray, IntArray]:
    """Check rows and their labels."""
    rows = floored_rows(log_probabilities)
    return rows, as_labels(labels, n_rows=len(rows), n_labels=rows.shape[1])


def of_label(rows: FloatArray, labels: IntArray) -> FloatArray:
    """Return the entry of each row that belongs to its label, shape (n,)."""
    return np.asarray(rows[np.arange(len(rows)), labels])


def as_option(value: object, *, name: str, high: float) -> float:
    """Check a number from 0 to `high`.

    Examples
    --------
    >>> as_option(-1, name="gamma", high=100.0)
    Traceback (most recent call last):
    ...
    finetune.domain.errors.InvalidInput: gamma must be a number from 0 to 100 (seen: -1).
    What to do: pass one in that range.
    """
    if is_number(value) and 0.0 <= value <= high:
        return float(value)
    raise InvalidInput(
        f"{name} must be a number from 0 to {high:g}", seen=value, remedy="pass one in that range"
    )
