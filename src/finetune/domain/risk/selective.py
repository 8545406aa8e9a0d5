"""Selective risk: the loosest threshold at which the answers given are proven to be right often enough."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from finetune.domain.checks import (
    Count,
    Extended,
    as_count,
    as_flags,
    as_level,
    as_vector,
    read_extended,
    read_record,
    write_extended,
)
from finetune.domain.errors import InfeasibleGuarantee, InvalidInput
from finetune.domain.risk.bounds import binomial_p_value, error_free_rows_needed
from finetune.domain.risk.candidates import count_at_least, start_weights, threshold_grid
from finetune.domain.risk.wording import confidence_text
from finetune.domain.statistics.intervals import binomial_upper_bound
from finetune.domain.statistics.multiplicity import fallback_sequence


def selective_threshold(
    scores: npt.ArrayLike,
    errors: npt.ArrayLike,
    risk_level: float,
    delta: float,
    eligible: npt.ArrayLike | None = None,
) -> SelectiveThreshold:
    """Loosest threshold whose selective risk is shown to be at most ``risk_level``.

    Answered are the eligible rows that :func:`~finetune.domain.risk.actions.answers` picks.  The candidates
    are a fixed grid; from the strictest to the loosest, "the risk at this candidate is above
    ``risk_level``" is tested by the exact binomial test and rejected by the fallback procedure at the
    family-wise level ``delta``.

    Parameters
    ----------
    scores
        Shape (n,): how sure each row's action is, as a log-odds: see
        :func:`~finetune.domain.risk.actions.confidence_logit`.  The grid is made for that scale
        (:func:`~finetune.domain.risk.candidates.threshold_grid`) and ends with -inf, "answer everything
        eligible".
    errors
        Shape (n,): whether the row's action is wrong, bool or 0 and 1.
    risk_level
        Error rate allowed among answered rows, in (0, 1).
    delta
        Probability allowed, over the draw of these rows, that the threshold returned breaks it, in (0, 1).
    eligible
        Shape (n,), bool: rows that a rule fixed beforehand lets be answered at all; None: all.

    Returns
    -------
    SelectiveThreshold
        The threshold and the evidence for it.

    Raises
    ------
    InvalidInput
        If the input is not as above.
    InfeasibleGuarantee
        If no candidate passes.  ``needed`` is the smallest number of eligible rows that would do, all right.

    Notes
    -----
    Proven: P(risk at the returned threshold > risk_level) <= delta, for any model, any score and any shape
    of the risk in the threshold, if the rows are independent draws from the population that is met later
    and the score and the rule were fixed without them.  Proof: the candidates and the weights depend on
    ``risk_level`` alone.  At a fixed candidate, given how many rows are answered, the errors are
    Binomial(answered, risk), so the p-value is valid; nobody answered gives p = 1.  The fallback procedure
    rejects any true hypothesis with probability at most ``delta`` under any dependence, so whichever
    rejected candidate is taken, the loosest here, is covered.

    Not promised: the risk of a label or a group, or of a single case; anything after the population has
    shifted; anything for a threshold or a level picked after looking at several results.

    The weights (:func:`~finetune.domain.risk.candidates.start_weights`) decide power only.

    References
    ----------
    Geifman, Y. and El-Yaniv, R. (2017). Selective classification for deep neural networks. NeurIPS, sec. 3.
    Angelopoulos, Bates, Candès, Jordan, Lei (2021). Learn then test. arXiv:2110.01052, prop. 1 and thm. 1.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> scores = rng.normal(3.0, 2.0, size=2000)
    >>> errors = rng.random(2000) > 1 / (1 + np.exp(-scores))
    >>> found = selective_threshold(scores, errors, risk_level=0.05, delta=0.1)
    >>> found.n_answered > 1500, found.upper_bound <= 0.05
    (True, True)
    """
    risk_level, delta = as_level(risk_level, name="risk_level"), as_level(delta, name="delta")
    values = as_vector(scores, name="scores")
    wrong = as_flags(errors, n_rows=len(values), name="errors")
    allowed = np.ones(len(values), bool)
    if eligible is not None:
        allowed = as_flags(eligible, n_rows=len(values), name="eligible")
    grid, weights = threshold_grid(), start_weights(risk_level)
    answered = count_at_least(values[allowed], grid)
    failed = count_at_least(values[allowed & wrong], grid)
    p_values = binomial_p_value(failed, answered, risk_level)
    rejected, levels = fallback_sequence(p_values, weights, delta)
    if not rejected.any():
        needed = selective_rows_needed(risk_level, delta)
        raise InfeasibleGuarantee(
            f"no threshold is proven to keep the error rate among answered cases at or below {risk_level:g} "
            f"with confidence {confidence_text(delta)}",
            seen=f"{len(values)} rows, {answered[-1]} that may be answered, {failed[-1]} of them wrong",
            remedy=f"{needed} answered rows without an error would be enough; calibrate with more rows, "
            "allow a greater risk_level or delta, or improve the model",
            needed=needed,
        )
    loosest = int(np.flatnonzero(rejected)[-1])
    return SelectiveThreshold(
        threshold=float(grid[loosest]),
        n_calibration=len(values),
        n_answered=int(answered[loosest]),
        n_errors=int(failed[loosest]),
        upper_bound=binomial_upper_bound(
            int(failed[loosest]), int(answered[loosest]), float(levels[loosest])
        ),
        level_used=float(levels[loosest]),
        risk_level=risk_level,
        delta=delta,
    )


def selective_rows_needed(risk_level: float, delta: float) -> int:
    """Smallest number of eligible rows, all right, with which :func:`selective_threshold` finds one.

    Whatever their scores: it counts with the share of ``delta`` that "answer everything" starts with.

    Examples
    --------
    >>> selective_rows_needed(0.05, 0.1)
    77
    """
    risk_level, delta = as_level(risk_level, name="risk_level"), as_level(delta, name="delta")
    return error_free_rows_needed(risk_level, float(start_weights(risk_level).max()) * delta)


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    kind: Literal["selective_threshold"]
    version: Literal[1]
    threshold: Extended
    n_calibration: Count
    n_answered: Count
    n_errors: Count
    upper_bound: float
    level_used: float
    risk_level: float
    delta: float


@dataclass(frozen=True)
class SelectiveThreshold:
    """A threshold and the evidence for it.

    Parameters
    ----------
    threshold
        Answer where the score is at least this; -inf: answer everything that may be answered.
    n_calibration, n_answered, n_errors
        Calibration rows, those answered at the threshold, and those of them that were wrong.
    upper_bound
        Clopper-Pearson upper bound on the risk at ``level_used``; at most ``risk_level``.  It shows how much
        room the test left: the promise is ``risk_level``.
    level_used
        Level at which this threshold was tested, a part of ``delta``.
    risk_level, delta
        What was asked for.
    """

    threshold: float
    n_calibration: int
    n_answered: int
    n_errors: int
    upper_bound: float
    level_used: float
    risk_level: float
    delta: float

    def __post_init__(self) -> None:
        as_level(self.risk_level, name="risk_level")
        as_level(self.delta, name="delta")
        as_count(self.n_errors, name="n_errors", minimum=0)
        if not self.threshold < math.inf or not self.n_errors <= self.n_answered <= self.n_calibration:
            raise InvalidInput("the threshold contradicts itself", seen=self, remedy="calibrate again")

    @property
    def statement(self) -> str:
        """The guarantee in words."""
        return (
            f"With confidence {confidence_text(self.delta)}, at most a fraction {self.risk_level:.6g} of the "
            "cases that are answered get a wrong answer. The confidence is over the draw of the "
            f"{self.n_calibration} calibration cases; {self.n_answered} of them would have been answered, "
            f"{self.n_errors} of these wrongly. It is provided that calibration cases and new cases are "
            "independent draws from the same population, and that the calibration cases were used neither to "
            "train the model, nor to fit its calibration map, nor to choose the costs. It is an average over "
            "answered cases: it does not hold for each label, each group or each single case."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready record; an infinite threshold is written as ``"-inf"``."""
        return {
            "kind": "selective_threshold",
            "version": 1,
            "threshold": write_extended(self.threshold),
            "n_calibration": self.n_calibration,
            "n_answered": self.n_answered,
            "n_errors": self.n_errors,
            "upper_bound": self.upper_bound,
            "level_used": self.level_used,
            "risk_level": self.risk_level,
            "delta": self.delta,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SelectiveThreshold:
        """Read what :meth:`to_dict` wrote."""
        fields = read_record(_Record, data).model_dump(exclude={"kind", "version"})
        return cls(**{**fields, "threshold": read_extended(fields["threshold"])})
