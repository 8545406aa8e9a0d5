"""Which modules LoRA adapts, by architecture, and the proof that each requested name was found.

peft's own table lacks ``glm`` and ``glm4``, and a target list made for another architecture leaves
modules unadapted without a warning; hence a table of our own and an assertion after wrapping.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from torch import nn
from transformers import PreTrainedModel

from finetune.application.config import ProjectConfig
from finetune.application.ports import Progress
from finetune.domain.errors import InvalidInput

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
GATED_MLP = ("gate_proj", "up_proj", "down_proj")
FUSED_MLP = ("gate_up_proj", "down_proj")

# Mixture-of-experts models: attention only.  A target ending in gate/up/down_proj would be rewritten to
# all experts (billions of parameters), and "all-linear" would adapt the router.
TARGET_MODULES: dict[str, tuple[str, ...]] = {
    "chatglm": ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
    "glm": ATTENTION + FUSED_MLP,
    "glm4": ATTENTION + FUSED_MLP,
    "glm4_moe": ATTENTION,
    "llama": ATTENTION + GATED_MLP,
    "mistral": ATTENTION + GATED_MLP,
    "qwen2": ATTENTION + GATED_MLP,
    "qwen2_moe": ATTENTION,
    "qwen3": ATTENTION + GATED_MLP,
    "qwen3_moe": ATTENTION,
}


def linear_names(model: nn.Module) -> list[str]:
    """Return the sorted last name parts of all linear layers but the output embedding."""
    output = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    return sorted(
        {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and module is not output
        }
    )


def choose_target_modules(model: PreTrainedModel, requested: Sequence[str] | str) -> list[str]:
    """Return the module names LoRA will adapt.

    Parameters
    ----------
    model
        The base model, before wrapping.
    requested
        ``"auto"``, or names (the last part of a module path).

    Raises
    ------
    InvalidInput
        A requested name matches no linear layer, or ``auto`` does not know a mixture-of-experts model.
    """
    kind = model.config.model_type
    available = linear_names(model)
    if requested == "auto":
        if kind in TARGET_MODULES:
            return list(TARGET_MODULES[kind])
        if any("expert" in name for name, _ in model.named_modules()):
            raise InvalidInput(
                "target_modules: auto does not know this mixture-of-experts architecture",
                where="target_modules",
                seen=kind,
                remedy=f"list the attention layers; linear layers here: {', '.join(available)}",
            )
        if not available:
            raise InvalidInput(
                "this architecture has no linear layers that LoRA could adapt",
                where="model_id",
                seen=kind,
                remedy="choose a model of a current decoder architecture, such as Qwen2.5 or GLM-4",
            )
        return available
    names = [requested] if isinstance(requested, str) else list(requested)
    missing = [name for name in names if name not in available]
    if missing:
        raise InvalidInput(
            f"no linear layer of this {kind} model has the name {', '.join(missing)}",
            where="target_modules",
            seen=names,
            remedy=f"use auto, or names among: {', '.join(available)}",
        )
    return names


def adapted_modules(model: nn.Module) -> dict[str, int]:
    """Count the modules that carry a LoRA adapter, by the last part of their name."""
    return dict(
        Counter(
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if hasattr(module, "lora_A") and len(module.lora_A) > 0
        )
    )


def assert_adapted(model: nn.Module, requested: Sequence[str]) -> dict[str, int]:
    """Return :func:`adapted_modules`, after checking that every requested name was adapted.

    Raises
    ------
    InvalidInput
        A requested name was left unadapted.
    """
    counts = adapted_modules(model)
    silent = [name for name in requested if counts.get(name, 0) == 0]
    if silent:
        raise InvalidInput(
            f"LoRA left {', '.join(silent)} unadapted",
            where="target_modules",
            seen=counts,
            remedy="remove these names from target_modules, or use auto",
        )
    return counts


def say_adapted(progress: Progress, precision: str, counts: Mapping[str, int], config: ProjectConfig) -> None:
    """Say which modules are adapted, and where code of others is run."""
    adapted = ", ".join(f"{count} {name}" for name, count in counts.items())
    progress.say(f"adapting in {precision}: {adapted}")
    if config.trust_remote_code:
        progress.say("trust_remote_code is on: code from the model's repository is being run")
