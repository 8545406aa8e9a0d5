"""Isotonic calibration: the best curve that never falls, over the log-odds of each label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from finetune.domain.calibration.maps.events import (
    Event,
    count_labels,
    event_scores,
    fitting_events,
    join_events,
    smoothed_targets,
)
from finetune.domain.calibration.maps.rows import LIMIT, MapRecord, as_fitting_rows
from finetune.domain.calibration.maps.tables import Tables, as_tables, distinct, set_tables
from finetune.domain.checks import FloatArray, read_record
from finetune.domain.errors import InvalidInput


def fit_isotonic(
    rows: npt.ArrayLike, labels: npt.ArrayLike, *, inputs: str = "logits", smoothing: bool = True
) -> IsotonicMap:
    """Isotonic regression of label 1 (K = 2), or of each label against the rest, on its log-odds.

    Rows with the same score are pooled.  Between the blocks of the regression the curve is linear in the
    log-odds, beyond the first and the last one it is flat.

    Parameters
    ----------
    rows
        Shape (n, K).  A probability of 0 or 1 is a claim like any other: it gets the frequency of the rows
        that make it.
    labels
        Shape (n,): label indices.
    inputs
        ``"logits"`` (log-probabilities are logits), ``"log_probabilities"`` or ``"probabilities"``.
    smoothing
        Move the values from [0, 1] into [1 / (N- + 2), (N+ + 1) / (N+ + 2)], Platt's targets: nothing is
        given the probability 0 or 1.  Without it, something may be: one such row on which the map is wrong
        makes the log loss infinite.

    Returns
    -------
    IsotonicMap
        Its curves never fall.  K = 2, without smoothing: no other such curve has a lower log loss (or Brier
        score) on these rows.

    Raises
    ------
    InvalidInput
        If the input is not as above.

    Notes
    -----
    Overfits below some 1000 rows a label.  With K > 2 the K curves are divided by their sum (where all are 0,
    each label gets 1 / K): no joint optimum is claimed.  O(n K log n) operations.

    References
    ----------
    Zadrozny, B. and Elkan, C. (2002). Transforming classifier scores into accurate multiclass probability
    estimates. KDD, sec. 3 and 5.
    Ayer, Brunk, Ewing, Reid, Silverman (1955). An empirical distribution function for sampling with
    incomplete information. Ann. Math. Stat. 26 (pool adjacent violators).

    Examples
    --------
    >>> rows = [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.2, 0.8]]
    >>> fitted = fit_isotonic(rows, [0, 1, 0, 1], inputs="probabilities", smoothing=False)
    >>> np.exp(fitted.apply(rows, inputs="probabilities"))[:, 1].round(4)
    array([0. , 0.5, 0.5, 1. ])
    """
    fitting = as_fitting_rows(rows, labels, inputs)
    knots, values = zip(*(_fit(event, smoothing) for event in fitting_events(fitting)), strict=True)
    return IsotonicMap(knots, values)


def _fit(event: Event, smoothing: bool) -> tuple[FloatArray, FloatArray]:
    # In here: scipy.optimize takes longer to import than the rest of the domain.
    from scipy.optimize import isotonic_regression

    order = np.argsort(event.scores, kind="stable")
    scores = np.clip(event.scores[order], -LIMIT, LIMIT)
    starts = distinct(scores)
    counts = np.diff(starts, append=len(scores))
    hits = np.add.reduceat(event.hits[order].astype(np.float64), starts)
    blocks = isotonic_regression(hits / counts, weights=counts.astype(np.float64)).blocks[:-1]
    rates = np.add.reduceat(hits, blocks) / np.add.reduceat(counts, blocks)
    first = starts[blocks]
    last = np.append(first[1:], len(scores)) - 1
    if smoothing:
        low, high = smoothed_targets(event.hits)
        rates = low + (high - low) * rates
    knots = np.column_stack([scores[first], scores[last]]).ravel()
    kept = np.diff(knots, prepend=-np.inf) > 0.0
    return knots[kept], np.repeat(rates, 2)[kept]


class _Record(MapRecord):
    kind: Literal["isotonic"]
    version: Literal[1]
    knots: list[list[float]]
    values: list[list[float]]


@dataclass(frozen=True, eq=False)
class IsotonicMap:
    """Fitted curves, linear between knots and flat beyond them.

    Parameters
    ----------
    knots
        For each label (K > 2), or for label 1 of two alone: log-odds, rising.
    values
        Probabilities at the knots, never falling.

    Examples
    --------
    >>> curve = IsotonicMap([[-1.0, 1.0]], [[0.25, 0.75]])
    >>> np.exp(curve.apply([[0.0, 0.0], [0.0, 9.0]]))[:, 1].round(4)
    array([0.5 , 0.75])
    """

    knots: Tables
    values: Tables
    kind: ClassVar[str] = "isotonic"

    def __post_init__(self) -> None:
        set_tables(self, "knots", "values", extra=0)
        if any((np.diff(values) < 0.0).any() for values in self.values):
            raise InvalidInput("the values of an isotonic map never fall", remedy="fit the map anew")

    def apply(self, rows: npt.ArrayLike, *, inputs: str = "logits") -> FloatArray:
        """Log-probabilities, shape (n, K); -inf where the map was fitted without smoothing to a 0."""
        scores = event_scores(rows, inputs, count_labels(len(self.knots)))
        tables = zip(scores.T, self.knots, self.values, strict=True)
        p = np.column_stack([np.interp(column, knots, values) for column, knots, values in tables])
        with np.errstate(divide="ignore"):
            return join_events(np.log(p), np.log1p(-p))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready record."""
        knots, values = ([table.tolist() for table in tables] for tables in (self.knots, self.values))
        return {"kind": self.kind, "version": 1, "knots": knots, "values": values}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> IsotonicMap:
        """Read what :meth:`to_dict` wrote."""
        record = read_record(_Record, data)
        return cls(as_tables(record.knots, "knots"), as_tables(record.values, "values"))
