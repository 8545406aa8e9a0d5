"""Models as the use cases see them: tokens, label scores, rationales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from finetune.application.config import ProjectConfig
from finetune.application.ports.progress import ProgressTask
from finetune.domain.examples import Example
from finetune.domain.labels import LabelSet
from finetune.domain.prompts import PromptFormat


class EncodedExample(NamedTuple):
    """One prompt with its answer as token ids; the loss counts ``ids[answer_start:]`` only.

    ``label`` is the index of the right outcome, whose tokens begin at ``label_start``; ``weight`` is what the
    row counts in the loss.
    """

    ids: tuple[int, ...]
    answer_start: int
    removed_chars: int
    label_start: int = 0
    label: int = 0
    weight: float = 1.0


class PromptEncoder(Protocol):
    """Turns an example into tokens exactly as training does."""

    def encode(self, example: Example) -> EncodedExample:
        """Encode one labelled example, shortening its text (and nothing else) to ``max_length``."""

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Return the readable text of each token."""


class EncoderOpener(Protocol):
    """Opens the tokeniser of a configuration, without any weights."""

    def __call__(self, config: ProjectConfig, labels: LabelSet, prompt: PromptFormat) -> PromptEncoder:
        """Return the encoder that training will use."""


class LabelScores(NamedTuple):
    """What a model says of ``n`` texts.

    ``log_probabilities`` (n, K) float64, rows normalised, columns in the order of the outcomes;
    ``label_mass`` (n,) evidence for all outcomes together, finite: of a language model the natural log of
    their probability mass (≤ 0), too large by ``-log(1 - left_out)`` at most; of other models any number
    that is lower for texts unlike those of training, or 0;
    ``removed_chars`` (n,) characters left out because the text did not fit;
    ``left_out`` (n,) the largest total variation distance that the probabilities can have from those of
    labels that are all scored to their ends: 0 where they were, at most ``prediction.prune`` elsewhere.
    """

    log_probabilities: NDArray[np.float64]
    label_mass: NDArray[np.float64]
    removed_chars: NDArray[np.int64]
    left_out: NDArray[np.float64]

    def part(self, rows: NDArray[np.int64] | slice) -> LabelScores:
        """Return some of the rows."""
        return LabelScores(
            self.log_probabilities[rows],
            self.label_mass[rows],
            self.removed_chars[rows],
            self.left_out[rows],
        )


class LabelScorer(Protocol):
    """Gives every outcome its log-probability."""

    @property
    def outcomes(self) -> tuple[str, ...]:
        """Names of the columns of :class:`LabelScores`."""

    def score(self, texts: Sequence[str], task: ProgressTask | None = None) -> LabelScores:
        """Score every outcome for every text; the result does not depend on the batch."""


class RationaleWriter(Protocol):
    """Writes why, after the decision was made."""

    def write(
        self, texts: Sequence[str], decisions: Sequence[str], task: ProgressTask | None = None
    ) -> list[str]:
        """Return one rationale per text; it cannot change the decision."""


@dataclass(frozen=True)
class ModelIdentity:
    """What a certificate is bound to: names for people, SHA-256 (hex) for machines."""

    base: str
    base_hash: str
    adapter: str
    adapter_hash: str
    prompt_hash: str
    encoder_hash: str
    """Of everything between a prompt and its tokens: tokeniser, chat template, length limit."""
    precision: str
    prune: float
    """Largest share of a text's label mass that its scores leave out."""


class DecisionModel(Protocol):
    """A loaded model: its scorer and, if it can write, a writer that shares the weights."""

    @property
    def notice(self) -> str:
        """How batches run, and why, in one sentence."""

    @property
    def identity(self) -> ModelIdentity:
        """What exactly was loaded."""

    @property
    def scorer(self) -> LabelScorer:
        """The scoring side."""

    @property
    def writer(self) -> RationaleWriter | None:
        """The writing side; None for a model that cannot write."""


class ModelOpener(Protocol):
    """Loads a trained run."""

    def open(
        self, config: ProjectConfig, labels: LabelSet, prompt: PromptFormat, adapter: Path | None
    ) -> DecisionModel:
        """Load the base model of ``config`` with the adapter in a folder (``None``: the base alone)."""
