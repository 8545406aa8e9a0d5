"""From the prompt section of a configuration to the domain's prompt format."""

from __future__ import annotations

from finetune.application.config import PromptConfig
from finetune.domain.labels import LabelSet
from finetune.domain.prompts import PromptFormat, default_prompt


def build_prompt(config: PromptConfig, labels: LabelSet) -> PromptFormat:
    """Return the instructions of a run; everything that is not set comes from the label set."""
    written = default_prompt(labels, list_labels=config.list_labels, descriptions=config.descriptions)
    return PromptFormat(
        system=written.system if config.system is None else config.system,
        template=config.template,
    )
