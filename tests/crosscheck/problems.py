"""Random problems, and what it means to agree."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Problem(NamedTuple):
    """Rows over labels with the labels that happened, cut into calibration rows and new ones."""

    rows: Array
    labels: Array
    n_cal: int

    @property
    def cal(self) -> tuple[Array, Array]:
        return self.rows[: self.n_cal], self.labels[: self.n_cal]

    @property
    def new(self) -> tuple[Array, Array]:
        return self.rows[self.n_cal :], self.labels[self.n_cal :]


def logits_problem(
    seed: int, n_cal: int = 300, n_new: int = 400, n_labels: int = 6, sharpness: float = 1.5
) -> Problem:
    """Logits of a model that is surer than it should be."""
    rng = np.random.default_rng([seed, n_cal, n_new, n_labels])
    logits = 2.0 * rng.normal(size=(n_cal + n_new, n_labels))
    truth = softmax(logits).cumsum(axis=1) > rng.random((len(logits), 1))
    truth[:, -1] = True
    return Problem(sharpness * logits, truth.argmax(axis=1), n_cal)


def problem(seed: int, n_cal: int = 300, n_new: int = 400, n_labels: int = 6, dtype: Any = float) -> Problem:
    """Probabilities of such a model, where it is sure; where it is not, it is less sure than it should be."""
    logits, labels, n_cal = logits_problem(seed, n_cal, n_new, n_labels)
    rows = softmax(logits)
    unsure = rows.max(axis=1, keepdims=True) < 0.7
    return Problem(np.where(unsure, (rows + 1.0 / n_labels) / 2.0, rows).astype(dtype), labels, n_cal)


def binary_problem(seed: int, n: int = 500) -> tuple[Array, Array]:
    """Probabilities of one event, without 0 and 1, and whether it happened."""
    rng = np.random.default_rng(seed)
    p = rng.beta(0.8, 1.2, size=n)
    return p, (rng.random(n) < 0.8 * p + 0.1).astype(int)


def softmax(logits: Array) -> Array:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def differences_off_the_edge(ours: Array, theirs: Array, distance: Array, rounding: float) -> int:
    """Entries that differ though their distance from the threshold is more than rounding."""
    return int(((np.asarray(ours) != np.asarray(theirs).astype(bool)) & (np.abs(distance) > rounding)).sum())
