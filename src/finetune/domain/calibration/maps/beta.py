"""Beta calibration: the log-odds as a linear function of log p and log(1 - p)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import log_expit

from finetune.domain.calibration.maps.events import (
    Event,
    count_labels,
    event_scores,
    fitting_events,
    join_events,
    smoothed_targets,
)
from finetune.domain.calibration.maps.logistic import fit_logistic, logistic_loss
from finetune.domain.calibration.maps.rows import (
    MapRecord,
    as_fitting_rows,
    as_parameters,
    reject_excluded_truth,
    set_parameters,
)
from finetune.domain.checks import FloatArray, read_record


def fit_beta(
    rows: npt.ArrayLike, labels: npt.ArrayLike, *, inputs: str = "logits", smoothing: bool = True
) -> BetaMap:
    """Beta calibration: log-odds q = a log p - b log(1 - p) + c with a, b >= 0.

    For label 1 (K = 2) or for each label against the rest.  The optimum under the constraint is exact: where
    the free one has a negative number, the best of those on the edges is taken.

    Parameters
    ----------
    rows
        Shape (n, K).  A label at -inf (probability 0) is excluded from its row and stays so; one whose
        alternatives are all excluded stays certain.  Such rows take no part in the fit of that label.
    labels
        Shape (n,): label indices.
    inputs
        ``"logits"`` (log-probabilities are logits), ``"log_probabilities"`` or ``"probabilities"``.
    smoothing
        Fit to Platt's targets 1 / (N- + 2) and (N+ + 1) / (N+ + 2) in place of 0 and 1, which the paper does
        not.  Without it, rows that are told apart perfectly give a very steep, finite curve.

    Returns
    -------
    BetaMap
        Its curves never fall.

    Raises
    ------
    InvalidInput
        If the input is not as above, or a true label is excluded.

    Notes
    -----
    With K > 2 the K curves are fitted one by one and divided by their sum: no joint optimum is claimed.
    O(n K) operations for each of some ten steps.

    References
    ----------
    Kull, M., Silva Filho, T. and Flach, P. (2017). Beta calibration: a well-founded and easily implemented
    improvement on logistic calibration for binary classifiers. AISTATS, eq. 2 and algorithm 1.

    Examples
    --------
    >>> rows = [[0.0, -1.0]] * 4 + [[0.0, 1.0]] * 4
    >>> fitted = fit_beta(rows, [0, 0, 0, 1, 0, 1, 1, 1], smoothing=False)
    >>> np.exp(fitted.apply([[0.0, 1.0]])).round(4)  # the frequencies
    array([[0.25, 0.75]])
    """
    fitting = as_fitting_rows(rows, labels, inputs)
    reject_excluded_truth(fitting)
    curves = [_fit(event, smoothing) for event in fitting_events(fitting)]
    return BetaMap(*(np.array(column) for column in zip(*curves, strict=True)))


class _Curve(NamedTuple):
    a: float
    b: float
    intercept: float


def _fit(event: Event, smoothing: bool) -> _Curve:
    free = np.isfinite(event.scores)
    scores, hits = event.scores[free], event.hits[free]
    if len(scores) == 0:
        return _Curve(1.0, 1.0, 0.0)
    low, high = smoothed_targets(hits) if smoothing else (0.0, 1.0)
    targets = np.where(hits, high, low)
    features = np.column_stack([log_expit(scores), -log_expit(-scores)])
    weights, intercept = fit_logistic(features, targets)
    if weights.min() >= 0.0:
        return _Curve(float(weights[0]), float(weights[1]), intercept)
    # The loss is convex, so its minimum over a, b >= 0 lies on an edge.
    edges = [_on_edge(features, targets, kept) for kept in (0, 1)]
    return min(
        edges, key=lambda curve: logistic_loss(features @ [curve.a, curve.b] + curve.intercept, targets)
    )


def _on_edge(features: FloatArray, targets: FloatArray, kept: int) -> _Curve:
    (weight,), intercept = fit_logistic(features[:, [kept]], targets)
    if weight < 0.0:
        return _Curve(0.0, 0.0, fit_logistic(features[:, :0], targets)[1])
    return _Curve(float(weight), 0.0, intercept) if kept == 0 else _Curve(0.0, float(weight), intercept)


class _Record(MapRecord):
    kind: Literal["beta"]
    version: Literal[1]
    a: list[float]
    b: list[float]
    intercepts: list[float]


@dataclass(frozen=True, eq=False)
class BetaMap:
    """Fitted beta curves.

    Parameters
    ----------
    a, b, intercepts
        Shape (K,), or (1,) for label 1 of two; a and b are at least 0.

    Examples
    --------
    >>> np.exp(BetaMap([1.0], [1.0], [0.0]).apply([[0.2, 0.8]], inputs="probabilities")).round(4)
    array([[0.2, 0.8]])
    """

    a: FloatArray
    b: FloatArray
    intercepts: FloatArray
    kind: ClassVar[str] = "beta"

    def __post_init__(self) -> None:
        a = as_parameters(self.a, (None,), name="a", low=0.0)
        b = as_parameters(self.b, a.shape, name="b", low=0.0)
        set_parameters(self, a=a, b=b, intercepts=as_parameters(self.intercepts, a.shape, name="intercepts"))

    def apply(self, rows: npt.ArrayLike, *, inputs: str = "logits") -> FloatArray:
        """Log-probabilities, shape (n, K); a label with probability 0 or 1 keeps it."""
        scores = event_scores(rows, inputs, count_labels(len(self.a)))
        free = np.isfinite(scores)
        s = np.where(free, scores, 0.0)
        curves = self.a * log_expit(s) - self.b * log_expit(-s) + self.intercepts
        scores = np.where(free, curves, scores)
        return join_events(log_expit(scores), log_expit(-scores))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready record."""
        numbers = {"a": self.a.tolist(), "b": self.b.tolist(), "intercepts": self.intercepts.tolist()}
        return {"kind": self.kind, "version": 1, **numbers}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> BetaMap:
        """Read what :meth:`to_dict` wrote."""
        record = read_record(_Record, data)
        a, b, intercepts = (
            as_parameters(values, (None,), name=name)
            for name, values in (("a", record.a), ("b", record.b), ("intercepts", record.intercepts))
        )
        return cls(a, b, intercepts)
