"""How large a training will be, from the configuration alone: nothing is downloaded or allocated."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from finetune.adapters.hf.architectures import choose_target_modules
from finetune.adapters.hf.loading import ResolveModel, explain_failure
from finetune.application.config import ProjectConfig



def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


@dataclass(frozen=True)
class TrainingSize:
    """Parameters and bytes of one training process.

    ``weights`` and ``optimiser`` (adapter, its gradients, two Adam moments in float32) are exact;
    ``activations`` is an estimate for rows of full length.
    """

    parameters: int
    trainable: int
    weights: int
    optimiser: int
    activations: int

    @property
    def total(self) -> int:
        """Bytes at the peak of a step, to within the estimate."""
        return self.weights + self.optimiser + self.activations

    def sentence(self) -> str:
        """Return one line for people."""
        parts = (("weights", self.weights), ("optimiser", self.optimiser), ("activations", self.activations))
        return (
            f"{self.parameters:,} parameters, of which LoRA adds {self.trainable:,}; a step on rows of full "
            f"length needs about {_size(self.total)} ({', '.join(f'{n} {_size(b)}' for n, b in parts)})"
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
        The model is unknown, or has no module of a name in ``target_modules``.

    References
    ----------
    Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models", eq. 2: 34·s·b·h
    bytes a layer in 16 bits; attention scores are left out because SDPA does not store them.  With
    activation checkpointing only the layers' inputs are kept, 2·s·b·h.
    """
    source = resolve(config.model_id)
    try:
        model_config = AutoConfig.from_pretrained(
            source, revision=config.revision, trust_remote_code=config.trust_remote_code
        )
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                model_config, trust_remote_code=config.trust_remote_code
            )
    except (OSError, ValueError, KeyError) as error:
        raise explain_failure(error, config.model_id, source) from error
    targets = choose_target_modules(model, config.target_modules)
    rank = config.lora.r
    trainable = sum(
        rank * (module.in_features + module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.rpartition(".")[2] in targets
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    width = 2 if precision == "bf16" else 4
    settings = config.training
    text = model_config.get_text_config()
    tokens = settings.per_device_batch_size * settings.max_length
    per_layer = (1 if settings.gradient_checkpointing else 17) * width * tokens * text.hidden_size
    return TrainingSize(
        parameters=parameters + trainable,
        trainable=trainable,
        weights=parameters * width,
        optimiser=trainable * 16,
        activations=per_layer * text.num_hidden_layers,
    )
