"""The size of a training, known before anything is loaded, against the training itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.integration.test_hf_training import configure, train
from tests.tiny_models import ARCHITECTURES, save_tiny
from transformers import AutoModelForCausalLM

from finetune.adapters.hf.estimate import estimate_size
from finetune.adapters.hf.trees import tree_logits
from finetune.domain.token_tree import TokenTree


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

    def estimate(precision: str, **training):
        config = configure(folder, training={"token_tree": False, **training})
        return estimate_size(config, lambda name: name, precision)

    plain, half = estimate("fp32"), estimate("bf16")
    kept = estimate("fp32", gradient_checkpointing=True)
    assert half.weights * 2 == plain.weights
    assert half.activations < plain.activations
    assert kept.activations * 8 < plain.activations
    assert "weights 0.2 MiB" in plain.sentence()


def test_the_estimate_speaks_of_what_will_run(tmp_path):
    folder = save_tiny("qwen2", tmp_path)

    def estimate(**training):
        return estimate_size(configure(folder, training=training), lambda name: name, "fp32")

    padded = estimate(token_tree=False, per_device_batch_size=4)
    assert padded.tree_tokens is None
    assert "a step on rows of full length needs" in padded.sentence()
    tree = estimate(tree_tokens=500)
    assert tree.tree_tokens == 500
    assert "a step on token trees of 500 tokens, the most that they may have, needs" in tree.sentence()
    automatic = estimate(tree_tokens="auto", per_device_batch_size=4)
    assert 256 <= automatic.tree_tokens <= 4 * 256
    assert automatic.activations <= 1.1 * padded.activations, "the mask takes a tenth of the rest at most"


@pytest.mark.parametrize("trees", [False, True], ids=["padded", "tree"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_activations_are_estimated_to_within_a_third(tmp_path, dropout, trees):
    """Against what autograd really keeps for the backward pass, the vocabulary logits left out."""
    folder = save_tiny("qwen2", tmp_path)
    training = {"per_device_batch_size": 2, "token_tree": trees, "tree_tokens": 300}
    config = configure(folder, lora={"dropout": dropout}, training=training)
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
        if trees:
            tree = TokenTree()
            tree.add([1] * 200)
            tree.add([1] * 100 + [2] * 100)
            tree_logits(model, tree, np.array([199]))
        else:
            model(input_ids=torch.ones((2, length), dtype=torch.long), logits_to_keep=1, use_cache=False)
    estimate = estimate_size(config, lambda name: name, "fp32").activations
    assert sum(kept.values()) / 1.33 < estimate < sum(kept.values()) * 1.33
