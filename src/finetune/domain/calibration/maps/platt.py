"""Platt scaling: a logistic curve over the log-odds of each label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

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
from finetune.domain.calibration.maps.logistic import fit_logistic
from finetune.domain.calibration.maps.rows import (
    MapRecord,
    as_fitting_rows,
    as_parameters,
    reject_excluded_truth,
    set_parameters,
)
from finetune.domain.checks import FloatArray, read_record


def fit_platt(
    rows: npt.ArrayLike, labels: npt.ArrayLike, *, inputs: str = "logits", smoothing: bool = True
) -> PlattMap:
    """Platt scaling: log-odds q = a * log-odds p + b, for label 1 (K = 2) or for each label against the rest.

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
        Fit to Platt's targets 1 / (N- + 2) and (N+ + 1) / (N+ + 2) in place of 0 and 1.  Without it, rows
        that are told apart perfectly give a very steep, finite curve.

    Returns
    -------
    PlattMap
        Its curves rise where higher scores come with more hits, and fall where they come with fewer.
        Constant scores give a flat one.

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
    Platt, J. C. (1999). Probabilistic outputs for support vector machines. Sec. 2.2.
    Zadrozny, B. and Elkan, C. (2002). Transforming classifier scores into accurate multiclass probability
    estimates. KDD, sec. 5.

    Examples
    --------
    >>> rows = [[0.0, -1.0]] * 2 + [[0.0, 1.0]] * 2
    >>> fitted = fit_platt(rows, [0, 0, 1, 1])
    >>> np.exp(fitted.apply([[0.0, 1.0]])).round(4)  # the targets: 1/4 and 3/4
    array([[0.25, 0.75]])
    """
    fitting = as_fitting_rows(rows, labels, inputs)
    reject_excluded_truth(fitting)
    fitted = [_fit(event, smoothing) for event in fitting_events(fitting)]
    return PlattMap(np.array([a for a, _ in fitted]), np.array([b for _, b in fitted]))


def _fit(event: Event, smoothing: bool) -> tuple[float, float]:
    free = np.isfinite(event.scores)
    scores, hits = event.scores[free], event.hits[free]
    if len(scores) == 0:
        return 1.0, 0.0
    low, high = smoothed_targets(hits) if smoothing else (0.0, 1.0)
    weights, intercept = fit_logistic(scores[:, None], np.where(hits, high, low))
    return float(weights[0]), intercept


class _Record(MapRecord):
    kind: Literal["platt"]
    version: Literal[1]
    slopes: list[float]
    intercepts: list[float]


@dataclass(frozen=True, eq=False)
class PlattMap:
    """Fitted logistic curves.

    Parameters
    ----------
    slopes, intercepts
        Shape (K,), or (1,) for label 1 of two.

    Examples
    --------
    >>> np.exp(PlattMap([1.0], [np.log(3)]).apply([[0.0, 0.0]])).round(4)
    array([[0.25, 0.75]])
    """

    slopes: FloatArray
    intercepts: FloatArray
    kind: ClassVar[str] = "platt"

    def __post_init__(self) -> None:
        slopes = as_parameters(self.slopes, (None,), name="slopes")
        intercepts = as_parameters(self.intercepts, slopes.shape, name="intercepts")
        set_parameters(self, slopes=slopes, intercepts=intercepts)

    def apply(self, rows: npt.ArrayLike, *, inputs: str = "logits") -> FloatArray:
        """Log-probabilities, shape (n, K); a label with probability 0 or 1 keeps it."""
        scores = event_scores(rows, inputs, count_labels(len(self.slopes)))
        free = np.isfinite(scores)
        scores = np.where(free, np.where(free, scores, 0.0) * self.slopes + self.intercepts, scores)
        return join_events(log_expit(scores), log_expit(-scores))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready record."""
        numbers = {"slopes": self.slopes.tolist(), "intercepts": self.intercepts.tolist()}
        return {"kind": self.kind, "version": 1, **numbers}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PlattMap:
        """Read what :meth:`to_dict` wrote."""
        record = read_record(_Record, data)
        slopes = as_parameters(record.slopes, (None,), name="slopes")
        return cls(slopes, as_parameters(record.intercepts, slopes.shape, name="intercepts"))
