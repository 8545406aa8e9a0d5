"""The size of a training, known before anything is loaded, against the training itself."""

from __future__ import annotations

import pytest
from tests.integration.test_hf_training import configure, train
from tests.tiny_models import ARCHITECTURES, save_tiny

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
    assert half.activations * 2 == plain.activations
    assert kept.activations * 17 == plain.activations
    assert "weights 0.2 MiB" in plain.sentence()
