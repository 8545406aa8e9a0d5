"""What matrix scaling and Dirichlet calibration share: softmax(W x + b) with ODIR."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.domain.calibration.maps.newton import minimise
from finetune.domain.calibration.maps.rows import MapRecord, as_parameters, spread
from finetune.domain.calibration.maps.softmax import Penalty, SharedFeatureLoss
from finetune.domain.calibration.maps.temperature import fit_temperature
from finetune.domain.checks import FloatArray, IntArray, as_positive, log_softmax
from finetune.domain.errors import InvalidInput
from finetune.domain.sums import row_products


class Linear(NamedTuple):
    """Weights, shape (K, K), and intercepts, shape (K,): row i makes the score of label i."""

    weights: FloatArray
    intercepts: FloatArray

    def apply(self, features: FloatArray) -> FloatArray:
        """Log-probabilities, shape (n, K), of finite features of that shape."""
        return log_softmax(row_products(_without_excluded(features), self.weights.T) + self.intercepts)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready part of a record."""
        return {"weights": self.weights.tolist(), "intercepts": self.intercepts.tolist()}


class LinearRecord(MapRecord):
    """The part of a record that both maps have."""

    version: Literal[1]
    weights: list[list[float]]
    intercepts: list[float]


def as_linear(weights: npt.ArrayLike, intercepts: npt.ArrayLike) -> Linear:
    """Check weights and intercepts."""
    b = as_parameters(intercepts, (None,), name="intercepts")
    return Linear(as_parameters(weights, (len(b), len(b)), name="weights"), b)


def fit_linear(
    scores: FloatArray, truth: IntArray, off_diagonal: float | None, intercept: float | None
) -> Linear:
    """Fit as :func:`~finetune.domain.calibration.maps.matrix.fit_matrix` says, on checked, bounded scores."""
    features = _without_excluded(scores)
    n, k = features.shape
    unit = spread(features)
    ridge = np.full((k, k + 1), 1.0 / n)
    if intercept is not None:
        ridge[:, k] = 2.0 * as_positive(intercept, name="intercept") / k
    apart = 4.0 * k / n
    if off_diagonal is not None:
        apart = 2.0 * as_positive(off_diagonal, name="off_diagonal") / (k * (k - 1) * unit**2)
    ridge[:, :k][~np.eye(k, dtype=bool)] = apart
    centre = np.zeros((k, k + 1))
    centre[np.arange(k), np.arange(k)] = unit / fit_temperature(features, truth).value
    extended = np.hstack([features / unit, np.ones((n, 1))])
    loss = SharedFeatureLoss(extended, truth, Penalty(ridge.ravel(), centre.ravel()))
    theta = minimise(loss, centre.ravel()).reshape(k, k + 1)
    return Linear(theta[:, :k] / unit, theta[:, k])


def _without_excluded(scores: FloatArray) -> FloatArray:
    excluded = np.isneginf(scores).any(axis=1)
    if excluded.any():
        row = int(excluded.argmax())
        raise InvalidInput(
            "a label has probability 0, of which this map is no function",
            where=f"rows[{row}]",
            seen=scores[row].tolist(),
            remedy="pass log-probabilities or logits in full precision, or use another map",
        )
    return scores
