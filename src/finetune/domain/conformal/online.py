"""Adaptive conformal inference: a level that follows the errors made, whatever the stream does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from finetune.domain.checks import Count, as_level, as_positive, read_record
from finetune.domain.errors import InvalidInput


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    kind: Literal["adaptive_level"]
    version: Literal[1]
    alpha: float
    gamma: float
    start: float
    n: Count
    n_missed: Count


class AdaptiveLevel:
    """The level alpha_t of each step: up by gamma alpha after a hit, down by gamma (1 - alpha) after a miss.

    Parameters
    ----------
    alpha
        Miscoverage aimed at, in (0, 1).
    gamma
        Step, positive; 0.005 in the paper.  A greater one follows changes faster, and its sets swing more.
    start
        alpha_1, in (0, 1); None: ``alpha``.

    Raises
    ------
    InvalidInput
        If a number is not as above.

    Notes
    -----
    Use alpha_t as the level of any set predictor whose sets hold everything at alpha_t <= 0 and nothing at
    alpha_t >= 1.  Then, for *every* sequence of cases, chosen by an adversary even, after T steps
    |share of misses - alpha| <= (max(alpha_1, 1 - alpha_1) + gamma) / (gamma T), which is :attr:`bound`.

    Not promised: anything about a single step or a short stretch.  Misses may come in clusters, paid for by
    sets that hold everything: the average alone is held.

    alpha_t is computed from two counts, alpha_1 + gamma (T alpha - misses), so that no rounding adds up.

    References
    ----------
    Gibbs, I. and Candès, E. (2021). Adaptive conformal inference under distribution shift. NeurIPS, eq. 2,
    lemma 4.1, prop. 4.1.

    Examples
    --------
    >>> level = AdaptiveLevel(0.1, gamma=0.05)
    >>> level.update(covered=False)
    >>> round(level.value, 6), level.n, level.miscoverage, level.bound
    (0.055, 1, 1.0, 19.0)
    """

    def __init__(self, alpha: float = 0.1, *, gamma: float = 0.005, start: float | None = None) -> None:
        self._alpha = as_level(alpha, name="alpha")
        self._start = self._alpha if start is None else as_level(start, name="start")
        self._gamma = as_positive(gamma, name="gamma")
        self._n = self._n_missed = 0

    def update(self, covered: bool) -> None:
        """Take note of whether the set of this step held the true label.

        Raises
        ------
        InvalidInput
            If ``covered`` is no bool, or cannot be: a miss of the set of everything, a hit of the empty set.
        """
        if not isinstance(covered, (bool, np.bool_)):
            raise InvalidInput("covered must be True or False", seen=covered, remedy="pass a bool")
        if (self.value <= 0.0 and not covered) or (self.value >= 1.0 and covered):
            kind = "of all labels was missed" if self.value <= 0.0 else "without labels held the true one"
            raise InvalidInput(
                f"the set {kind}",
                seen=self.value,
                remedy="give all labels where the level is 0 or below and none where it is 1 or above",
            )
        self._n += 1
        self._n_missed += not covered

    @property
    def alpha(self) -> float:
        """Miscoverage aimed at."""
        return self._alpha

    @property
    def gamma(self) -> float:
        """Step."""
        return self._gamma

    @property
    def start(self) -> float:
        """alpha_1."""
        return self._start

    @property
    def value(self) -> float:
        """alpha_t, the level for the next set: all labels if <= 0, none if >= 1; in [-gamma, 1 + gamma]."""
        return self.start + self.gamma * (self._n * self.alpha - self._n_missed)

    @property
    def n(self) -> int:
        """Number of steps taken, T."""
        return self._n

    @property
    def n_missed(self) -> int:
        """Number of sets that did not hold the true label."""
        return self._n_missed

    @property
    def miscoverage(self) -> float | None:
        """Share of misses so far; None before the first step."""
        return self._n_missed / self._n if self._n else None

    @property
    def bound(self) -> float:
        """Greatest possible distance of :attr:`miscoverage` from alpha; +inf before the first step."""
        if self._n == 0:
            return math.inf
        return (max(self.start, 1 - self.start) + self.gamma) / (self.gamma * self._n)

    @property
    def statement(self) -> str:
        """The guarantee, and what was seen, in words."""
        text = (
            f"The share of cases whose set of labels misses the true one tends to {self.alpha:.6g}, "
            f"whatever the cases are and however they change, provided that the true label of each case is "
            f"told before the next set is given. It is an average over time: it does not hold for any single "
            f"case, and misses may come together."
        )
        if self._n == 0:
            return text
        return text + (
            f" After {self._n} cases the share is {self.miscoverage:.6g}; it cannot be further from "
            f"{self.alpha:.6g} than {self.bound:.6g}"
            + (", which says nothing yet." if self.bound >= max(self.alpha, 1 - self.alpha) else ".")
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready record of the whole state."""
        return {
            "kind": "adaptive_level",
            "version": 1,
            "alpha": self.alpha,
            "gamma": self.gamma,
            "start": self.start,
            "n": self._n,
            "n_missed": self._n_missed,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AdaptiveLevel:
        """Go on from what :meth:`to_dict` wrote."""
        record = read_record(_Record, data)
        level = cls(record.alpha, gamma=record.gamma, start=record.start)
        level._n, level._n_missed = record.n, record.n_missed
        slack = 1e-9 * (1 + level.gamma * record.n)
        if not (
            record.n_missed <= record.n and -level.gamma - slack <= level.value <= 1 + level.gamma + slack
        ):
            raise InvalidInput("the record contradicts itself", seen=dict(data), remedy="start anew")
        return level
