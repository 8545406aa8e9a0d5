"""Selective risk of each group or each decided label: thresholds that hold for all at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from finetune.domain.checks import (
    BoolArray,
    Count,
    FloatArray,
    as_count,
    as_flags,
    as_labels,
    as_level,
    as_vector,
    read_record,
)
from finetune.domain.errors import InfeasibleGuarantee, InvalidInput
from finetune.domain.risk.actions import answers
from finetune.domain.risk.selective import (
    SelectiveThreshold,
    selective_rows_needed,
    selective_threshold,
)
from finetune.domain.risk.wording import confidence_text


class Abstained(NamedTuple):
    """A group for which nothing could be proven, so that none of its rows is answered.

    ``n_calibration`` rows were there; ``needed`` without an error would be enough; ``reason`` is the error.
    """

    n_calibration: int
    needed: int
    reason: str


def group_thresholds(
    scores: npt.ArrayLike,
    errors: npt.ArrayLike,
    groups: npt.ArrayLike,
    risk_level: float,
    delta: float,
    *,
    n_groups: int,
    eligible: npt.ArrayLike | None = None,
) -> GroupThresholds:
    """Loosest threshold of each group at which its own selective risk is shown to be at most ``risk_level``.

    Parameters
    ----------
    scores, errors, risk_level, eligible
        As in :func:`~finetune.domain.risk.selective.selective_threshold`.
    groups
        Shape (n,): group of each row, in [0, n_groups): known before the answer, or the decided label
        itself (with any number for rows that are not eligible, such as 0).
    delta
        Probability allowed, over the draw of these rows, that the threshold of **any** group breaks the
        level: each group is searched at delta / n_groups.
    n_groups
        Number of groups that can occur, fixed without these rows.

    Returns
    -------
    GroupThresholds
        A threshold for each group, or why there is none: then the group is never answered.

    Raises
    ------
    InvalidInput
        If the input is not as above.
    InfeasibleGuarantee
        If there is none for any group.  ``needed`` is the number of rows of one group that would do.

    Notes
    -----
    Given the groups of the rows, those of one group are independent draws from its population, for which
    the guarantee of :func:`~finetune.domain.risk.selective.selective_threshold` holds; the union bound over
    the groups makes it simultaneous.  By decided label the risk is that among the cases that get this
    label: one minus the precision.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> scores = rng.normal(3.0, 2.0, size=3010)
    >>> errors = rng.random(3010) > 1 / (1 + np.exp(-scores))
    >>> groups = np.repeat([0, 1, 2], [2000, 1000, 10])
    >>> found = group_thresholds(scores, errors, groups, 0.1, 0.1, n_groups=3)
    >>> found.thresholds.round(2).tolist(), found.groups[2].needed
    ([0.5, 0.31, inf], 48)
    """
    risk_level, delta = as_level(risk_level, name="risk_level"), as_level(delta, name="delta")
    n_groups = as_count(n_groups, name="n_groups")
    values = as_vector(scores, name="scores")
    wrong = as_flags(errors, n_rows=len(values), name="errors")
    members = as_labels(groups, n_rows=len(values), n_labels=n_groups, name="groups")
    allowed = np.ones(len(values), bool)
    if eligible is not None:
        allowed = as_flags(eligible, n_rows=len(values), name="eligible")
    found = tuple(
        _of_group(values[own], wrong[own], allowed[own], risk_level, delta / n_groups)
        for own in (members == group for group in range(n_groups))
    )
    if all(isinstance(group, Abstained) for group in found):
        needed = min(group.needed for group in found if isinstance(group, Abstained))
        raise InfeasibleGuarantee(
            f"no group has a threshold that is proven to keep the error rate at or below {risk_level:g} for "
            f"all groups at once with confidence {confidence_text(delta)}",
            seen=f"{len(values)} rows in {n_groups} groups",
            remedy=f"{needed} answered rows of a group without an error would be enough for that group; "
            "calibrate with more rows, join groups, or allow a greater risk_level or delta",
            needed=needed,
        )
    return GroupThresholds(found, risk_level, delta)


class _Abstained(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    n_calibration: Count
    needed: Count
    reason: str


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    kind: Literal["group_thresholds"]
    version: Literal[1]
    groups: list[dict[str, Any]]
    risk_level: float
    delta: float


@dataclass(frozen=True)
class GroupThresholds:
    """A threshold for each group, and the evidence for it.

    Parameters
    ----------
    groups
        What was found for each: a threshold, or why the group is not answered.
    risk_level, delta
        What was asked for, of every group and of all at once.
    """

    groups: tuple[SelectiveThreshold | Abstained, ...]
    risk_level: float
    delta: float

    def __post_init__(self) -> None:
        as_level(self.risk_level, name="risk_level")
        as_level(self.delta, name="delta")
        found = [group for group in self.groups if isinstance(group, SelectiveThreshold)]
        if not found or any(group.risk_level != self.risk_level for group in found):
            raise InvalidInput("the thresholds contradict themselves", seen=self, remedy="calibrate again")

    @property
    def thresholds(self) -> FloatArray:
        """Least score that is answered in each group, shape (n_groups,); +inf: nothing is."""
        return np.array([math.inf if isinstance(g, Abstained) else g.threshold for g in self.groups])

    def answers(self, scores: npt.ArrayLike, groups: npt.ArrayLike) -> BoolArray:
        """Whether each row is answered, by its score and its group; all of shape (n,)."""
        values = as_vector(scores, name="scores")
        members = as_labels(groups, n_rows=len(values), n_labels=len(self.groups), name="groups")
        return answers(values, self.thresholds[members])

    @property
    def statement(self) -> str:
        """The guarantee in words."""
        silent = [str(i) for i, group in enumerate(self.groups) if isinstance(group, Abstained)]
        none = f" Nothing is answered in these groups: {', '.join(silent)}." if silent else ""
        return (
            f"With confidence {confidence_text(self.delta)}, in each of the {len(self.groups)} groups at "
            f"most a fraction {self.risk_level:.6g} of the cases that are answered get a wrong answer.{none} "
            "The confidence is over the draw of the calibration cases, and holds for all groups at once. It "
            "is provided that calibration cases and new cases are independent draws from the same "
            "population, and that the calibration cases were used neither to train the model, nor to fit its "
            "calibration map, nor to choose the costs or the groups. It is an average over the answered "
            "cases of a group: it does not hold for each single case."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready record."""
        return {
            "kind": "group_thresholds",
            "version": 1,
            "groups": [g._asdict() if isinstance(g, Abstained) else g.to_dict() for g in self.groups],
            "risk_level": self.risk_level,
            "delta": self.delta,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> GroupThresholds:
        """Read what :meth:`to_dict` wrote."""
        record = read_record(_Record, data)
        groups = tuple(
            SelectiveThreshold.from_dict(group)
            if "kind" in group
            else Abstained(**read_record(_Abstained, group).model_dump())
            for group in record.groups
        )
        return cls(groups, record.risk_level, record.delta)


def _of_group(
    scores: FloatArray, errors: BoolArray, eligible: BoolArray, risk_level: float, delta: float
) -> SelectiveThreshold | Abstained:
    needed = selective_rows_needed(risk_level, delta)
    if not len(scores):
        return Abstained(0, needed, "there is no calibration row of this group")
    try:
        return selective_threshold(scores, errors, risk_level, delta, eligible)
    except InfeasibleGuarantee as error:
        return Abstained(len(scores), needed, error.what)
