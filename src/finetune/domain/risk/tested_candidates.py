"""What learn-then-test found, with its evidence, its sentence and its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from finetune.domain.checks import Count, as_level, read_record
from finetune.domain.errors import InvalidInput
from finetune.domain.risk.wording import ORDER_MATTERS, confidence_text

_TESTS = {
    "binomial": "the exact binomial test",
    "hoeffding_bentkus": "the Hoeffding-Bentkus inequality",
    "wsr": "the betting test of Waudby-Smith and Ramdas, on the rows in the order given",
}
_PROCEDURES = {
    "bonferroni": "Bonferroni's correction",
    "holm": "Holm's procedure",
    "fixed_sequence": "testing in a fixed sequence",
    "fallback": "the fallback procedure",
}


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    kind: Literal["learn_then_test"]
    version: Literal[1]
    accepted: list[int]
    p_values: list[float]
    levels: list[float]
    mean_losses: list[list[float | None]]
    n_calibration: Count
    risk_levels: list[float]
    delta: float
    method: Literal["bonferroni", "holm", "fixed_sequence", "fallback"]
    bound: Literal["binomial", "hoeffding_bentkus", "wsr"]


@dataclass(frozen=True)
class LearnThenTest:
    """Candidates that keep their risk, and the evidence for them.

    Parameters
    ----------
    accepted
        Their indices, ascending.
    p_values
        Of each of the m candidates, the greatest over the risks.
    levels
        Part of ``delta`` that each candidate was tested at; 0 where the procedure stopped before it.
    mean_losses
        Seen mean loss of each candidate, for each risk; None where no row counted: not estimable.
    n_calibration
        Calibration rows; the most that any candidate was tested on.
    risk_levels, delta
        What was asked for.
    method, bound
        How it was tested.
    """

    accepted: tuple[int, ...]
    p_values: tuple[float, ...]
    levels: tuple[float, ...]
    mean_losses: tuple[tuple[float | None, ...], ...]
    n_calibration: int
    risk_levels: tuple[float, ...]
    delta: float
    method: str
    bound: str

    def __post_init__(self) -> None:
        m = len(self.p_values)
        for level in (*self.risk_levels, self.delta):
            as_level(level, name="risk_level or delta")
        if (
            not self.accepted
            or list(self.accepted) != sorted(set(self.accepted))
            or not (self.accepted[0] >= 0 and self.accepted[-1] < m)
            or any(len(row) != m for row in (self.levels, *self.mean_losses))
            or len(self.mean_losses) != len(self.risk_levels)
            or any(self.p_values[j] > self.levels[j] * (1 + 1e-9) for j in self.accepted)
        ):
            raise InvalidInput("the tested candidates contradict themselves", seen=self, remedy="test again")

    @property
    def statement(self) -> str:
        """The guarantee in words."""
        levels = " and ".join(f"{level:.6g}" for level in self.risk_levels)
        order = f" {ORDER_MATTERS}" if self.bound == "wsr" else ""
        risks = "the mean loss is" if len(self.risk_levels) == 1 else "the mean losses are, in their order,"
        return (
            f"With confidence {confidence_text(self.delta)}, {risks} at most {levels} under each of the "
            f"{len(self.accepted)} accepted of {len(self.p_values)} candidate settings, whichever of them is "
            f"used. The confidence is over the draw of the {self.n_calibration} calibration cases; tested by "
            f"{_TESTS[self.bound]} and {_PROCEDURES[self.method]}. It is provided that calibration cases and "
            f"new cases are independent draws from the same population,{order} and that the candidates, and "
            "their order where they have one, were fixed without the calibration cases. It is an average "
            "over cases: it does not hold for each label, each group or each single case."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready record."""
        return {"kind": "learn_then_test", "version": 1, **_lists(asdict(self))}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LearnThenTest:
        """Read what :meth:`to_dict` wrote."""
        fields = read_record(_Record, data).model_dump(exclude={"kind", "version"})
        return cls(**{name: _tuples(value) for name, value in fields.items()})


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _lists(item) for name, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, tuple) else value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
