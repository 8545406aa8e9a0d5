"""Conformal p-values: how rare a score is among scores known to be ordinary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from finetune.domain.checks import (
    Extended,
    FloatArray,
    as_floats,
    as_generator,
    as_vector,
    read_extended,
    read_record,
    reject_first,
    write_extended,
)
from finetune.domain.errors import InvalidInput
from finetune.domain.row_reader import row_blocks

_BLOCK = 256


def conformal_p_values(
    cal_scores: npt.ArrayLike, new_scores: npt.ArrayLike, *, rng: np.random.Generator | None = None
) -> FloatArray:
    """P-values of new scores against a fixed set of calibration scores.

    Without ``rng``: p = (#{s_i >= s} + 1) / (n + 1).  With it, smoothed:
    p = (#{s_i > s} + u (#{s_i = s} + 1)) / (n + 1) with u uniform on (0, 1], one u a row.

    Parameters
    ----------
    cal_scores
        Shape (n,): scores of rows that are ordinary, greater is stranger; +inf and -inf are scores.
    new_scores
        Shape (m,), or (m, K) for the scores of K labels in each row.
    rng
        Source of u; None: no smoothing.

    Returns
    -------
    FloatArray
        The shape of ``new_scores``, in (0, 1].

    Raises
    ------
    InvalidInput
        If a score is NaN, there is none, or the shape is wrong.

    Notes
    -----
    If the n calibration rows and a new row are exchangeable, P(p <= t) <= t for every t, and = t if smoothed.
    Of the K p-values of a row this holds for that of its true label, so {labels: p > alpha} holds it with
    probability 1 - alpha or more: it is the set of the split predictor.  p and alpha are both rounded
    correctly, so that p > alpha is decided exactly as long as n times 10^(digits of alpha) is below 1e15.

    Not promised: new rows share their calibration scores, so their p-values are dependent.  Where rows are
    independent and scores have no ties the dependence is positive, and Benjamini-Hochberg holds; a martingale
    of them does not (see :class:`OnlinePValues`).

    References
    ----------
    Vovk, Gammerman, Shafer (2005). Algorithmic Learning in a Random World, prop. 2.3 and 2.4.
    Bates, Candès, Lei, Romano, Sesia (2023). Testing for outliers with conformal p-values. Annals of
    Statistics 51, thm. 2.

    Examples
    --------
    >>> conformal_p_values([0.1, 0.2, 0.2, 0.4], [0.0, 0.2, 0.3, 0.5])
    array([1. , 0.8, 0.4, 0.2])
    """
    ordered = np.sort(as_vector(cal_scores, name="cal_scores"))
    scores = _as_scores(new_scores)
    u = None if rng is None else 1.0 - as_generator(rng).random(len(scores))
    columns = scores.reshape(len(scores), -1)
    p_values = np.empty_like(columns)
    for block in row_blocks(columns):
        at_least = len(ordered) - np.searchsorted(ordered, columns[block], side="left")
        p_values[block] = at_least + 1
        if u is not None:
            above = len(ordered) - np.searchsorted(ordered, columns[block], side="right")
            p_values[block] = above + u[block, None] * (at_least + 1 - above)
    p_values /= len(ordered) + 1
    return p_values.reshape(scores.shape)


def _as_scores(values: npt.ArrayLike) -> FloatArray:
    scores, _ = as_floats(values, "new_scores")
    if scores.ndim not in (1, 2) or scores.size == 0:
        raise InvalidInput(
            "new_scores must have the shape (rows,) or (rows, labels)",
            seen=scores.shape,
            remedy="pass at least one score",
        )
    bad = np.isnan(scores)
    reject_first(
        bad if scores.ndim == 1 else bad.any(axis=1),
        scores,
        name="new_scores",
        what="the score is NaN",
        remedy="correct the score or drop the row",
    )
    return scores


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    kind: Literal["online_p_values"]
    version: Literal[1]
    scores: list[Extended]


class OnlinePValues:
    """P-values of a stream, each against all scores before it.

    p_t = (#{i < t: s_i > s_t} + u_t (#{i < t: s_i = s_t} + 1)) / t, u_t uniform on (0, 1].

    Parameters
    ----------
    rng
        Source of u_t.

    Notes
    -----
    If the whole stream is exchangeable, the p-values are independent and uniform on (0, 1]: what a
    martingale needs (:class:`~finetune.domain.conformal.martingale.ExchangeabilityMartingale`).  Start with
    calibration scores: ``update_many(cal_scores)``, drop what it returns, and only bet on what follows; those
    p-values are independent and uniform too.

    P-values of the same stream against a *fixed* calibration set are not: given that set they follow one law
    again and again which is not quite the uniform one, and a martingale can win against it without any drift.

    References
    ----------
    Vovk, Nouretdinov, Gammerman (2003). Testing exchangeability on-line. ICML, thm. 1.

    Examples
    --------
    >>> stream = OnlinePValues(np.random.default_rng(0))
    >>> ordinary = stream.update_many(np.arange(999.0))
    >>> stream.update(2000.0) < 0.002, stream.n
    (True, 1000)
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = as_generator(rng)
        self._ordered: FloatArray = np.empty(0)

    @property
    def n(self) -> int:
        """Number of scores seen."""
        return len(self._ordered)

    def update(self, score: float) -> float:
        """Take the next score and return its p-value, in (0, 1]."""
        return float(self.update_many([score])[0])

    def update_many(self, scores: npt.ArrayLike) -> FloatArray:
        """Take the next scores, shape (m,), in their order, and return their p-values, shape (m,).

        The result is that of ``update`` one by one.

        Raises
        ------
        InvalidInput
            If a score is NaN, there is none, or the shape is wrong; nothing is taken then.
        """
        values = as_vector(scores, name="scores")
        u = 1.0 - self._rng.random(len(values))
        # By blocks: one search and one insertion for many scores; pairs are compared only within a block.
        blocks = [slice(start, start + _BLOCK) for start in range(0, len(values), _BLOCK)]
        return np.concatenate([self._next(values[block], u[block]) for block in blocks])

    def _next(self, block: FloatArray, u: FloatArray) -> FloatArray:
        before = np.tri(len(block), k=-1, dtype=np.bool_)
        above = ((block > block[:, None]) & before).sum(axis=1)
        at_least = ((block >= block[:, None]) & before).sum(axis=1)
        above += self.n - np.searchsorted(self._ordered, block, side="right")
        at_least += self.n - np.searchsorted(self._ordered, block, side="left")
        p_values = (above + u * (at_least - above + 1)) / (self.n + 1 + np.arange(len(block)))
        new = np.sort(block)
        self._ordered = np.insert(self._ordered, np.searchsorted(self._ordered, new), new)
        return np.asarray(p_values)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready record of all scores seen, ascending; infinite ones as ``"+inf"`` and ``"-inf"``."""
        return {
            "kind": "online_p_values",
            "version": 1,
            "scores": [write_extended(score) for score in self._ordered.tolist()],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, rng: np.random.Generator) -> OnlinePValues:
        """Go on from what :meth:`to_dict` wrote; give a generator that has not been used before."""
        record = read_record(_Record, data)
        stream = cls(rng)
        stream._ordered = np.sort(np.array([read_extended(score) for score in record.scores], dtype=float))
        return stream
