"""The baseline as a backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from finetune.adapters.baseline.model import BaselineOpener
from finetune.adapters.baseline.trainer import BaselineTrainer
from finetune.application.config import ProjectConfig
from finetune.application.ports import EncodedExample
from finetune.domain.examples import Example
from finetune.domain.labels import LabelSet
from finetune.domain.prompts import PromptFormat, shorten_text


class CharacterEncoder:
    """Shows what the baseline reads: the characters of the text, and no answer."""

    def __init__(self, max_chars: int) -> None:
        self._max_chars = max_chars

    def encode(self, example: Example) -> EncodedExample:
        """Return the code points of the text; the loss counts none of them, but the label."""
        text, removed = shorten_text(example.text, self._max_chars)
        return EncodedExample(tuple(map(ord, text)), len(text), removed)

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Return the characters."""
        return [chr(code) for code in ids]


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
