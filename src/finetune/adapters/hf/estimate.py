"""How large a training will be, from the configuration alone: nothing is downloaded or allocated."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from finetune.adapters.hf.architectures import choose_target_modules
from finetune.adapters.hf.loading import ResolveModel, explain_failure
from finetune.adapters.hf.training_plan import choose_training_path
from finetune.adapters.hf.tree_gate import TreeChoice, find_objection
from finetune.adapters.hf.tree_training import choose_tree_tokens
from finetune.application.config import ProjectConfig


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


@dataclass(frozen=True)
class TrainingSize:
    """Parameters and bytes of one training process.

    ``weights`` and ``optimiser`` (adapter, its gradients, two Adam moments in float32) are exact;
    ``activations`` is an estimate for the largest forward: padded rows of full length, or a token tree of
    ``tree_tokens`` with its mask.  ``tree_tokens`` is None where batches are padded.
    """

    parameters: int
    trainable: int
    weights: int
    optimiser: int
    activations: int
    tree_tokens: int | None

    @property
    def total(self) -> int:
        """Bytes at the peak of a step, to within the estimate."""
        return self.weights + self.optimiser + self.activations

    def sentence(self) -> str:
        """Return one line for people."""
        parts = (("weights", self.weights), ("optimiser", self.optimiser), ("activations", self.activations))
        forward = (
            "rows of full length"
            if self.tree_tokens is None
            else f"token trees of {self.tree_tokens:,} tokens, the most that they may have,"
        )
        return (
            f"{self.parameters:,} parameters, of which LoRA adds {self.trainable:,}; a step on {forward} "
            f"needs about {_size(self.total)} ({', '.join(f'{n} {_size(b)}' for n, b in parts)})"
        )


def estimate_size(config: ProjectConfig, resolve: ResolveModel, precision: str) -> TrainingSize:
    """Count parameters on the meta device and estimate what a training step needs.

    Parameters
    ----------
    config
        The run's configuration; only the model's ``config.json`` is read.
    resolve
        Turns a model id into what transformers loads.
    precision
        ``bf16`` or ``fp32``.

    Raises
    ------
    InvalidInput
        The model is unknown, has no module of a name in ``target_modules``, or cannot run the token trees
        that are demanded.

    Notes
    -----
    Whether trees run is read from the configuration here; the numerical check follows with the weights.

    Kept for the backward pass, for each token: in a layer about 10 vectors of the hidden size and 4 of the
    MLP's, in the compute precision; for each adapted module its input in float32, and a mask of one byte with
    dropout; with activation checkpointing only each layer's input.  Attention scores are not among them
    (SDPA).  The method is that of Korthikanti et al. 2022, "Reducing Activation Recomputation in Large
    Transformer Models", sec. 4, for gated MLPs and LoRA.
    """
    source = resolve(config.model_id)
    try:
        model_config = AutoConfig.from_pretrained(
            source, revision=config.revision, trust_remote_code=config.trust_remote_code
        )
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                model_config,
                dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
                trust_remote_code=config.trust_remote_code,
            )
    except (OSError, ValueError, KeyError) as error:
        raise explain_failure(error, config.model_id, source) from error
    targets = choose_target_modules(model, config.target_modules)
    rank = config.lora.r
    adapted = [
        module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.rpartition(".")[2] in targets
    ]
    trainable = sum(rank * (module.in_features + module.out_features) for module in adapted)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    width = 2 if precision == "bf16" else 4
    settings = config.training
    text = model_config.get_text_config()
    length = settings.max_length
    tokens, mask, tree_tokens = settings.per_device_batch_size * length, 0, None
    objection = find_objection(model, length)
    allowed = TreeChoice("tree" if objection is None else "padded", f"Batches are padded: {objection}.")
    if choose_training_path(allowed, settings).path == "tree":
        # Before the rows are known: as large as it can be, for it grows with what they share.
        in_rows = text._attn_implementation == "sdpa"
        tree_tokens = choose_tree_tokens(model, settings, longest=length, shared=length, in_rows=in_rows)
        tokens, mask = tree_tokens, (width + 1) * tree_tokens * (length if in_rows else tree_tokens)
    hidden, layers = text.hidden_size, text.num_hidden_layers
    if settings.gradient_checkpointing:
        per_token = width * hidden * layers
    else:
        # In float32 without dropout LoRA's input is the layer's own, which is counted already.
        extra = 5 if config.lora.dropout else 4 if precision == "bf16" else 0
        inputs = sum(module.in_features for module in adapted) * extra
        per_token = width * layers * (10 * hidden + 4 * text.intermediate_size) + inputs
    return TrainingSize(
        parameters=parameters + trainable,
        trainable=trainable,
        weights=parameters * width,
        optimiser=trainable * 16,
        activations=per_token * tokens + mask,
        tree_tokens=tree_tokens,
    )
