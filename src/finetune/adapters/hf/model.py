"""Opening a trained run: base model, adapter, scorer and writer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from torch import nn

from finetune.adapters.hf.checks import check_fits, open_scorer
from finetune.adapters.hf.encoder import HfEncoder
from finetune.adapters.hf.loading import (
    ResolveModel,
    base_hash,
    choose_device,
    choose_precision,
    folder_hash,
    load_base,
    load_tokenizer,
    quiet,
)
from finetune.adapters.hf.scorer import CausalLabelScorer
from finetune.adapters.hf.writer import CausalRationaleWriter
from finetune.application.config import ProjectConfig
from finetune.application.ports import ModelIdentity
from finetune.domain.errors import IntegrityError
from finetune.domain.labels import LabelSet
from finetune.domain.prompts import PromptFormat


@dataclass(frozen=True)
class HfDecisionModel:
    """A loaded causal LM with its two sides, which share the weights."""

    identity: ModelIdentity
    scorer: CausalLabelScorer
    writer: CausalRationaleWriter

    @property
    def notice(self) -> str:
        """How batches run, and why, in one sentence."""
        return self.scorer.path.reason


class HfModelOpener:
    """Opens runs with transformers and peft.

    Parameters
    ----------
    resolve
        Turns a model id into what transformers loads (a folder, or the id itself).
    """

    def __init__(self, resolve: ResolveModel) -> None:
        self._resolve = resolve

    def open(
        self, config: ProjectConfig, labels: LabelSet, prompt: PromptFormat, adapter: Path | None
    ) -> HfDecisionModel:
        """Load the base model with an adapter (``None``: the base alone).

        Raises
        ------
        InvalidInput
            The base model cannot be found.
        IntegrityError
            Base or adapter are damaged, or the adapter was made for another model.
        """
        precision = choose_precision(config.training.bf16)
        model = load_base(config, self._resolve, precision)
        hashed = base_hash(model, config.model_id, self._resolve)
        if adapter is not None:
            model = with_adapter(model, adapter)
        model.to(choose_device())
        model.eval()
        encoder = HfEncoder(load_tokenizer(config, self._resolve), labels, prompt, config.training.max_length)
        options = config.prediction
        check_fits(model, encoder)
        scorer = open_scorer(model, encoder, options)
        return HfDecisionModel(
            identity=ModelIdentity(
                base=config.model_id,
                base_hash=hashed,
                adapter="" if adapter is None else adapter.name,
                adapter_hash="" if adapter is None else folder_hash(adapter),
                prompt_hash=prompt.fingerprint(),
                encoder_hash=encoder.fingerprint(),
                precision=precision,
                prune=scorer.engine.prune,
            ),
            scorer=scorer,
            writer=CausalRationaleWriter(scorer.engine, encoder, options.max_rationale_tokens),
        )


def with_adapter(model: nn.Module, adapter: Path) -> PeftModel:
    """Load the adapter in a folder onto a base model.

    Raises
    ------
    IntegrityError
        There is none, it is damaged, or it was made for another model.
    """
    weights = adapter / "adapter_model.safetensors"
    if not weights.is_file() or not (adapter / "adapter_config.json").is_file():
        raise IntegrityError(
            "there is no adapter here",
            where=str(adapter),
            remedy="run `finetune train`, or copy the run again",
        )
    try:
        with quiet():
            wrapped = PeftModel.from_pretrained(model, str(adapter))
        with safe_open(weights, framework="pt") as file:
            stored = set(file.keys())
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise IntegrityError(
            f"the adapter cannot be loaded: {' '.join(str(error).split())[:300]}",
            where=str(adapter),
            remedy="it is damaged, or was made for another base model or other labels; copy it again, or "
            "train again",
        ) from error
    # peft drops weights it finds no module for, and leaves modules it finds no weights for at zero.
    stray = stored ^ set(get_peft_model_state_dict(wrapped, save_embedding_layers=False))
    if stray:
        raise IntegrityError(
            f"the adapter was made for another model: {len(stray)} of its weights do not fit this one",
            where=str(adapter),
            seen=min(stray),
            remedy="give the base model it was trained on as model_id, or train again",
        )
    return wrapped
