"""What scorer, writer and validation ask of a model, whichever way batches run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from finetune.adapters.hf.encoder import HfEncoder
from finetune.application.ports import ProgressTask
from finetune.domain.checks import FloatArray

# Vocabulary logits of one forward may take this many float32 values (256 MiB).
LOGIT_BUDGET = 64 * 1024 * 1024


class LabelSums(NamedTuple):
    """Scores of ``n`` prompts.

    ``sums`` (n, K): log-probability of each outcome's tokens, closing quote included;
    ``left_out`` (n,): bound on what pruning can have moved, see
    :class:`~finetune.domain.label_tree.LabelWalk`.
    """

    sums: FloatArray
    left_out: FloatArray


class Engine(ABC):
    """Runs prompts through a model: label scores, and greedy continuations.

    Parameters
    ----------
    model
        A causal LM, wrapped by peft or not.
    encoder
        Its encoder.
    batch_size
        Prompts of one batch, at most.

    Attributes
    ----------
    prune
        Largest share of a prompt's label mass that may be left out.
    """

    prune = 0.0

    def __init__(self, model: PreTrainedModel, encoder: HfEncoder, batch_size: int) -> None:
        self.model = model
        self.encoder = encoder
        self.batch_size = batch_size

    @contextmanager
    def session(self) -> Iterator[None]:
        """Hold the model in evaluation mode; of a model that was in training, nothing is kept after it."""
        training = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(training)
            if training:
                self.forget()

    @abstractmethod
    def forget(self) -> None:
        """Drop what is kept of the model between calls; to be called when its weights have changed."""

    @abstractmethod
    def score(self, prompts: Sequence[Sequence[int]], task: ProgressTask | None = None) -> LabelSums:
        """Score all outcomes after each prompt; the task advances by one for each."""

    @abstractmethod
    def write(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        *,
        stop_at_quote: bool,
        task: ProgressTask | None = None,
    ) -> list[str]:
        """Continue prompts greedily and return the new text of each, without control tokens.

        Parameters
        ----------
        prompts
            Token ids.
        max_new_tokens
            Cap on the tokens of each.
        stop_at_quote
            Whether the first unescaped quote ends a text.
        task
            Advanced by one for each prompt.

        Notes
        -----
        The most probable token is taken each time; penalties and other settings in the model's generation
        configuration are not applied.  A text ends before the first token that ends a turn.
        """

    @property
    def ends(self) -> set[int]:
        """The tokens that end a turn."""
        ids = self.model.generation_config.eos_token_id
        return {self.encoder.end_id, *([ids] if isinstance(ids, int) else ids or [])}

    def readable(self, tokens: Sequence[int]) -> str:
        """Return the text of new tokens up to the end of the turn."""
        ends = self.ends
        length = next((n for n, token in enumerate(tokens) if token in ends), len(tokens))
        return str(self.encoder.tokenizer.decode(tokens[:length], skip_special_tokens=True))


def log_softmax(logits: torch.Tensor) -> torch.Tensor:
    """Return log-probabilities in float32: in bf16 they would be off by 1e-2."""
    return torch.log_softmax(logits.float(), dim=-1)
