"""A tuned model as plain weights, for transformers and vLLM."""

from __future__ import annotations

from pathlib import Path

import torch

from finetune.adapters.hf.loading import ResolveModel, choose_precision, load_base, load_tokenizer, quiet
from finetune.adapters.hf.model import with_adapter
from finetune.application.config import ProjectConfig
from finetune.domain.errors import IntegrityError
from finetune.domain.labels import LabelSet
from finetune.domain.prompts import PromptFormat


class HfExporter:
    """Merges adapters into their base models.

    Parameters
    ----------
    resolve
        Turns a model id into what transformers loads.
    """

    def __init__(self, resolve: ResolveModel) -> None:
        self._resolve = resolve

    def export(
        self, config: ProjectConfig, labels: LabelSet, prompt: PromptFormat, adapter: Path, folder: Path
    ) -> None:
        """Write merged safetensors, configuration, tokeniser and chat template.

        The sum is made in float32 and rounded once; ``training.bf16`` says to what.

        Raises
        ------
        IntegrityError
            The merged weights are not finite numbers.
        """
        precision = choose_precision(config.training.bf16)
        tuned = with_adapter(load_base(config, self._resolve, "fp32"), adapter)
        try:
            with quiet():
                merged = tuned.merge_and_unload(safe_merge=True)
        except ValueError as error:
            raise IntegrityError(
                f"the adapter cannot be merged: {error}", where=str(adapter), remedy="train again"
            ) from error
        if precision == "bf16":
            merged = merged.to(torch.bfloat16)
        with quiet():
            merged.save_pretrained(str(folder))
            load_tokenizer(config, self._resolve).save_pretrained(str(folder))
