"""The causal backend: trainer, opener and tokeniser of a language model."""

from __future__ import annotations

from dataclasses import dataclass

from finetune.adapters.hf.encoder import EncoderOpener
from finetune.adapters.hf.exporter import HfExporter
from finetune.adapters.hf.loading import ResolveModel
from finetune.adapters.hf.model import HfModelOpener
from finetune.adapters.hf.trainer import HfTrainer


@dataclass(frozen=True)
class CausalBackend:
    """A causal language model with a LoRA adapter.

    Parameters
    ----------
    resolve
        Turns a model id into what transformers loads (a folder, or the id itself).
    """

    resolve: ResolveModel

    def trainer(self) -> HfTrainer:
        """Return the trainer of LoRA adapters."""
        return HfTrainer(self.resolve)

    def models(self) -> HfModelOpener:
        """Return what loads a base model with its adapter."""
        return HfModelOpener(self.resolve)

    def exporter(self) -> HfExporter:
        """Return what merges an adapter into its base model."""
        return HfExporter(self.resolve)

    def encoders(self) -> EncoderOpener:
        """Return what opens a tokeniser."""
        return EncoderOpener(self.resolve)
