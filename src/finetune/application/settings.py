"""What is asked of probabilities, whatever model they come from: map, prediction sets, risk."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Probability = Annotated[float, Field(gt=0.0, lt=1.0)]

OPTIONS = {"penalty": "raps", "k_reg": "raps", "weight": "saps"}
"""Keys of ``conformal`` that belong to one method, and to which."""


class Section(BaseModel):
    """A part of the configuration: immutable, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def fingerprint(self, *keys: str) -> str:
        """SHA-256 (hex) of the named top-level keys, or of the whole section.

        Examples
        --------
        >>> RiskConfig().fingerprint("level") == RiskConfig(level=0.2).fingerprint("level")
        False
        """
        document = self.model_dump(mode="json", include=set(keys) if keys else None)
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


class CalibrationConfig(Section):
    """How the model's probabilities are mended before anything is decided from them."""

    map: Literal[
        "temperature",
        "vector",
        "matrix",
        "dirichlet",
        "platt",
        "isotonic",
        "beta",
        "histogram",
        "auto",
        "none",
    ] = "temperature"


class ConformalConfig(Section):
    """Prediction sets that hold the truth with probability at least 1 − alpha.

    Options are those of :class:`finetune.domain.conformal.ConformalPredictor`, whose values hold where they
    are null.
    """

    method: Literal["lac", "aps", "raps", "saps", "margin", "topk"] = "lac"
    alpha: Probability = 0.1
    penalty: float | None = Field(None, ge=0.0)
    k_reg: int | None = Field(None, ge=0)
    weight: float | None = Field(None, ge=0.0)

    @model_validator(mode="after")
    def _options_of_the_method(self) -> ConformalConfig:
        for name in self.options:
            if OPTIONS[name] != self.method:
                raise ValueError(f"{name} is an option of the method {OPTIONS[name]}, not of {self.method}")
        return self

    @property
    def options(self) -> dict[str, Any]:
        """The options that were given, by name: numbers."""
        given = {name: getattr(self, name) for name in OPTIONS}
        return {name: value for name, value in given.items() if value is not None}


class RiskConfig(Section):
    """Error among answered ≤ ``level`` with probability ≥ 1 − ``delta`` over calibration draws.

    ``out_of_scope`` is the share of messages like those of calibration that may be handed over as being about
    none of the labels; null hands none over for that.
    """

    level: Probability = 0.1
    delta: Probability = 0.1
    on_infeasible: Literal["error", "abstain"] = "error"
    abstain_on_ambiguous_set: bool = False
    out_of_scope: Probability | None = None


class GuaranteeConfig(Section):
    """What ``finetune calibrate --probabilities`` may be told; every key has a default.

    ``validation`` is the share of the rows that fit the map where no file of validation rows is given.
    """

    version: Literal[1] = 1
    seed: int = Field(0, ge=0)
    validation: float = Field(0.2, ge=0.0, lt=1.0)
    calibration: CalibrationConfig = CalibrationConfig()
    conformal: ConformalConfig = ConformalConfig()  # type: ignore[call-arg]
    risk: RiskConfig = RiskConfig()
