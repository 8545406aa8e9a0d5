"""Adaptive prediction sets, and their regularised form: scores that add up the likelier labels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from finetune.domain.checks import FloatArray, IntArray
from finetune.domain.conformal.scores.ladder import Ladder, LadderScore, gather


@dataclass(frozen=True)
class Aps(LadderScore):
    """Adaptive prediction sets: s = -log(1 - a), a the mass of the labels down to this one.

    a_y = sum of p_j over p_j > p_y, plus u times the sum over p_j = p_y.  Labels with equal p form one
    group.  1 - a is added up from the least likely label, which keeps its digits where a rounds to 1.

    Without u, u = 1 for all labels but the likeliest, whose score is 0, so that it is in every set.  With
    u = 1 for it too, sets would be empty just where the model is surest.

    References
    ----------
    Romano, Sesia, Candès (2020). Classification with valid and adaptive coverage. NeurIPS, eq. 5-8.

    Examples
    --------
    >>> row = np.array([[0.5, 0.3, 0.2]])
    >>> 1 - np.exp(-Aps().matrix(row)).round(3)
    array([[0. , 0.8, 1. ]])
    >>> 1 - np.exp(-Aps().matrix(row, np.array([0.5]))).round(3)
    array([[0.25, 0.65, 0.9 ]])
    """

    method: ClassVar[str] = "aps"
    randomisable: ClassVar[bool] = True
    _logarithm: ClassVar[bool] = True
    _tells_deep_apart: ClassVar[bool] = True
    _least: ClassVar[float | None] = 0.0

    def _place_keys(self, ladder: Ladder, _u: FloatArray | None) -> FloatArray:
        return ladder.sums[:, :-1]

    def _group_keys(
        self, ladder: Ladder, first: IntArray, last: IntArray, u: FloatArray | None
    ) -> FloatArray:
        return tails(ladder, first, last, u)


@dataclass(frozen=True)
class Raps(LadderScore):
    """Regularised adaptive prediction sets: s = a - 1 + penalty (o - k_reg)_+, o the rank of the label.

    a is that of :class:`Aps`; the constant -1 changes no set, and keeps the digits of a.  The penalty is not
    multiplied by u.  Equal labels have the last of their ranks.  Without u, the score of the likeliest
    label is -1, so that it is in every set.

    Parameters
    ----------
    penalty
        Added for each rank beyond ``k_reg``, >= 0: makes large sets smaller.
    k_reg
        Number of ranks without a penalty, >= 0.

    References
    ----------
    Angelopoulos, Bates, Malik, Jordan (2021). Uncertainty sets for image classifiers using conformal
    prediction. ICLR, eq. 4 and algorithm 2.

    Examples
    --------
    >>> 1 + Raps(penalty=0.1, k_reg=1).matrix(np.array([[0.5, 0.3, 0.2]])).round(3)
    array([[0. , 0.9, 1.2]])
    """

    penalty: float = 0.01
    k_reg: int = 1

    method: ClassVar[str] = "raps"
    randomisable: ClassVar[bool] = True
    _least: ClassVar[float | None] = -1.0

    def _place_keys(self, ladder: Ladder, _u: FloatArray | None) -> FloatArray:
        return ladder.sums[:, :-1] - self._penalties(ladder)

    def _group_keys(
        self, ladder: Ladder, first: IntArray, last: IntArray, u: FloatArray | None
    ) -> FloatArray:
        return tails(ladder, first, last, u) - self._penalties(ladder)[first]

    def _penalties(self, ladder: Ladder) -> FloatArray:
        return rank_penalties(ladder.n_labels, self.penalty, self.k_reg)


@lru_cache(maxsize=16)
def rank_penalties(k: int, penalty: float, k_reg: int) -> FloatArray:
    """Penalties of RAPS by place, shape (k,), read-only: the same in every block of rows."""
    ranks = np.arange(k, 0.0, -1.0)
    penalties: FloatArray = penalty * np.maximum(ranks - min(k_reg, k), 0.0)
    penalties.flags.writeable = False
    return penalties


def tails(ladder: Ladder, first: IntArray, last: IntArray, u: FloatArray | None) -> FloatArray:
    """1 - a of groups of equal labels, or its logarithm: the less likely ones and 1 - u of the group."""
    below = gather(ladder.sums, first)
    if u is None:
        return below
    through = gather(ladder.sums, last + 1)
    if ladder.deep:
        share = np.exp(below - through, where=through > -np.inf, out=np.zeros_like(below))
        tail = through + np.log1p(u * (share - 1.0))
    else:
        tail = below + (1.0 - u) * (through - below)
    # Rounding must not take a group past its neighbours.
    return np.asarray(np.clip(tail, below, through))
