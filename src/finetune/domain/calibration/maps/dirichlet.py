"""Dirichlet calibration: each label's score is a linear function of all log-probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy.typing as npt

from finetune.domain.calibration.maps.linear import Linear, LinearRecord, as_linear, fit_linear
from finetune.domain.calibration.maps.rows import (
    as_features,
    as_fitting_rows,
    bounded,
    check_labels,
    set_parameters,
)
from finetune.domain.checks import FloatArray, log_softmax, read_record


def fit_dirichlet(
    rows: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    inputs: str = "logits",
    off_diagonal: float | None = None,
    intercept: float | None = None,
) -> DirichletMap:
    """Dirichlet calibration softmax(W log p + b) with ODIR: matrix scaling of log-probabilities.

    Parameters
    ----------
    rows, labels, inputs, off_diagonal, intercept
        As in :func:`~finetune.domain.calibration.maps.matrix.fit_matrix`.  Logits are normalised first: the
        map depends on probabilities alone.

    Returns
    -------
    DirichletMap
        With a log loss on these rows that is at most that of the fitted temperature, and of no map.

    Raises
    ------
    InvalidInput
        If the input is not as described there.

    References
    ----------
    Kull, Perello-Nieto, Kängsepp, Silva Filho, Song, Flach (2019). Beyond temperature scaling. NeurIPS,
    theorem 1 (linear parametrisation) and sec. 4.

    Examples
    --------
    >>> fitted = fit_dirichlet([[0.5, 0.5]] * 4, [0, 0, 0, 1], inputs="probabilities", intercept=1e-9)
    >>> fitted.apply([[3.0, 3.0]]).round(4)  # constant scores: log 3/4 and log 1/4
    array([[-0.2877, -1.3863]])
    """
    fitting = as_fitting_rows(rows, labels, inputs)
    log_probs = log_softmax(bounded(fitting.logits))
    return DirichletMap(*fit_linear(log_probs, fitting.truth, off_diagonal, intercept))


class _Record(LinearRecord):
    kind: Literal["dirichlet"]


@dataclass(frozen=True, eq=False)
class DirichletMap:
    """A fitted Dirichlet calibration.

    Parameters
    ----------
    weights
        Shape (K, K): row i makes the score of label i from all log-probabilities.
    intercepts
        Shape (K,).

    Examples
    --------
    >>> DirichletMap([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]).apply([[0.0, 0.0]]).round(4)
    array([[-0.6931, -0.6931]])
    """

    weights: FloatArray
    intercepts: FloatArray
    kind: ClassVar[str] = "dirichlet"

    def __post_init__(self) -> None:
        weights, intercepts = as_linear(self.weights, self.intercepts)
        set_parameters(self, weights=weights, intercepts=intercepts)

    def apply(self, rows: npt.ArrayLike, *, inputs: str = "logits") -> FloatArray:
        """Log-probabilities, shape (n, K); -inf in a row is an error."""
        features = check_labels(as_features(rows, inputs, "log_probabilities"), len(self.intercepts))
        return Linear(self.weights, self.intercepts).apply(features)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready record."""
        return {"kind": self.kind, "version": 1, **Linear(self.weights, self.intercepts).to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DirichletMap:
        """Read what :meth:`to_dict` wrote."""
        record = read_record(_Record, data)
        return cls(*as_linear(record.weights, record.intercepts))
