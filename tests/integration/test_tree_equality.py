"""Trees give what plain forwards give: logits, losses and gradients, for all architectures that run them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.distributed as dist
from peft import PeftModel
from tests.integration.one_step import with_adapter
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from torch.nn.parallel import DistributedDataParallel
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    Glm4Config,
    Glm4MoeConfig,
    GlmConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedModel,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
)

from finetune.adapters.hf import trees
from finetune.adapters.hf.architectures import choose_target_modules
from finetune.adapters.hf.row_attention import (
    ROW_ATTENTION,
    additive,
    attend_by_products,
    row_attention,
    to_device,
)
from finetune.adapters.hf.trees import CachedTree, tree_logits, tree_loss
from finetune.domain import tree_rows
from finetune.domain.errors import InvalidInput
from finetune.domain.token_tree import TokenTree, target_counts
from finetune.domain.tree_batches import pack
from finetune.domain.tree_rows import lay_out

SIZES = {
    "vocab_size": 120,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 0,
}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
CONFIGS = {
    "glm": (GlmConfig, {}),
    "glm4": (Glm4Config, {}),
    "glm4_moe": (Glm4MoeConfig, {**EXPERTS, "n_routed_experts": 4, "first_k_dense_replace": 1}),
    "qwen2": (Qwen2Config, {}),
    "qwen2_moe": (Qwen2MoeConfig, {**EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 16}),
    "qwen3": (Qwen3Config, {}),
    "llama": (LlamaConfig, {}),
    "mistral": (MistralConfig, {}),
    "phi3": (Phi3Config, {}),
    # A layer of each kind; every path fits into the window, the tree as a whole does not.
    "gemma3": (
        Gemma3TextConfig,
        {"sliding_window": 40, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "olmo2": (Olmo2Config, {}),
    "granite": (GraniteConfig, {}),
}


def draw(*lengths: int, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(1, SIZES["vocab_size"], n).tolist() for n in lengths]


HEAD, SHORT, LONG, MIDDLE, OTHER, TAIL = draw(15, 4, 16, 9, 12, 3)
ROWS = [
    [*HEAD, *SHORT],
    [*HEAD, *LONG],
    [*HEAD, *SHORT],  # a duplicate
    HEAD,  # what others begin with
    [*HEAD, *MIDDLE],
    [*HEAD, *MIDDLE[:6], *TAIL],  # a branch from the middle of another
    OTHER,  # a tree of its own
    OTHER[:2],
]
# Where the answers begin; those of the first and third row are the same and count twice.
STARTS = [16, 20, 16, 12, 17, 20, 1, 1]


# With one root: branches of one trunk, of similar length.
BRANCHES = [
    [*HEAD, *LONG[:12]],
    [*HEAD, *MIDDLE, *TAIL],
    [*HEAD, *OTHER[:9]],
    HEAD,
    [*HEAD, *LONG[:5], *TAIL],
    [*HEAD, *LONG[:12]],
]


@pytest.fixture(autouse=True)
def rows_of_small_trees(monkeypatch):
    """Rows, where a model attends in rows, also where trees are so small that one mask is cheaper."""
    monkeypatch.setattr(tree_rows, "_COPY", 0)
    monkeypatch.setattr(tree_rows, "_ROW", 0)


def build(config, attention: str | None = None, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention)
    # Default initialisation makes nearly uniform predictions; wider weights make tests tell right from wrong.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5.0)
    return model.to(dtype).eval()


def build_kind(kind: str, attention: str = "sdpa", dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    config, more = CONFIGS[kind]
    return build(config(**SIZES, **more), attention, dtype)


def with_lora(model: PreTrainedModel) -> PeftModel:
    return with_adapter(model, choose_target_modules(model, "auto"))


def plain_logits(model, ids: list[int]) -> torch.Tensor:
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


def gradients(model) -> dict[str, torch.Tensor]:
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    return found


def planted(rows: list[list[int]]) -> tuple[TokenTree, list[np.ndarray]]:
    tree = TokenTree()
    return tree, [tree.add(row) for row in rows]


ATTENTION = ["sdpa", ROW_ATTENTION]


@pytest.fixture(scope="module", params=itertools.product(CONFIGS, ATTENTION), ids="-".join)
def model(request) -> PreTrainedModel:
    return build_kind(*request.param)


def worst_difference(model, rows: list[list[int]]) -> float:
    tree, paths = planted(rows)
    with torch.inference_mode():
        logits = tree_logits(model, tree, np.arange(len(tree)))
        return max(
            float((logits[path.tolist()] - plain_logits(model, row)).abs().max())
            for row, path in zip(rows, paths, strict=True)
        )


@pytest.mark.parametrize("rows", [ROWS, BRANCHES], ids=["two roots", "one root"])
def test_logits_are_those_of_one_plain_forward_a_sequence(model, rows):
    assert worst_difference(model, rows) <= 1e-5


def test_branches_are_rows_with_a_trunk_and_filled_up():
    tree, _ = planted(BRANCHES)
    groups = lay_out(tree, np.arange(len(tree))).groups
    assert any(len(group.queries) > 1 and group.shared == 15 for group in groups)
    assert any(not group.sees.any(axis=1).all() for group in groups), "keys that nobody sees"


def test_a_tree_of_one_example_is_a_plain_forward(model):
    assert worst_difference(model, ROWS[1:2]) <= 1e-5


@pytest.mark.parametrize("kind", ["qwen2", "gemma3", "glm4_moe"])
def test_eager_attention_sees_the_same(kind):
    assert worst_difference(build_kind(kind, "eager"), ROWS) <= 1e-5


@pytest.mark.parametrize("rows", [ROWS, BRANCHES], ids=["two roots", "one root"])
@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("kind", CONFIGS)
def test_loss_and_every_lora_gradient_are_those_of_plain_forwards(kind, attention, rows):
    model = with_lora(build_kind(kind, attention)).train()
    tree, paths = planted(rows)
    starts = STARTS[: len(rows)]
    targets = target_counts(paths, starts)
    answers = int(targets.counts.sum())
    assert answers == sum(len(row) - start for row, start in zip(rows, starts, strict=True))
    loss = tree_loss(model, tree, targets) / answers
    loss.backward()
    found = gradients(model)

    expected = 0.0
    for row, start in zip(rows, starts, strict=True):
        logits = plain_logits(model, row)[start - 1 : -1]
        part = cross_entropy(logits, torch.tensor(row[start:]), reduction="sum") / answers
        part.backward()
        expected += part.item()
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    wanted = gradients(model)
    assert found.keys() == wanted.keys()
    assert all("lora_" in name for name in found)
    for name, gradient in found.items():
        assert wanted[name].abs().max() > 0, name
        difference = (gradient - wanted[name]).abs().max() / wanted[name].abs().max()
        assert difference <= 1e-5, name


def test_a_model_that_gives_all_logits_gives_the_same(monkeypatch):
    model = build_kind("qwen2")
    tree, _ = planted(ROWS)
    nodes = np.array([5, 30, 2])
    with torch.inference_mode():
        chosen = tree_logits(model, tree, nodes)
        monkeypatch.setattr(trees, "accepts", lambda model, argument: False)
        torch.testing.assert_close(tree_logits(model, tree, nodes), chosen)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("attention", ATTENTION)
def test_the_layers_share_one_mask_in_the_backward_pass(attention, autocast):
    model = with_lora(build_kind("qwen2", attention))
    tree, paths = planted(ROWS)
    groups = lay_out(tree, np.arange(len(tree))).groups
    shapes = {(len(g.keys), 1, g.queries.shape[1], g.keys.shape[1]) for g in groups}
    assert len(shapes) == len(groups) > 2
    if attention == "sdpa":
        shapes = {(1, 1, len(tree), len(tree))}
    masks = set()

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tuple(tensor.shape[-4:]) in shapes:
            masks.add(tensor.untyped_storage().data_ptr())
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        loss = tree_loss(model, tree, target_counts(paths, STARTS))
    loss.backward()
    assert len(masks) == len(shapes)


def test_rows_survive_activation_checkpointing():
    model = with_lora(build_kind("qwen2", ROW_ATTENTION)).train()
    tree, paths = planted(BRANCHES)
    targets = target_counts(paths, STARTS[: len(BRANCHES)])
    tree_loss(model, tree, targets).backward()
    expected = gradients(model)
    model.activation_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()
    tree_loss(model, tree, targets).backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name])


def test_a_model_that_attends_in_rows_runs_and_writes_as_before():
    model, other = build_kind("qwen2", ROW_ATTENTION), build_kind("qwen2")
    batch = torch.tensor([[0, 0, *OTHER[:5]], OTHER[:7]])
    seen = (batch != 0).long()
    with torch.inference_mode():
        wanted = other(input_ids=batch, attention_mask=seen).logits[:, -1]
        torch.testing.assert_close(model(input_ids=batch, attention_mask=seen).logits[:, -1], wanted)
        settings = {"attention_mask": seen, "max_new_tokens": 5, "do_sample": False}
        assert model.generate(batch, **settings).tolist() == other.generate(batch, **settings).tolist()


@pytest.mark.parametrize("kinds", [1, 2, 6])
def test_products_attend_as_the_kernel_does(kinds):
    torch.manual_seed(0)
    query = torch.randn(3, 6, 5, 8)
    key, value = torch.randn(2, 3, kinds, 9, 8)
    mask = additive(torch.rand(3, 1, 5, 9) < 0.4, torch.float32)
    mask[..., 0] = 0.0
    settings = {"attn_mask": mask, "scale": 0.3, "enable_gqa": kinds < 6}
    expected = scaled_dot_product_attention(query, key, value, **settings)
    torch.testing.assert_close(attend_by_products(query, key, value, mask, 0.3), expected)


def test_a_layer_whose_attention_rows_do_not_know_is_an_error():
    states = torch.zeros(1, 2, 3, 4)
    rows = to_device(lay_out(planted([[1, 2, 3]])[0], np.arange(3)), torch.float32, torch.device("cpu"))
    with pytest.raises(ValueError, match="does not know softcap"):
        row_attention(torch.nn.Module(), states, states, states, None, tree_rows=rows, softcap=30.0)
    with pytest.raises(ValueError, match="the mask of this layer"):
        row_attention(torch.nn.Module(), states, states, states, torch.ones(1, 1, 3, 3), tree_rows=rows)


def test_several_trees_under_a_budget_add_up_to_one():
    model = build_kind("qwen2")
    with torch.inference_mode():
        tree, paths = planted(ROWS)
        whole = tree_loss(model, tree, target_counts(paths, STARTS))
        total = torch.zeros(())
        parts = pack(ROWS, budget=36)
        for members in parts:
            tree, paths = planted([ROWS[i] for i in members])
            assert len(tree) <= 36
            total += tree_loss(model, tree, target_counts(paths, [STARTS[i] for i in members]))
    assert len(parts) > 1
    assert total.item() == pytest.approx(whole.item(), rel=1e-6)


def test_a_cached_tree_grows_and_is_cut_back(model):
    expected = [plain_logits(model, row) for row in ROWS]

    def check(found, rows: list[int], skipped: int = 0) -> None:
        for i, path in zip(rows, found.paths, strict=True):
            logits = found.logits[found.rows(path).tolist()]
            torch.testing.assert_close(logits, expected[i][skipped:], rtol=0, atol=1e-5)

    cached = CachedTree(model)
    head = cached.extend([HEAD], logits_from=None)
    assert head.logits.shape == (0, SIZES["vocab_size"])
    last = int(head.paths[0][-1])
    tails = [ROWS[1][15:], ROWS[4][15:]]
    check(cached.extend(tails, starts=[last, last], logits_from=0), [1, 4], skipped=15)
    grown = len(cached)
    assert grown == 15 + 16 + 9
    cached.truncate(15)
    # Other tokens take the numbers of those that are gone, and nothing of them is left.
    check(cached.extend([ROWS[5][15:]], starts=[last], logits_from=0), [5], skipped=15)
    check(cached.extend(ROWS, logits_from=0), list(range(len(ROWS))))
    tree, _ = planted(ROWS)
    assert len(cached) == len(tree)


def test_logits_come_for_what_is_asked_only():
    model = build_kind("qwen2")
    cached = CachedTree(model)
    found = cached.extend(ROWS[:2], logits_from=[-1, 20])
    assert found.nodes.tolist() == sorted([found.paths[0][-1], *found.paths[1][20:]])
    with pytest.raises(InvalidInput, match="not asked for"):
        found.rows(found.paths[1][18:])
    before = len(cached)
    # All of it is there: nothing new runs, and what is asked for once more is not kept twice.
    again = cached.extend(ROWS[:2])
    assert len(cached) == before
    assert again.nodes.tolist() == sorted(path[-1] for path in found.paths)
    for row, path in zip(ROWS[:2], again.paths, strict=True):
        expected = plain_logits(model, row)[-1]
        torch.testing.assert_close(again.logits[again.rows(path[-1:]).item()], expected, rtol=0, atol=1e-5)
    longer = cached.extend([[*ROWS[0], 7]], logits_from=0)
    torch.testing.assert_close(longer.logits, plain_logits(model, [*ROWS[0], 7]), rtol=0, atol=1e-5)
    assert cached.extend([], logits_from=0).logits.shape == (0, SIZES["vocab_size"])
    assert cached.extend([[]]).paths[0].shape == (0,)


def test_an_error_leaves_a_cached_tree_as_it_was(monkeypatch):
    model = build_kind("qwen2")
    cached = CachedTree(model)
    cached.extend([HEAD], logits_from=None)
    with pytest.raises(InvalidInput, match="start"):
        cached.extend([[5], [6]], starts=[3, 99])

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    # The first layer has its keys by then, the second has not.
    with monkeypatch.context() as broken:
        broken.setattr(model.model.layers[1], "forward", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            cached.extend(ROWS)
    assert len(cached) == len(HEAD)
    found = cached.extend(ROWS[:1], logits_from=0)
    torch.testing.assert_close(found.logits, plain_logits(model, ROWS[0]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("attention", [*ATTENTION, "eager"])
@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_sees_the_same_within_its_rounding(attention, autocast):
    model = build_kind("qwen2", attention, torch.float32 if autocast else torch.bfloat16)
    tree, paths = planted(ROWS)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = tree_logits(model, tree, np.arange(len(tree))).float()
        for row, path in zip(ROWS, paths, strict=True):
            expected = plain_logits(model, row).float()
            assert (logits[path.tolist()] - expected).abs().max() <= 0.02 * expected.abs().max()


@pytest.mark.parametrize("attention", ATTENTION)
def test_a_model_in_data_parallel_training_runs_trees(attention):
    model = with_lora(build_kind("qwen2", attention))
    tree, paths = planted(ROWS)
    targets = target_counts(paths, STARTS)
    tree_loss(model, tree, targets).backward()
    expected = gradients(model)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        tree_loss(DistributedDataParallel(model), tree, targets).backward()
        found = gradients(model)
    finally:
        dist.destroy_process_group()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name])
