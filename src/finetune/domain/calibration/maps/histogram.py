"""Histogram binning: the frequency of each label among the rows whose probability lies in the same bin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from finetune.domain.calibration.maps.events import (
    Event,
    count_labels,
    event_scores,
    fitting_events,
    join_events,
)
from finetune.domain.calibration.maps.rows import LIMIT, MapRecord, as_fitting_rows
from finetune.domain.calibration.maps.tables import TIE, Tables, as_tables, distinct, set_tables
from finetune.domain.checks import FloatArray, as_choice, as_count, as_positive, read_record


def fit_histogram(
    rows: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    inputs: str = "logits",
    n_bins: int = 10,
    binning: str = "mass",
    prior_weight: float = 1.0,
) -> HistogramMap:
    """Histogram binning of label 1 (K = 2), or of each label against the rest.

    A bin with c rows and h hits gets the probability (h + w / K) / (c + w), w = ``prior_weight``.

    Parameters
    ----------
    rows
        Shape (n, K).  A probability of 0 or 1 is a claim like any other.
    labels
        Shape (n,): label indices.
    inputs
        ``"logits"`` (log-probabilities are logits), ``"log_probabilities"`` or ``"probabilities"``.
    n_bins
        Number of bins of each label.
    binning
        ``"mass"``: bins of as equal numbers of rows as ties allow, with edges half way between two scores;
        fewer bins where there are not as many scores.  ``"width"``: bins (a, b] of equal width in p.
    prior_weight
        In (0, 1e100]: for how many rows the prior of 1 / K counts.  K makes it Laplace's rule of succession.
        No label gets probability 0, and a bin without rows gets 1 / K.

    Returns
    -------
    HistogramMap
        Steps: scores of the same bins get the same probabilities, so ranking within a bin is lost.

    Raises
    ------
    InvalidInput
        If the input is not as above.

    Notes
    -----
    Nothing makes the steps rise.  With K > 2 the K of them are divided by their sum.  O(n K log n)
    operations.

    References
    ----------
    Zadrozny, B. and Elkan, C. (2001). Obtaining calibrated probability estimates from decision trees and
    naive Bayesian classifiers. ICML, sec. 3.3 and 4.

    Examples
    --------
    >>> rows = [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.2, 0.8]]
    >>> fitted = fit_histogram(rows, [0, 1, 0, 1], inputs="probabilities", n_bins=2)
    >>> np.exp(fitted.apply(rows, inputs="probabilities"))[:, 1]  # (1 + 1/2) / 3 in each bin of two rows
    array([0.5, 0.5, 0.5, 0.5])
    """
    n_bins = as_count(n_bins, name="n_bins")
    as_choice(binning, ("mass", "width"), name="binning")
    weight = as_positive(prior_weight, name="prior_weight")
    fitting = as_fitting_rows(rows, labels, inputs)
    prior = weight / fitting.logits.shape[1]
    edges, values = [], []
    for event in fitting_events(fitting):
        cuts = _width_edges(n_bins) if binning == "width" else _mass_edges(event.scores, n_bins)
        counts, hits = _count(event, cuts)
        edges.append(cuts)
        values.append((hits + prior) / (counts + weight))
    return HistogramMap(tuple(edges), tuple(values))


def _width_edges(n_bins: int) -> FloatArray:
    edges = logit(np.arange(1, n_bins) / n_bins)
    # Bins are (a, b]: what is b but for rounding belongs below.
    return np.asarray(edges + TIE * (1.0 + np.abs(edges)))


def _mass_edges(scores: FloatArray, n_bins: int) -> FloatArray:
    ordered = np.clip(np.sort(scores), -LIMIT, LIMIT)
    starts = distinct(ordered)
    ranks = -(-np.arange(1, n_bins) * len(ordered) // n_bins) - 1
    after = np.unique(np.searchsorted(starts, np.maximum(ranks, 0), side="right"))
    after = starts[after[after < len(starts)]]
    return np.asarray(0.5 * (ordered[after - 1] + ordered[after]))


def _count(event: Event, edges: FloatArray) -> tuple[FloatArray, FloatArray]:
    index = np.searchsorted(edges, event.scores, side="left")
    counts, hits = np.zeros((2, len(edges) + 1))
    np.add.at(counts, index, 1.0)
    np.add.at(hits, index, event.hits)
    return counts, hits


class _Record(MapRecord):
    kind: Literal["histogram"]
    version: Literal[1]
    edges: list[list[float]]
    values: list[list[float]]


@dataclass(frozen=True, eq=False)
class HistogramMap:
    """Fitted steps.

    Parameters
    ----------
    edges
        For each label (K > 2), or for label 1 of two alone: log-odds between the bins, rising; may be none.
    values
        Probabilities of the bins, one more than edges.

    Examples
    --------
    >>> steps = HistogramMap([[0.0]], [[0.25, 0.75]])
    >>> np.exp(steps.apply([[0.0, 0.0], [0.0, 0.1]]))[:, 1].round(4)
    array([0.25, 0.75])
    """

    edges: Tables
    values: Tables
    kind: ClassVar[str] = "histogram"

    def __post_init__(self) -> None:
        set_tables(self, "edges", "values", extra=1)

    def apply(self, rows: npt.ArrayLike, *, inputs: str = "logits") -> FloatArray:
        """Log-probabilities, shape (n, K)."""
        scores = event_scores(rows, inputs, count_labels(len(self.edges)))
        tables = zip(scores.T, self.edges, self.values, strict=True)
        p = np.column_stack([values[np.searchsorted(edges, column)] for column, edges, values in tables])
        with np.errstate(divide="ignore"):
            return join_events(np.log(p), np.log1p(-p))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready record."""
        edges, values = ([table.tolist() for table in tables] for tables in (self.edges, self.values))
        return {"kind": self.kind, "version": 1, "edges": edges, "values": values}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> HistogramMap:
        """Read what :meth:`to_dict` wrote."""
        record = read_record(_Record, data)
        return cls(as_tables(record.edges, "edges"), as_tables(record.values, "values"))
