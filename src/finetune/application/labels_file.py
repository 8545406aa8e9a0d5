"""What ``configs/labels.yaml`` may say, and its translation into the domain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field

from finetune.application.settings import Section
from finetune.domain.labels import ABSTAIN, Abstention, Label, LabelSet


class LabelEntry(Section):
    """One label: its name in the answers, what it means, and other spellings of it."""

    model_config = ConfigDict(coerce_numbers_to_str=True)  # ``aliases: [911]``

    name: str
    description: str = ""
    aliases: tuple[str, ...] = ()


class AbstainEntry(Section):
    """What counts as not decidable, and how the data spell it."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    description: str = ""
    aliases: tuple[str, ...] = ()


class Costs(Section):
    """Cost of deciding the column when the row is true; a right decision costs 0."""

    default: float = Field(1.0, ge=0.0)
    abstain: float = Field(0.3, ge=0.0)
    pairs: Mapping[str, Mapping[str, float]] = Field(default_factory=dict)


class LabelsFile(Section):
    """The whole file."""

    version: Literal[1] = 1
    task: str = Field(min_length=1)
    labels: tuple[LabelEntry, ...]
    abstain: AbstainEntry | None = None
    costs: Costs = Costs()  # type: ignore[call-arg]

    def label_set(self) -> LabelSet:
        """Return the domain's label set; :class:`InvalidInput` where names clash or are too few."""
        return LabelSet(
            task=self.task,
            labels=tuple(Label(entry.name, entry.description, entry.aliases) for entry in self.labels),
            abstention=None
            if self.abstain is None
            else Abstention(self.abstain.description, self.abstain.aliases),
        )

    def without_abstention(self) -> LabelsFile:
        """Return the same labels without the abstention outcome (for data that hold no such example)."""
        pairs = {true: decided for true, decided in self.costs.pairs.items() if true != ABSTAIN}
        costs = self.costs.model_copy(update={"pairs": pairs})
        return self.model_copy(update={"abstain": None, "costs": costs})

    def document(self) -> dict[str, Any]:
        """Return plain data for YAML."""
        return self.model_dump(mode="json", exclude_none=True)
