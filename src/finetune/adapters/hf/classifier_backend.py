"""The encoder backend: opening encoders with a classification head, and showing what they read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig

from finetune.adapters.hf.classifier_model import (
    WHERE,
    TextEncoder,
    load_classifier,
    load_text_encoder,
    positions_of,
)
from finetune.adapters.hf.classifier_scorer import NOTICE, ClassifierScorer
from finetune.adapters.hf.classifier_trainer import ClassifierTrainer
from finetune.adapters.hf.loading import (
    ResolveModel,
    base_hash,
    choose_device,
    choose_precision,
    explain_failure,
    folder_hash,
)
from finetune.adapters.hf.model import with_adapter
from finetune.application.config import ProjectConfig
from finetune.application.ports import EncodedExample, ModelIdentity
from finetune.domain.errors import InvalidInput
from finetune.domain.examples import Example
from finetune.domain.labels import LabelSet
from finetune.domain.prompts import PromptFormat


@dataclass(frozen=True)
class ClassifierModel:
    """A loaded encoder with its head; it writes no rationales."""

    identity: ModelIdentity
    scorer: ClassifierScorer
    notice: str = NOTICE
    writer: None = None


class ClassifierOpener:
    """Opens tuned encoders.

    Parameters
    ----------
    resolve
        Turns a model id into what transformers loads.
    """

    def __init__(self, resolve: ResolveModel) -> None:
        self._resolve = resolve

    def open(
        self, config: ProjectConfig, labels: LabelSet, prompt: PromptFormat, adapter: Path | None
    ) -> ClassifierModel:
        """Load the encoder with adapter and head; the prompt is not used.

        Raises
        ------
        InvalidInput
            The encoder cannot be found, or there is no adapter: the head is made in training.
        IntegrityError
            Encoder or adapter are damaged, or the adapter was made for another model or other labels.
        """
        if adapter is None:
            raise InvalidInput(
                "an encoder has no head before its training",
                where="backend",
                seen="encoder",
                remedy="leave out --base, or choose the causal backend",
            )
        precision = choose_precision(config.training.bf16)
        base = load_classifier(config, self._resolve, len(labels.outcomes), precision)
        settings = config.encoder
        hashed = base_hash(base.encoder, settings.model_id, self._resolve, WHERE)
        encoder = load_text_encoder(config, self._resolve, positions_of(base.config))
        model = with_adapter(base, adapter)
        model.to(choose_device())
        model.eval()
        return ClassifierModel(
            ModelIdentity(
                base=settings.model_id,
                base_hash=hashed,
                adapter=adapter.name,
                adapter_hash=folder_hash(adapter),
                prompt_hash=_digest("no prompt"),
                encoder_hash=_digest(
                    [encoder.tokenizer.backend_tokenizer.to_str(), encoder.max_length, settings.pooling]
                ),
                precision=precision,
                prune=0.0,
            ),
            ClassifierScorer(model, encoder, labels.outcomes, config.prediction.batch_size),
        )


class ShownText:
    """Shows what an encoder reads: the tokens of the text, and no answer."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder

    def encode(self, example: Example) -> EncodedExample:
        """Return the tokens of the text; the loss counts none of them, but the label."""
        ids, removed = self._encoder.ids(example.text)
        return EncodedExample(tuple(ids), len(ids), removed)

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Return the readable text of each token."""
        return [f"{self._encoder.tokenizer.convert_ids_to_tokens(i)} " for i in ids]


class ShownTextOpener:
    """Opens the tokeniser of an encoder, without any weights."""

    def __init__(self, resolve: ResolveModel) -> None:
        self._resolve = resolve

    def __call__(self, config: ProjectConfig, labels: LabelSet, prompt: PromptFormat) -> ShownText:
        """Return the encoder that training and scoring use."""
        settings = config.encoder
        source = self._resolve(settings.model_id)
        try:
            found = AutoConfig.from_pretrained(
                source, revision=settings.revision, trust_remote_code=config.trust_remote_code
            )
        except (OSError, ValueError, KeyError) as error:
            raise explain_failure(error, settings.model_id, source, WHERE) from error
        return ShownText(load_text_encoder(config, self._resolve, positions_of(found)))


@dataclass(frozen=True)
class EncoderBackend:
    """An encoder such as BERT or MiniLM with a LoRA adapter and a classification head.

    Parameters
    ----------
    resolve
        Turns a model id into what transformers loads (a folder, or the id itself).
    """

    resolve: ResolveModel

    def trainer(self) -> ClassifierTrainer:
        """Return the trainer of adapters and heads."""
        return ClassifierTrainer(self.resolve)

    def models(self) -> ClassifierOpener:
        """Return what loads an encoder with adapter and head."""
        return ClassifierOpener(self.resolve)

    def encoders(self) -> ShownTextOpener:
        """Return what opens a tokeniser."""
        return ShownTextOpener(self.resolve)


def _digest(document: object) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
