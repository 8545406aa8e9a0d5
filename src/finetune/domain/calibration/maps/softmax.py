"""Multinomial logistic losses with a quadratic penalty, in the form that Newton's method needs.

Each is the mean over rows of -log softmax(eta)[y], with scores eta that are linear in the parameters theta,
plus sum(ridge * (theta - centre)^2) / 2.  A positive ridge makes the optimum exist and be the only one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from finetune.domain.calibration.maps.newton import Expansion, Linear, solve_by_products, solve_dense
from finetune.domain.checks import FloatArray, IntArray
from finetune.domain.row_reader import row_blocks

# Above this many parameters the Hessian is applied, not built: it has their square of entries.
_DENSE = 300


@dataclass(frozen=True)
class Penalty:
    """The quadratic part: sum(ridge * (theta - centre)^2) / 2; both of the shape of theta."""

    ridge: FloatArray
    centre: FloatArray

    def value(self, theta: FloatArray) -> float:
        """Value at ``theta``."""
        return 0.5 * float(self.ridge @ (theta - self.centre) ** 2)

    def gradient(self, theta: FloatArray) -> FloatArray:
        """Gradient at ``theta``."""
        return self.ridge * (theta - self.centre)


@dataclass(frozen=True)
class OwnFeatureLoss:
    """Loss of eta_k = w_k z_k + b_k, theta = (w, b); a label at -inf stays at -inf in its row.

    An expansion costs O(n K^2) operations for the Hessian and O(K^3) to solve with it.
    """

    features: FloatArray
    truth: IntArray
    penalty: Penalty

    def value(self, theta: FloatArray) -> float:
        """Value at ``theta``."""
        total = sum(_losses(scores, self.truth[block]) for block, _, scores in self._scores(theta))
        return total / len(self.truth) + self.penalty.value(theta)

    def expand(self, theta: FloatArray) -> Expansion:
        """Return gradient and solver at ``theta``."""
        k = self.features.shape[1]
        gradient, hessian = np.zeros(2 * k), np.zeros((2 * k, 2 * k))
        own = np.zeros((3, k))
        for block, z, scores in self._scores(theta):
            p = _softmax(scores)
            weighted = np.hstack([p * z, p])
            hessian -= weighted.T @ weighted
            own += [(weighted[:, :k] * z).sum(axis=0), weighted[:, :k].sum(axis=0), p.sum(axis=0)]
            p[np.arange(len(p)), self.truth[block]] -= 1.0
            gradient += np.concatenate([(p * z).sum(axis=0), p.sum(axis=0)])
        w, b = np.arange(k), np.arange(k, 2 * k)
        hessian[w, w] += own[0]
        hessian[w, b] += own[1]
        hessian[b, w] += own[1]
        hessian[b, b] += own[2]
        n = len(self.truth)
        hessian = hessian / n + np.diag(self.penalty.ridge)
        return Expansion(gradient / n + self.penalty.gradient(theta), solve_dense(hessian))

    def _scores(self, theta: FloatArray) -> Iterator[tuple[slice, FloatArray, FloatArray]]:
        weights, intercepts = np.split(theta, 2)
        for block in row_blocks(self.features):
            z = self.features[block]
            excluded = np.isneginf(z)
            z = np.where(excluded, 0.0, z)
            yield block, z, np.where(excluded, -np.inf, z * weights + intercepts)


@dataclass(frozen=True)
class SharedFeatureLoss:
    """Loss of eta_k = sum_j w_kj x_j, theta = w row by row; the last feature is the constant 1.

    An expansion costs O(n K^4) operations up to 300 parameters; above that, a step costs O(n K^2) for each of
    the tens to hundreds of products with the Hessian, and memory for as many numbers as the features have.
    """

    features: FloatArray
    truth: IntArray
    penalty: Penalty

    def value(self, theta: FloatArray) -> float:
        """Value at ``theta``."""
        weights = self._weights(theta)
        blocks = row_blocks(self.features)
        total = sum(_losses(self.features[block] @ weights.T, self.truth[block]) for block in blocks)
        return total / len(self.truth) + self.penalty.value(theta)

    def expand(self, theta: FloatArray) -> Expansion:
        """Return gradient and solver at ``theta``."""
        weights, n = self._weights(theta), len(self.truth)
        p = np.empty((n, len(weights)))
        gradient = np.zeros_like(weights)
        for block in row_blocks(self.features):
            x = self.features[block]
            p[block] = _softmax(x @ weights.T)
            residual = p[block].copy()
            residual[np.arange(len(x)), self.truth[block]] -= 1.0
            gradient += residual.T @ x
        solve = self._dense(p) if theta.size <= _DENSE else self._products(p)
        return Expansion(gradient.ravel() / n + self.penalty.gradient(theta), solve)

    def _weights(self, theta: FloatArray) -> FloatArray:
        return theta.reshape(-1, self.features.shape[1])

    def _dense(self, p: FloatArray) -> Linear:
        x, (n, k) = self.features, p.shape
        d = x.shape[1]
        hessian = np.zeros((k, d, k, d))
        for i in range(k):
            for j in range(i + 1):
                weight = p[:, i] * ((i == j) - p[:, j])
                hessian[i, :, j, :] = hessian[j, :, i, :] = x.T @ (weight[:, None] * x) / n
        return solve_dense(hessian.reshape(k * d, k * d) + np.diag(self.penalty.ridge))

    def _products(self, p: FloatArray) -> Linear:
        x, (n, k) = self.features, p.shape
        d = x.shape[1]

        def product(vector: FloatArray) -> FloatArray:
            direction, result = vector.reshape(k, d), np.zeros((k, d))
            for block in row_blocks(x):
                change = x[block] @ direction.T
                weighted = p[block] * change
                weighted -= p[block] * weighted.sum(axis=1, keepdims=True)
                result += weighted.T @ x[block]
            total: FloatArray = result.ravel() / n + self.penalty.ridge * vector
            return total

        return solve_by_products(product, self._precondition)

    @cached_property
    def _precondition(self) -> Linear:
        """Roughly the inverse of the Hessian's diagonal blocks, one a label, from one eigendecomposition.

        Label i's block is taken to be c_i G + D - delta_i e_i e_i', where G is the Gram matrix, c = f (1 - f)
        with the frequency f of the label in place of the rows' p (1 - p), D the ridge of other labels'
        weights, and delta_i what the ridge of its own weight is less (Sherman and Morrison).
        """
        x, k = self.features, len(self.penalty.ridge) // self.features.shape[1]
        ridge = self.penalty.ridge.reshape(k, -1)
        shared = ridge[0].copy()
        shared[0] = ridge[1, 0]
        frequency = (np.bincount(self.truth, minlength=k) + 1.0) / (len(x) + k)
        scale = 1.0 / np.sqrt(shared)
        values, vectors = np.linalg.eigh((x.T @ x / len(x)) * scale[:, None] * scale)
        damping = 1.0 + np.outer(frequency * (1.0 - frequency), np.maximum(values, 0.0))

        def without_own(block: FloatArray) -> FloatArray:
            return np.asarray((((block * scale) @ vectors) / damping) @ vectors.T * scale)

        own = np.arange(k)
        columns = without_own(np.eye(k, x.shape[1]))
        delta = shared[:k] - ridge[own, own]
        gain = delta / np.maximum(1.0 - delta * columns[own, own], 1e-12)

        def precondition(vector: FloatArray) -> FloatArray:
            result = without_own(vector.reshape(k, -1))
            result += columns * (gain * result[own, own])[:, None]
            return result.ravel()

        return precondition


def _losses(scores: FloatArray, truth: IntArray) -> float:
    """Sum of -log softmax(scores)[truth]."""
    greatest = scores.max(axis=1)
    with np.errstate(under="ignore"):
        logs = np.log(np.exp(scores - greatest[:, None]).sum(axis=1))
    return float((logs + (greatest - scores[np.arange(len(truth)), truth])).sum())


def _softmax(scores: FloatArray) -> FloatArray:
    with np.errstate(under="ignore"):
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return np.asarray(p)
