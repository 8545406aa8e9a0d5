"""Simulated cases whose true label probabilities are known."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Cases(NamedTuple):
    """Logits of a model, shape (n, K), the true labels, and how hard each case is, shape (n,).

    ``difficulty`` is the probability that the likeliest label is wrong.
    """

    logits: Floats
    labels: Ints
    difficulty: Floats


def softmax(logits: Floats) -> Floats:
    """Probabilities of the labels."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def drawn_labels(rng: np.random.Generator, probabilities: Floats) -> Ints:
    """One label a row, from its probabilities."""
    below = probabilities.cumsum(axis=1) < rng.random((len(probabilities), 1))
    return np.minimum(below.sum(axis=1), probabilities.shape[1] - 1).astype(np.int64)


def mixed_cases(
    rng: np.random.Generator, n: int, n_labels: int = 10, *, sharpness: float = 1.0, noise: float = 0.0
) -> Cases:
    """Easy and hard cases mixed; the model's logits are the true ones times ``sharpness``, plus noise."""
    spread = rng.uniform(0.5, 5.0, size=(n, 1))
    true_logits = spread * rng.normal(size=(n, n_labels))
    probabilities = softmax(true_logits)
    labels = drawn_labels(rng, probabilities)
    logits = sharpness * true_logits + noise * rng.normal(size=(n, n_labels))
    return Cases(logits, labels, 1.0 - probabilities.max(axis=1))


def noisy_tail(rng: np.random.Generator, n: int, n_labels: int = 100, *, mass: float) -> Cases:
    """One to six possible labels a case; up to ``mass`` of the probability lies on others, by chance."""
    possible = np.arange(n_labels) < rng.integers(1, 7, size=(n, 1))
    weights = np.where(possible, rng.gamma(1.0, size=(n, n_labels)), 0.0)
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    labels = drawn_labels(rng, probabilities)
    tail = rng.uniform(0.0, mass, size=(n, 1)) * rng.dirichlet(np.full(n_labels, 0.5), size=n)
    claimed = (1.0 - tail.sum(axis=1, keepdims=True)) * probabilities + tail
    return Cases(np.log(claimed + 1e-12), labels, 1.0 - probabilities.max(axis=1))


def fifths(values: Floats) -> list[Bools]:
    """Rows from the lowest fifth of the values to the highest."""
    rank = np.empty(len(values), dtype=np.int64)
    rank[np.argsort(values, kind="stable")] = np.arange(len(values))
    return [rank * 5 // len(values) == part for part in range(5)]
