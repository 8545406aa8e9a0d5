"""Clusters of labels whose scores are distributed alike."""

from __future__ import annotations

import numpy as np

from finetune.domain.checks import FloatArray, IntArray

_LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9)
_RESTARTS = 10
_ITERATIONS = 300


def cluster_labels(
    scores: FloatArray,
    labels: IntArray,
    frequent: IntArray,
    alpha: float,
    n_clusters: int,
    rng: np.random.Generator,
) -> IntArray:
    """Join labels by the quantiles of their scores.

    Parameters
    ----------
    scores, labels
        Shape (n,): rows that are used for nothing else.
    frequent
        Shape (m,): the labels to join, each with at least one row.
    alpha
        Level at which the tail counts, in (0, 1).
    n_clusters
        In [1, m].
    rng
        Source of the starting points.

    Returns
    -------
    IntArray
        Shape (m,): cluster of each label, numbered from 0 without gaps.

    References
    ----------
    Ding, Angelopoulos, Bates, Jordan, Tibshirani (2023). Class-conditional conformal prediction with many
    classes. NeurIPS, sec. 2.2.  There the quantiles are those of the scores; here those of their ranks among
    all, which do not depend on the scale of the score and are finite.
    """
    ranks = np.searchsorted(np.sort(scores), scores, side="right") / len(scores)
    levels = sorted({*_LEVELS, 1.0 - alpha})
    points = np.array([np.quantile(ranks[labels == label], levels) for label in frequent])
    counts = np.bincount(labels)[frequent]
    return weighted_k_means(points, np.sqrt(counts), n_clusters, rng)


def weighted_k_means(
    points: FloatArray, weights: FloatArray, n_clusters: int, rng: np.random.Generator
) -> IntArray:
    """Clusters with the least weighted sum of squared distances to their means, of ten starts.

    Own code, because that of scipy takes no weights.

    Parameters
    ----------
    points
        Shape (m, d).
    weights
        Shape (m,), > 0.
    n_clusters
        In [1, m].  Fewer are returned where fewer points are distinct.
    rng
        Source of the starting points.

    Returns
    -------
    IntArray
        Shape (m,), numbered from 0 without gaps.

    References
    ----------
    Arthur and Vassilvitskii (2007). k-means++: the advantages of careful seeding. SODA.

    Examples
    --------
    >>> points = np.array([[0.0], [0.1], [5.0], [5.1]])
    >>> clusters = weighted_k_means(points, np.ones(4), 2, np.random.default_rng(0))
    >>> bool(clusters[0] == clusters[1] != clusters[2] == clusters[3])
    True
    """
    best, least = np.zeros(len(points), dtype=np.int64), np.inf
    for _ in range(_RESTARTS):
        clusters = _settle(points, weights, _seeds(points, weights, n_clusters, rng))
        spread = float(weights @ _distances(points, _means(points, weights, clusters)).min(axis=1))
        if spread < least:
            best, least = clusters, spread
    return best


def _seeds(points: FloatArray, weights: FloatArray, n_clusters: int, rng: np.random.Generator) -> FloatArray:
    """Points drawn one after the other, by weight times the squared distance to those already drawn."""
    chosen = [rng.choice(len(points), p=weights / weights.sum())]
    while len(chosen) < n_clusters:
        mass = weights * _distances(points, points[chosen]).min(axis=1)
        if mass.sum() == 0.0:
            break
        chosen.append(rng.choice(len(points), p=mass / mass.sum()))
    return points[chosen]


def _settle(points: FloatArray, weights: FloatArray, centres: FloatArray) -> IntArray:
    clusters = np.full(len(points), -1)
    for _ in range(_ITERATIONS):
        nearest = np.unique(_distances(points, centres).argmin(axis=1), return_inverse=True)[1]
        if (nearest == clusters).all():
            break
        clusters = nearest
        centres = _means(points, weights, clusters)
    return clusters


def _means(points: FloatArray, weights: FloatArray, clusters: IntArray) -> FloatArray:
    sums = np.zeros((int(clusters.max()) + 1, points.shape[1]))
    np.add.at(sums, clusters, weights[:, None] * points)
    return sums / np.bincount(clusters, weights=weights)[:, None]


def _distances(points: FloatArray, centres: FloatArray) -> FloatArray:
    """Squared distances, shape (m, number of centres)."""
    return np.asarray(((points[:, None, :] - centres) ** 2).sum(axis=2))
