"""One event a label: what the binary maps (Platt, beta, isotonic, histogram) share for K labels.

Each event "the label is k" has its own map of the log-odds of p_k, and the results are divided by their sum
(Zadrozny and Elkan 2002).  With K = 2 there is one event, label 1, and nothing to divide by.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.domain.calibration.maps.rows import FittingRows, as_logits, bounded, check_labels
from finetune.domain.checks import BoolArray, FloatArray, log_softmax
from finetune.domain.row_reader import row_blocks


class Event(NamedTuple):
    """Log-odds that the model gives an event, and whether it happened; both of shape (n,)."""

    scores: FloatArray
    hits: BoolArray


def event_scores(rows: npt.ArrayLike, inputs: str, n_labels: int | None = None) -> FloatArray:
    """Log-odds of each event in double precision, with digits left where p is 1 but for rounding.

    Parameters
    ----------
    rows, inputs
        Rows of any kind, checked here.
    n_labels
        K that they must have, where a map is applied.

    Returns
    -------
    FloatArray
        Shape (n, K), or (n, 1) where K = 2: of label 1.  -inf for a label at -inf, +inf where all others are.

    Examples
    --------
    >>> event_scores([[0.0, -50.0, -60.0]], "logits").round(3)
    array([[ 50., -50., -60.]])
    """
    logits = as_logits(rows, inputs)
    return _scores(bounded(logits if n_labels is None else check_labels(logits, n_labels)))


def fitting_events(fitting: FittingRows) -> Iterator[Event]:
    """Go through the events of what a map is fitted on."""
    scores = _scores(bounded(fitting.logits))
    first = 1 if fitting.logits.shape[1] == 2 else 0
    return (Event(scores[:, i], fitting.truth == first + i) for i in range(scores.shape[1]))


def count_labels(n_events: int) -> int:
    """Count the labels from the number of events."""
    return 2 if n_events == 1 else n_events


def join_events(log_yes: FloatArray, log_no: FloatArray) -> FloatArray:
    """Log-probabilities of the labels, shape (n, K), from those of the events and of their complements.

    Where no event has a probability above 0, all labels get the same.
    """
    if log_yes.shape[1] == 1:
        return np.hstack([log_no, log_yes])
    nothing = np.isneginf(log_yes).all(axis=1, keepdims=True)
    return log_softmax(np.where(nothing, 0.0, log_yes))


def smoothed_targets(hits: BoolArray) -> tuple[float, float]:
    """Targets for an event that did not, and did, happen: 1 / (N- + 2) and (N+ + 1) / (N+ + 2).

    References
    ----------
    Platt, J. C. (1999). Probabilistic outputs for support vector machines. Sec. 2.2.

    Examples
    --------
    >>> smoothed_targets(np.array([True, True, False]))
    (0.3333333333333333, 0.75)
    """
    positives = int(np.count_nonzero(hits))
    return 1.0 / (len(hits) - positives + 2.0), (positives + 1.0) / (positives + 2.0)


def _scores(logits: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore", under="ignore"):
        if logits.shape[1] == 2:
            return logits[:, 1:] - logits[:, :1]
        scores = np.empty_like(logits)
        for block in row_blocks(logits):
            z = logits[block]
            log_p = log_softmax(z)
            scores[block] = log_p - np.log1p(-np.exp(log_p))
            # 1 - p has no digits left where p is close to 1; the sum over the other labels has.
            place = (np.arange(len(z)), z.argmax(axis=1))
            others = z.copy()
            others[place] = -np.inf
            second = np.maximum(others.max(axis=1), np.finfo(np.float64).min)
            rest = second + np.log(np.exp(others - second[:, None]).sum(axis=1))
            scores[block.start + place[0], place[1]] = z[place] - rest
    return scores
