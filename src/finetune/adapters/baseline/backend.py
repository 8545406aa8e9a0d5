"""The baseline as a backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from finetune.adapters.baseline.model import BaselineOpener
from finetune.adapters.baseline.trainer import BaselineTrainer
from finetune.application.characters import CharacterEncoder
from finetune.application.config import ProjectConfig
from finetune.domain.labels import LabelSet
from finetune.domain.prompts import PromptFormat


@dataclass(frozen=True)
class BaselineBackend:
    """Logistic regression on character n-grams.

    Parameters
    ----------
    resolve
        Not used: there is no model to find.
    """

    resolve: Callable[[str], str]

    def trainer(self) -> BaselineTrainer:
        """Return what fits it."""
        return BaselineTrainer()

    def models(self) -> BaselineOpener:
        """Return what loads it."""
        return BaselineOpener()

    def encoders(self) -> Callable[[ProjectConfig, LabelSet, PromptFormat], CharacterEncoder]:
        """Return what shows its input."""
        return _open_encoder


def _open_encoder(config: ProjectConfig, _labels: LabelSet, _prompt: PromptFormat) -> CharacterEncoder:
    return CharacterEncoder(config.data.max_text_chars)
