"""An encoder with a classification head, and what it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from finetune.adapters.hf.loading import ResolveModel, accepts, explain_failure, quiet
from finetune.application.config import ProjectConfig
from finetune.domain.errors import InvalidInput
from finetune.domain.prompts import shorten_text

HEAD = "head"
WHERE = "encoder.model_id"
# Their positions begin behind that of the padding token.
_SHIFTED = ("camembert", "longformer", "roberta", "xlm-roberta", "xlm-roberta-xl")
# A tokeniser that knows no limit says a very large number.
_NO_LIMIT = 1 << 20


class Pooled(NamedTuple):
    """Inputs of one forward: token ids and which of them are no padding, ``(B, T)`` each."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor


class PooledClassifier(nn.Module):
    """Logits of classes from one vector a text: the mean over its tokens, or that of the first.

    Parameters
    ----------
    encoder
        Any transformers encoder, without a pooler of its own.
    n_classes
        K.
    pooling
        ``mean`` or ``cls``.

    References
    ----------
    Reimers, N., Gurevych, I. (2019). Sentence-BERT. EMNLP, sec. 3 (mean pooling).
    """

    def __init__(self, encoder: PreTrainedModel, n_classes: int, pooling: str) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = encoder.config
        self.pooling = pooling
        self.head = nn.Linear(encoder.config.hidden_size, n_classes, dtype=encoder.dtype)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return logits, ``(B, K)`` float32."""
        logits: torch.Tensor = self.head(self.pool(input_ids, attention_mask))
        return logits.float()

    def pool(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return one vector a text, ``(B, hidden)``."""
        found = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        states: torch.Tensor = found.last_hidden_state
        if self.pooling == "cls":
            return states[:, 0]
        seen = attention_mask[:, :, None].to(states.dtype)
        return (states * seen).sum(dim=1) / seen.sum(dim=1)


class ClassifiedText(NamedTuple):
    """Tokens of a text and the index of its label, which the loss counts as one token behind them."""

    ids: tuple[int, ...]
    answer_start: int
    removed_chars: int
    label: int
    weight: float = 1.0


class TextEncoder:
    """Texts to token ids: the text alone, without instructions.

    Parameters
    ----------
    tokenizer
        The encoder's own.
    max_length
        Tokens that a text may take, special ones included.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.pad_id = int(tokenizer.pad_token_id or 0)

    def ids(self, text: str) -> tuple[list[int], int]:
        """Return the ids of a text, and how many characters were left out of its middle to make it fit."""
        # A token covers at least one character of almost any text: a very long one is not tokenised whole.
        upper = min(len(text), 64 * self.max_length)
        ids = self._ids(shorten_text(text, upper)[0])
        if len(ids) <= self.max_length:
            return ids, len(text) - upper
        low, high, best = 0, upper, (self._ids("")[: self.max_length], len(text))
        while low <= high:
            keep = (low + high) // 2
            ids = self._ids(shorten_text(text, keep)[0])
            if len(ids) <= self.max_length:
                best, low = (ids, len(text) - keep), keep + 1
            else:
                high = keep - 1
        return best

    def pad(self, rows: Sequence[Sequence[int]], device: torch.device) -> Pooled:
        """Return a rectangle of rows, padded on the right."""
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), self.pad_id)
        seen = torch.zeros((len(rows), longest), dtype=torch.long)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            seen[row, : len(tokens)] = 1
        return Pooled(ids.to(device), seen.to(device))

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, verbose=False)["input_ids"])


def load_classifier(
    config: ProjectConfig, resolve: ResolveModel, n_classes: int, precision: str
) -> PooledClassifier:
    """Load an encoder and put a new head on it, in evaluation mode.

    Raises
    ------
    InvalidInput
        The name is unknown, needs remote code that is not allowed, or is no encoder.
    IntegrityError
        A local folder is damaged.
    """
    settings = config.encoder
    source = resolve(settings.model_id)
    try:
        with quiet():
            encoder = AutoModel.from_pretrained(
                source,
                revision=settings.revision,
                trust_remote_code=config.trust_remote_code,
                dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
                use_safetensors=True,
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise explain_failure(error, settings.model_id, source, WHERE) from error
    if encoder.config.is_encoder_decoder or not accepts(encoder, "attention_mask"):
        raise InvalidInput(
            "this is no encoder",
            where=WHERE,
            seen=encoder.config.model_type,
            remedy="choose BERT or the like",
        )
    # It would be adapted, and never used.
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    return PooledClassifier(encoder, n_classes, settings.pooling).eval()


def load_text_encoder(config: ProjectConfig, resolve: ResolveModel, positions: int | None) -> TextEncoder:
    """Load the encoder's tokeniser.

    Parameters
    ----------
    config
        ``training.max_length`` holds where the model can read as much.
    resolve
        Turns a model id into what transformers loads.
    positions
        Tokens that the model can read; None where it has no limit.
    """
    settings = config.encoder
    source = resolve(settings.model_id)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=settings.revision, trust_remote_code=config.trust_remote_code
        )
    except (OSError, ValueError, KeyError) as error:
        raise explain_failure(error, settings.model_id, source, WHERE) from error
    limits = [config.training.max_length]
    limits += [limit for limit in (positions, tokenizer.model_max_length) if limit and limit < _NO_LIMIT]
    return TextEncoder(tokenizer, min(limits))


def positions_of(model_config: object) -> int | None:
    """Return how many tokens an encoder of this configuration can read."""
    positions = getattr(model_config, "max_position_embeddings", None)
    if positions is None:
        return None
    if getattr(model_config, "model_type", "") in _SHIFTED:
        return int(positions) - int(getattr(model_config, "pad_token_id", 0) or 0) - 1
    return int(positions)
