"""Vector scaling: a weight and an intercept for each label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from finetune.domain.calibration.maps.newton import minimise
from finetune.domain.calibration.maps.rows import (
    MapRecord,
    Scale,
    as_features,
    as_fitting_rows,
    as_parameters,
    as_scale,
    bounded,
    check_labels,
    scale_of,
    set_parameters,
    spread,
)
from finetune.domain.calibration.maps.softmax import OwnFeatureLoss, Penalty
from finetune.domain.calibration.maps.temperature import fit_temperature
from finetune.domain.checks import FloatArray, as_positive, log_softmax, read_record


def fit_vector(
    rows: npt.ArrayLike, labels: npt.ArrayLike, *, inputs: str = "logits", shrinkage: float = 1.0
) -> VectorMap:
    """Vector scaling softmax(w * z + b), shrunk to the fitted temperature.

    Minimises n times the mean log loss plus shrinkage / 2 times the sum of ((w_k - 1 / T) s)^2 and b_k^2,
    where T is the fitted temperature and s the standard deviation of the scores within their columns: a
    normal prior that counts for less the more rows there are.  It is the only optimum, whatever the rows.

    Parameters
    ----------
    rows
        Shape (n, K).  A label at -inf (probability 0) is excluded from its row and stays so.
    labels
        Shape (n,): label indices.
    inputs
        ``"logits"`` (log-probabilities are logits), ``"log_probabilities"`` or ``"probabilities"``.  The
        scores z are the logits as they come in, or log-probabilities: a constant added to a row of logits
        changes the map, so a map that was fitted on logits takes nothing else.
    shrinkage
        Weight of the prior, in (0, 1e100]; 1 is a standard normal prior, 1e-9 next to none.

    Returns
    -------
    VectorMap
        With a log loss on these rows that is at most that of the fitted temperature, and of no map.

    Raises
    ------
    InvalidInput
        If the input is not as above, a true label is excluded, or the scales of the scores are too far apart
        for double precision.

    Notes
    -----
    A label that has no row gets a low intercept and a small, positive probability.  Rows that are told
    apart perfectly give large but finite weights.  The likeliest label can change.  One step costs O(n K^2) +
    O(K^3) operations; some ten steps are taken.

    References
    ----------
    Guo, Pleiss, Sun, Weinberger (2017). On calibration of modern neural networks. ICML, sec. 4.2.

    Examples
    --------
    >>> fitted = fit_vector([[0.0, 0.0]] * 4, [0, 0, 0, 1], shrinkage=1e-9)
    >>> np.exp(fitted.apply([[0.0, 0.0]])).round(4)  # constant scores: the frequencies
    array([[0.75, 0.25]])
    """
    fitting = as_fitting_rows(rows, labels, inputs)
    shrinkage = as_positive(shrinkage, name="shrinkage")
    features = bounded(fitting.logits)
    n, k = features.shape
    start = 1.0 / fit_temperature(features, fitting.truth).value
    unit = spread(features)
    penalty = Penalty(np.full(2 * k, shrinkage / n), np.repeat([start * unit, 0.0], k))
    theta = minimise(OwnFeatureLoss(features / unit, fitting.truth, penalty), penalty.centre)
    return VectorMap(theta[:k] / unit, theta[k:], scale_of(inputs))


class _Record(MapRecord):
    kind: Literal["vector"]
    version: Literal[1]
    scale: Scale
    weights: list[float]
    intercepts: list[float]


@dataclass(frozen=True, eq=False)
class VectorMap:
    """A fitted vector scaling.

    Parameters
    ----------
    weights, intercepts
        Shape (K,).
    scale
        What the weights multiply: ``"logits"`` or ``"log_probabilities"``.

    Examples
    --------
    >>> VectorMap([1.0, 2.0], [0.0, 0.0]).apply([[0.0, 0.0], [0.0, -1.0]]).round(4)
    array([[-0.6931, -0.6931],
           [-0.1269, -2.1269]])
    """

    weights: FloatArray
    intercepts: FloatArray
    scale: Scale = "logits"
    kind: ClassVar[str] = "vector"

    def __post_init__(self) -> None:
        weights = as_parameters(self.weights, (None,), name="weights")
        intercepts = as_parameters(self.intercepts, weights.shape, name="intercepts")
        set_parameters(self, weights=weights, intercepts=intercepts, scale=as_scale(self.scale))

    def apply(self, rows: npt.ArrayLike, *, inputs: str = "logits") -> FloatArray:
        """Log-probabilities, shape (n, K); a label at -inf stays there."""
        z = check_labels(as_features(rows, inputs, self.scale), len(self.weights))
        excluded = np.isneginf(z)
        scores = np.where(excluded, 0.0, z) * self.weights + self.intercepts
        return log_softmax(np.where(excluded, -np.inf, scores))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready record."""
        return {
            "kind": self.kind,
            "version": 1,
            "scale": self.scale,
            "weights": self.weights.tolist(),
            "intercepts": self.intercepts.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> VectorMap:
        """Read what :meth:`to_dict` wrote."""
        record = read_record(_Record, data)
        weights = as_parameters(record.weights, (None,), name="weights")
        return cls(weights, as_parameters(record.intercepts, weights.shape, name="intercepts"), record.scale)
