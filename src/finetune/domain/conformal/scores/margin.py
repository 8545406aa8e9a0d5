"""Margin to the strongest other label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from finetune.domain.checks import FloatArray, IntArray
from finetune.domain.conformal.scores.ladder import Ladder, LadderScore, gather


@dataclass(frozen=True)
class Margin(LadderScore):
    """Margin: s = -log(1 - d), d = max of p_j over j other than y, minus p_y.

    1 - d is added up as p_y and the mass of all labels but the strongest rival, which keeps its digits where
    d rounds to 1.  d is negative, and so is the score, only for a label that alone is the likeliest.

    References
    ----------
    Johansson, Linusson, Löfström, Boström (2017). Model-agnostic nonconformity functions for conformal
    classification. IJCNN, eq. 6 (margin); there d itself.

    Examples
    --------
    >>> 1 - np.exp(-Margin().matrix(np.array([[0.5, 0.3, 0.2]]))).round(3)
    array([[-0.2,  0.2,  0.3]])
    """

    method: ClassVar[str] = "margin"
    _logarithm: ClassVar[bool] = True
    _tells_deep_apart: ClassVar[bool] = True

    def _place_keys(self, ladder: Ladder, _u: FloatArray | None) -> FloatArray:
        add = np.logaddexp if ladder.deep else np.add
        best, second = ladder.masses[:, -1:], ladder.masses[:, -2:-1]
        rest = ladder.sums[:, -3:-2]
        keys = add(ladder.masses, add(rest, second))
        keys[:, -1:] = add(best, add(rest, best))
        if self.inputs == "probabilities":
            return np.asarray(keys)
        # exp, and sums of logarithms, may fall by rounding where they must rise.
        return np.asarray(np.maximum.accumulate(keys, axis=1))

    def _group_keys(
        self, ladder: Ladder, first: IntArray, _last: IntArray, u: FloatArray | None
    ) -> FloatArray:
        return gather(self._place_keys(ladder, u), first)
