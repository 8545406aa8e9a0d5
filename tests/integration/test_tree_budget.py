"""The token budget of a tree: the two shares that it is derived from, and what bounds it from below."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Glm4MoeConfig, PreTrainedModel, Qwen2Config

from finetune.adapters.hf.loading import quiet
from finetune.adapters.hf.row_attention import attend_in_rows
from finetune.adapters.hf.tree_budget import (
    ATTENTION_SHARE,
    MASK_SHARE,
    ROW_MEMORY,
    active_weights,
    kept_bytes,
    scoring_budget,
    token_budget,
)

# Qwen2.5-0.5B; a layer has 2 * 896 * (896 + 128) weights in attention and 3 * 896 * 4864 in the MLP.
HALF_BILLION = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
}
NARROW = {**HALF_BILLION, "hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 4}
LAYER = 2 * 896 * (896 + 128) + 3 * 896 * 4864
ONE = 10 * 896 + 4 * 4864


def weightless(config, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=dtype)


def test_attention_costs_at_most_half_of_the_linear_layers():
    budget = token_budget(weightless(Qwen2Config(**HALF_BILLION)), longest=100)
    assert budget == 4160
    assert 4 * budget * 896 * 24 <= ATTENTION_SHARE * 2 * LAYER * 24 < 4 * (budget + 1) * 896 * 24


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kept", "numbers"), [("checkpoints", 24 * 896 + ONE), ("cache", 2 * 24 * 2 * 64 + ONE)]
)
def test_the_mask_takes_at_most_its_share_of_what_is_kept(kept, numbers, dtype):
    budget = token_budget(weightless(Qwen2Config(**HALF_BILLION), dtype), longest=100, kept=kept)
    width = dtype.itemsize

    def mask_is_small(tokens: int) -> bool:
        return tokens**2 * (width + 1) <= MASK_SHARE * tokens * width * numbers

    assert mask_is_small(budget)
    assert not mask_is_small(budget + 1)


def test_a_budget_is_never_below_the_longest_sequence():
    assert token_budget(weightless(Qwen2Config(**NARROW)), longest=5000) == 5000


def test_in_narrow_models_a_tree_holds_what_makes_a_row_cheapest():
    config = Qwen2Config(**NARROW, vocab_size=400)
    model = weightless(config)
    shared, own = 300, 10
    budget = token_budget(model, longest=100, shared=shared)
    assert budget > token_budget(model, longest=100)
    rows = np.arange(1, 400)
    tokens = shared + rows * own
    operations = 2 * active_weights(model) * tokens + 4 * 64 * 24 * tokens**2
    assert abs(int(tokens[(operations / rows).argmin()]) - budget) <= own


@pytest.mark.parametrize("keys", [0, 700])
def test_in_rows_a_scored_tree_takes_a_stated_memory(keys):
    model = weightless(Qwen2Config(**NARROW))
    dense = scoring_budget(model, keys)
    assert dense == token_budget(model, longest=1, kept="cache")
    attend_in_rows(model, enabled=True)
    budget = scoring_budget(model, keys)
    a_token = kept_bytes(model, "cache") + 2 * 5 * keys
    assert budget * a_token <= ROW_MEMORY < (budget + 1) * a_token
    assert budget > 4 * dense


def test_in_rows_a_large_model_may_have_what_one_mask_allows():
    model = weightless(Qwen2Config(**HALF_BILLION))
    dense = scoring_budget(model, 0)
    attend_in_rows(model, enabled=True)
    assert scoring_budget(model, 100_000) == dense


def test_of_the_experts_those_count_that_a_token_meets():
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "moe_intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "n_shared_experts": 1,
        "first_k_dense_replace": 0,
    }
    attention, expert = 2 * 32 * (32 + 16), 3 * 32 * 16
    for routed in (1, 2):
        config = Glm4MoeConfig(**sizes, n_routed_experts=8, num_experts_per_tok=routed)
        assert active_weights(weightless(config)) == attention + (1 + routed) * expert


def test_an_adapter_adds_its_own_weights_only():
    model = weightless(Qwen2Config(**HALF_BILLION, vocab_size=400))
    plain = active_weights(model)
    assert plain == LAYER * 24
    with quiet():
        wrapped = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"]))
    assert active_weights(wrapped) == plain + 24 * 4 * 2 * 896
