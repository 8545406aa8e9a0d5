"""Sorted adaptive prediction sets and top-k: scores that depend on ranks more than on probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from finetune.domain.checks import FloatArray, IntArray, Numbers
from finetune.domain.conformal.scores.ladder import Ladder, LadderScore


@dataclass(frozen=True)
class Saps(LadderScore):
    """Sorted adaptive prediction sets: s = u p_max for the likeliest label, else p_max + (o - 2 + u) weight.

    o is the rank of the label; equal labels have the last of their ranks, and all that equal the likeliest
    count as the likeliest.  Without u, u = 1 for all labels but the likeliest, whose score is 0, so that
    it is in every set: with u = 1 for it too, its score p_max would be least where the model is least sure.

    Parameters
    ----------
    weight
        What one rank counts, >= 0.

    References
    ----------
    Huang, Xi, Zhang, Yao, Qiu, Wei (2024). Conformal prediction for deep classifier via label ranking.
    ICML, eq. 8.

    Examples
    --------
    >>> Saps(weight=0.1).matrix(np.array([[0.5, 0.3, 0.2]])).round(3)
    array([[0. , 0.6, 0.7]])
    """

    weight: float = 0.2

    method: ClassVar[str] = "saps"
    randomisable: ClassVar[bool] = True
    _least: ClassVar[float | None] = 0.0

    def _place_keys(self, ladder: Ladder, u: FloatArray | None) -> FloatArray:
        places = np.arange(ladder.n_labels)[None]
        return self._group_keys(ladder, places, places, u)

    def _group_keys(
        self, ladder: Ladder, first: IntArray, last: IntArray, u: FloatArray | None
    ) -> FloatArray:
        best = ladder.masses[:, -1:].astype(np.float64)
        random = 1.0 if u is None else u
        keys: FloatArray = -(best + (ladder.n_labels - first - 2.0 + random) * self.weight)
        return np.where(last == ladder.n_labels - 1, -random * best, keys)


@dataclass(frozen=True)
class TopK(LadderScore):
    """Top-k: s = rank of the label, 1 for the likeliest; equal labels have the last of their ranks.

    The sets hold the k likeliest labels, with the k that the calibration rows ask for.

    References
    ----------
    Angelopoulos, Bates, Malik, Jordan (2021). ICLR, sec. 2.3 (fixed sets).

    Examples
    --------
    >>> TopK().matrix(np.array([[0.5, 0.25, 0.25]]))
    array([[1., 3., 3.]])
    """

    method: ClassVar[str] = "topk"
    _least: ClassVar[float | None] = 1.0

    def _place_keys(self, ladder: Ladder, u: FloatArray | None) -> FloatArray:
        places = np.arange(ladder.n_labels)[None]
        return self._group_keys(ladder, places, places, u)

    def _group_keys(
        self, ladder: Ladder, first: IntArray, _last: IntArray, _u: FloatArray | None
    ) -> FloatArray:
        return np.asarray(first - ladder.n_labels, dtype=np.float64)

    def _ladders(self, ascending: Numbers) -> Iterator[tuple[Any, Ladder]]:
        # Only the order counts.
        yield slice(None), Ladder(ascending, ascending, deep=False)
