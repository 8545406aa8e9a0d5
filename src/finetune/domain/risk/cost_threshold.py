"""A threshold that bounds the expected cost, with its evidence, its sentence and its record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from finetune.domain.checks import (
    Count,
    Extended,
    as_count,
    as_level,
    read_extended,
    read_record,
    write_extended,
)
from finetune.domain.errors import InvalidInput
from finetune.domain.risk.wording import ORDER_MATTERS, confidence_text


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    kind: Literal["cost_threshold"]
    version: Literal[1]
    threshold: Extended
    n_calibration: Count
    n_answered: Count
    mean_cost: float
    upper_bound: float
    level_used: float
    cost_level: float
    max_cost: float
    delta: float
    bound: Literal["binomial", "hoeffding_bentkus", "wsr"]


@dataclass(frozen=True)
class CostThreshold:
    """A threshold and the evidence that what is answered above it is cheap enough.

    Parameters
    ----------
    threshold
        Answer where the score is at least this; -inf: answer everything that may be answered.
    n_calibration, n_answered
        Calibration rows, and those answered at the threshold.
    mean_cost
        Mean cost of those answered.  With ``"wsr"``, which may decide on the first rows, it can be above
        ``cost_level``.
    upper_bound
        Upper bound on the expected cost at ``level_used``; at most ``cost_level`` but for rounding.  It
        shows how much room the test left: the promise is ``cost_level``.
    level_used
        Level at which this threshold was tested, a part of ``delta``.
    cost_level, max_cost, delta, bound
        What was asked for.
    """

    threshold: float
    n_calibration: int
    n_answered: int
    mean_cost: float
    upper_bound: float
    level_used: float
    cost_level: float
    max_cost: float
    delta: float
    bound: str

    def __post_init__(self) -> None:
        as_level(self.delta, name="delta")
        as_count(self.n_answered, name="n_answered")
        if (
            not self.threshold < math.inf
            or self.n_answered > self.n_calibration
            or not 0.0 <= self.mean_cost <= self.max_cost
            or not 0.0 < self.cost_level < self.max_cost
        ):
            raise InvalidInput("the threshold contradicts itself", seen=self, remedy="calibrate again")

    @property
    def statement(self) -> str:
        """The guarantee in words."""
        order = f" {ORDER_MATTERS}" if self.bound == "wsr" else ""
        return (
            f"With confidence {confidence_text(self.delta)}, the cases that are answered cost at most "
            f"{self.cost_level:.6g} each on average, where one case costs at most {self.max_cost:.6g}. The "
            f"confidence is over the draw of the {self.n_calibration} calibration cases; {self.n_answered} "
            f"of them would have been answered, at {self.mean_cost:.6g} each. It is provided that "
            f"calibration cases and new cases are independent draws from the same population,{order} and "
            "that the calibration cases were used neither to train the model, nor to fit its calibration "
            "map, nor to choose the costs. It is an average over answered cases: it does not hold for each "
            "label, each group or each single case, and it does not count what abstention costs."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready record; an infinite threshold is written as ``"-inf"``."""
        record = {"kind": "cost_threshold", "version": 1, **asdict(self)}
        return {**record, "threshold": write_extended(self.threshold)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CostThreshold:
        """Read what :meth:`to_dict` wrote."""
        fields = read_record(_Record, data).model_dump(exclude={"kind", "version"})
        return cls(**{**fields, "threshold": read_extended(fields["threshold"])})
