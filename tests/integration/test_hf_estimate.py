"""The size of a training, known before anything is loaded, against the training itself."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.integration.test_hf_training import configure, train
from tests.tiny_models import ARCHITECTURES, save_tiny
from transformers import AutoModelForCausalLM

from finetune.adapters.hf.estimate import estimate_size


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_parameters_are_counted_as_they_will_be(kind, tmp_path):
    config = configure(save_tiny(kind, tmp_path / "model"), training={"max_steps": 1})
    size = estimate_size(config, lambda name: name, "fp32")
    outcome = train(config, tmp_path / "run")
    assert size.trainable == outcome.trainable_parameters
    assert size.parameters == outcome.total_parameters
    assert size.weights == 4 * (size.parameters - size.trainable)


def test_checkpointing_and_precision_shrink_the_estimate(tmp_path):
    folder = save_tiny("qwen2", tmp_path)
    plain = estimate_size(configure(folder), lambda name: name, "fp32")
    half = estimate_size(configure(folder), lambda name: name, "bf16")
    kept = estimate_size(
        configure(folder, training={"gradient_checkpointing": True}), lambda name: name, "fp32"
    )
    assert half.weights * 2 == plain.weights
    assert half.activations < plain.activations
    assert kept.activations * 8 < plain.activations
    assert "weights 0.2 MiB" in plain.sentence()


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_activations_are_estimated_to_within_a_third(tmp_path, dropout):
    """Against what autograd really keeps for the backward pass, the vocabulary logits left out."""
    folder = save_tiny("qwen2", tmp_path)
    config = configure(folder, lora={"dropout": dropout}, training={"per_device_batch_size": 2})
    lora = LoraConfig(r=16, lora_dropout=dropout, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), lora).train()
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        held.append(tensor)  # so that no address is used twice
        return tensor

    held: list[torch.Tensor] = []
    length = config.training.max_length
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(input_ids=torch.ones((2, length), dtype=torch.long), logits_to_keep=1, use_cache=False)
    estimate = estimate_size(config, lambda name: name, "fp32").activations
    assert sum(kept.values()) / 1.33 < estimate < sum(kept.values()) * 1.33
