"""Which models run trees: those that the gate stops would be wrong, those that it lets through are right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.integration.test_tree_equality import (
    CONFIGS,
    EXPERTS,
    ROWS,
    SIZES,
    build,
    build_kind,
    with_lora,
    worst_difference,
)
from transformers import (
    BloomConfig,
    FalconH1Config,
    Gemma3TextConfig,
    Lfm2Config,
    Llama4TextConfig,
    Mamba2Config,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3_5TextConfig,
    Qwen3NextConfig,
)

from finetune.adapters.hf import tree_gate, trees
from finetune.adapters.hf.row_attention import attends_in_rows
from finetune.adapters.hf.tree_gate import TOLERANCE, choose_path, find_objection
from finetune.domain.token_tree import TokenTree
from finetune.domain.tree_rows import TreeRows, lay_out

LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}


def long_rope() -> dict[str, object]:
    """A fresh one each time: configurations write into theirs."""
    return {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [8.0] * 4,
        "original_max_position_embeddings": 17,
    }


# Models that a tree runs through without an error, and what the gate says of them.
SILENT = {
    "qwen3_next": (Qwen3NextConfig(**SIZES, **EXPERTS, **LINEAR, num_experts=4), "recurrent layers"),
    "qwen3_5": (Qwen3_5TextConfig(**SIZES, **LINEAR), "recurrent layers"),
    "falcon_h1": (
        FalconH1Config(
            **SIZES, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_n_groups=1, mamba_d_state=8
        ),
        "recurrent layers",
    ),
    "lfm2": (Lfm2Config(**SIZES, layer_types=["conv", "full_attention"]), "not masked attention"),
    "mamba2": (
        Mamba2Config(
            vocab_size=120,
            hidden_size=32,
            num_hidden_layers=2,
            num_heads=8,
            head_dim=8,
            state_size=8,
            n_groups=1,
        ),
        "no position_ids",
    ),
    "mistral": (MistralConfig(**SIZES, sliding_window=16), "see 16 tokens, sequences have up to 31"),
    "gemma3": (Gemma3TextConfig(**SIZES, sliding_window=16), "see 16 tokens, sequences have up to 31"),
    "llama4": (
        Llama4TextConfig(**SIZES, num_local_experts=2, attention_chunk_size=16, intermediate_size_mlp=64),
        "see 16 tokens, sequences have up to 31",
    ),
    "phi3": (
        Phi3Config(**SIZES, rope_parameters=long_rope(), original_max_position_embeddings=17),
        "longer than 17 tokens",
    ),
}
LONGEST = max(map(len, ROWS))


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_plain_attention_runs_trees(kind, dtype):
    model = build_kind(kind, dtype=dtype).train()
    choice = choose_path(model, LONGEST)
    assert choice.path == "tree"
    assert choice.difference is not None
    assert choice.difference <= TOLERANCE[dtype] / 2
    assert choice.reason.startswith("Batches run as token trees, with attention in rows: ")
    assert f"{choice.difference:.1g}" in choice.reason
    assert model.training


@pytest.mark.parametrize("kind", SILENT)
def test_where_a_tree_would_be_wrong_in_silence_batches_are_padded(kind):
    config, reason = SILENT[kind]
    model = build(config)
    choice = choose_path(model, LONGEST)
    assert choice.path == "padded"
    assert choice.difference is None
    assert reason in choice.reason
    # No error, and numbers that are off by far more than rounding.
    assert worst_difference(model, ROWS) > 0.01


@pytest.mark.parametrize("kind", ["mistral", "gemma3", "llama4", "phi3"])
def test_within_its_window_the_same_model_runs_trees(kind):
    model = build(SILENT[kind][0])
    assert choose_path(model, 16).path == "tree"
    assert worst_difference(model, [row[:16] for row in ROWS]) <= 1e-5


def test_what_goes_wrong_in_the_self_check_is_a_reason(monkeypatch):
    # A cached tree cannot grow in recurrent layers at all.
    monkeypatch.setattr(tree_gate, "find_objection", lambda model, max_length: None)
    choice = choose_path(build(SILENT["qwen3_5"][0]), LONGEST)
    assert choice.path == "padded"
    assert "a small tree ended with" in choice.reason


class LeakyTree(TokenTree):
    """One node sees one token of a sibling, as a wrong kernel or mask would have it."""

    def mask(self, first: int = 0) -> np.ndarray:
        mask = super().mask(first)
        sibling = int(np.flatnonzero(self.depths == self.depths[-1])[0])
        mask[-1, sibling] = True
        return mask


def leaky_rows(tree: TokenTree, run: np.ndarray) -> TreeRows:
    """As leaky as the tree, in rows."""
    rows = lay_out(tree, run)
    token = int(run.max())
    place = int(rows.places[np.flatnonzero(run == token)[0]])
    for group in rows.groups:
        if place < group.queries.size:
            row, query = divmod(place, group.queries.shape[1])
            foreign = np.flatnonzero(~group.sees[row, query])[0]
            group.sees[row, query, foreign] = True
            break
        place -= group.queries.size
    return rows


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", ["glm4", "qwen2", "glm4_moe"])
def test_one_foreign_token_in_sight_is_noticed(kind, dtype, monkeypatch):
    monkeypatch.setattr(tree_gate, "TokenTree", LeakyTree)
    monkeypatch.setattr(trees, "lay_out", leaky_rows)
    model = build_kind(kind, dtype=dtype)
    choice = choose_path(model, LONGEST)
    assert not attends_in_rows(model)
    assert choice.path == "padded"
    assert choice.difference > TOLERANCE[dtype]
    assert f"{TOLERANCE[dtype]:g} is allowed" in choice.reason


def test_rows_come_first_and_masks_where_rows_are_wrong(monkeypatch):
    model = build_kind("qwen2")
    assert "with attention in rows" in choose_path(model, LONGEST).reason
    assert attends_in_rows(model)
    again = choose_path(model, LONGEST)
    assert again.path == "tree"
    monkeypatch.setattr(trees, "lay_out", leaky_rows)
    choice = choose_path(model, LONGEST)
    assert choice.path == "tree"
    assert "with one mask for each tree" in choice.reason
    assert not attends_in_rows(model)


def test_the_small_trees_are_run_in_rows_that_share_a_trunk(monkeypatch):
    found = []

    def noted(tree: TokenTree, run: np.ndarray) -> TreeRows:
        found.append(lay_out(tree, run))
        return found[-1]

    monkeypatch.setattr(trees, "lay_out", noted)
    choose_path(build_kind("qwen2"), 400)
    groups = [group for rows in found for group in rows.groups]
    assert any(len(group.queries) > 1 and group.shared == 20 for group in groups)
    assert any(not group.sees.any(axis=1).all() for group in groups), "keys that nobody sees"


def test_layers_that_take_over_keys_keep_masks(monkeypatch):
    model = build_kind("qwen2")
    model.config.num_kv_shared_layers = 1
    assert "with one mask for each tree" in choose_path(model, LONGEST).reason
    assert not attends_in_rows(model)


def test_eager_attention_keeps_masks():
    model = build_kind("gemma3", "eager")
    assert "with one mask for each tree" in choose_path(model, LONGEST).reason
    assert model.config._attn_implementation == "eager"


def test_a_model_of_nothing_but_nan_runs_no_trees():
    model = build_kind("qwen2")
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    choice = choose_path(model, LONGEST)
    assert choice.path == "padded"
    assert "nan" in choice.reason


def test_an_adapter_changes_nothing():
    model = with_lora(build_kind("qwen2")).train()
    assert choose_path(model, LONGEST).path == "tree"
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("attention", ["flash_attention_2", "flash_attention_3", "flex_attention"])
def test_other_attention_implementations_run_no_trees(attention):
    model = build_kind("qwen2")
    model.config._attn_implementation = attention
    assert f"{attention} attention is not known" in choose_path(model, LONGEST).reason


def test_a_forward_without_positions_runs_no_trees():
    model = build(BloomConfig(vocab_size=120, hidden_size=32, n_layer=2, n_head=4))
    assert "the forward of bloom takes no position_ids" in choose_path(model, LONGEST).reason


def test_rotary_settings_are_read_for_each_type_of_layer():
    plain = {"rope_type": "default", "rope_theta": 10_000.0}
    ropes = {"full_attention": long_rope(), "sliding_attention": plain}
    model = build(Gemma3TextConfig(**SIZES, rope_parameters=ropes))
    assert find_objection(model, 17) is None
    assert "longer than 17 tokens" in find_objection(model, 18)


def test_positions_that_stretch_as_sequences_grow_run_no_trees():
    dynamic = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
    model = build(Qwen2Config(**SIZES, rope_parameters=dynamic))
    assert find_objection(model, SIZES["max_position_embeddings"]) is None
    assert "longer than 128 tokens" in find_objection(model, SIZES["max_position_embeddings"] + 1)
