"""Matrix scaling: each label's score is a linear function of all scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy.typing as npt

from finetune.domain.calibration.maps.linear import Linear, LinearRecord, as_linear, fit_linear
from finetune.domain.calibration.maps.rows import (
    Scale,
    as_features,
    as_fitting_rows,
    as_scale,
    bounded,
    check_labels,
    scale_of,
    set_parameters,
)
from finetune.domain.checks import FloatArray, read_record


def fit_matrix(
    rows: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    inputs: str = "logits",
    off_diagonal: float | None = None,
    intercept: float | None = None,
) -> MatrixMap:
    """Matrix scaling softmax(W z + b) with off-diagonal and intercept regularisation (ODIR).

    Minimises the mean log loss + lambda / (K (K - 1)) times the sum of w_ij^2 over i != j + mu / K times
    the sum of b_j^2 + 1 / (2 n) times the sum of ((w_jj - 1 / T) s)^2.  The last part is ours: it makes the
    optimum exist and be the only one, whatever the rows; T is the fitted temperature and s the standard
    deviation of the scores within their columns.

    Parameters
    ----------
    rows
        Shape (n, K), without -inf (probability 0): it has no linear function.
    labels
        Shape (n,): label indices.
    inputs
        ``"logits"`` (log-probabilities are logits), ``"log_probabilities"`` or ``"probabilities"``.  The
        scores z are the logits as they come in, or log-probabilities, which makes the map that of
        :func:`~finetune.domain.calibration.maps.dirichlet.fit_dirichlet`.
    off_diagonal
        lambda in (0, 1e100]; None: 2 K^2 (K - 1) s^2 / n, a normal prior under which the other labels
        together move a score by half a nat.  Kull et al. choose it by cross-validation.
    intercept
        mu in (0, 1e100]; None: K / (2 n), a standard normal prior.

    Returns
    -------
    MatrixMap
        With a log loss on these rows that is at most that of the fitted temperature, and of no map.

    Raises
    ------
    InvalidInput
        If the input is not as above, or the scales of the scores are too far apart for double precision.

    Notes
    -----
    A label that has no row gets a low intercept and a small, positive probability.  K^2 + K numbers are
    fitted: below some 10 K rows simpler maps do better.  Up to 300 of them, a step costs O(n K^4); above
    that, O(n K^2) for each of some hundred products in all, and memory for twice the rows.

    References
    ----------
    Guo, Pleiss, Sun, Weinberger (2017). On calibration of modern neural networks. ICML, sec. 4.2.
    Kull, Perello-Nieto, Kängsepp, Silva Filho, Song, Flach (2019). Beyond temperature scaling. NeurIPS,
    sec. 4.

    Examples
    --------
    >>> fitted = fit_matrix([[0.0, 0.0]] * 4, [0, 0, 0, 1], intercept=1e-9)
    >>> fitted.apply([[0.0, 0.0]]).round(4)  # constant scores: log 3/4 and log 1/4
    array([[-0.2877, -1.3863]])
    """
    scale = scale_of(inputs)
    fitting = as_fitting_rows(rows, labels, inputs)
    return MatrixMap(*fit_linear(bounded(fitting.logits), fitting.truth, off_diagonal, intercept), scale)


class _Record(LinearRecord):
    kind: Literal["matrix"]
    scale: Scale


@dataclass(frozen=True, eq=False)
class MatrixMap:
    """A fitted matrix scaling.

    Parameters
    ----------
    weights
        Shape (K, K): row i makes the score of label i.
    intercepts
        Shape (K,).
    scale
        What the weights multiply: ``"logits"`` or ``"log_probabilities"``.

    Examples
    --------
    >>> MatrixMap([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]).apply([[0.0, 0.0]]).round(4)
    array([[-0.6931, -0.6931]])
    """

    weights: FloatArray
    intercepts: FloatArray
    scale: Scale = "logits"
    kind: ClassVar[str] = "matrix"

    def __post_init__(self) -> None:
        weights, intercepts = as_linear(self.weights, self.intercepts)
        set_parameters(self, weights=weights, intercepts=intercepts, scale=as_scale(self.scale))

    def apply(self, rows: npt.ArrayLike, *, inputs: str = "logits") -> FloatArray:
        """Log-probabilities, shape (n, K); -inf in a row is an error."""
        features = check_labels(as_features(rows, inputs, self.scale), len(self.intercepts))
        return Linear(self.weights, self.intercepts).apply(features)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready record."""
        return {
            "kind": self.kind,
            "version": 1,
            "scale": self.scale,
            **Linear(self.weights, self.intercepts).to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MatrixMap:
        """Read what :meth:`to_dict` wrote."""
        record = read_record(_Record, data)
        return cls(*as_linear(record.weights, record.intercepts), record.scale)
