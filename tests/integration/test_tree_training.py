"""Training on token trees is training on padded batches, but for the tokens that are not computed twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.integration.one_step import assert_close, run_step, with_adapter
from tests.integration.test_hf_training import LABELS, PROMPT, ROWS, Log, configure, train
from tests.tiny_models import save_tiny
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config

from finetune.adapters.hf.batches import LengthGroupedSampler, PaddedBatches, StepCollator
from finetune.adapters.hf.checkpoints import BegunTraining
from finetune.adapters.hf.encoder import HfEncoder
from finetune.adapters.hf.training_plan import choose_training_path, plan_training
from finetune.adapters.hf.tree_budget import token_budget
from finetune.adapters.hf.tree_gate import TreeChoice
from finetune.adapters.hf.tree_training import (
    TreeBatches,
    choose_tree_tokens,
    common_start,
    compare_work,
)
from finetune.application.config import TrainingConfig
from finetune.application.ports import EncodedExample
from finetune.domain.errors import IntegrityError, InvalidInput

WHOLE, SEVERAL = 10_000, 150


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return save_tiny("qwen2", tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def rows(tiny) -> list[EncodedExample]:
    """A row twice, which is computed once and counts twice, and others of several lengths."""
    encoder = HfEncoder(AutoTokenizer.from_pretrained(tiny), LABELS, PROMPT, 256)
    return [encoder.encode(row) for row in [*ROWS[:5], ROWS[1]]]


@pytest.fixture
def model(tiny):
    base = AutoModelForCausalLM.from_pretrained(tiny)
    base.enable_input_require_grads()
    return with_adapter(base)


def plain_loop(model, rows) -> tuple[float, dict[str, torch.Tensor]]:
    """The mean over all answer tokens, from one forward a row."""
    count = sum(len(row.ids) - row.answer_start for row in rows)
    total = 0.0
    for row in rows:
        ids = torch.tensor([row.ids])
        log_probabilities = torch.log_softmax(model(ids).logits[0, :-1], -1)
        picked = log_probabilities.gather(1, ids[0, 1:, None])[row.answer_start - 1 :, 0]
        loss = -picked.sum() / count
        loss.backward()
        total += loss.item()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    return total, gradients


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize(
    "make",
    [
        lambda model: TreeBatches(WHOLE),
        lambda model: TreeBatches(SEVERAL),
        lambda model: PaddedBatches(model, 6, 0),
        lambda model: PaddedBatches(model, 1, 0),
    ],
    ids=["one tree", "several trees", "one rectangle", "row by row"],
)
def test_a_step_has_the_loss_and_gradients_of_a_plain_loop(make, checkpointing, model, rows, tmp_path):
    expected = plain_loop(model, rows)
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    batching = make(model)
    loss, gradients, *_ = run_step(model, batching, rows, tmp_path)
    assert loss == pytest.approx(expected[0], abs=1e-6)
    assert_close(gradients, expected[1], 1e-5)
    if checkpointing:
        assert model.base_model.model.model.gradient_checkpointing


def test_several_trees_were_several_and_all_tokens_are_counted(model, rows, tmp_path):
    assert len(TreeBatches(SEVERAL).divide(rows)) > 1
    (tree,) = TreeBatches(WHOLE).divide(rows)
    trainer = run_step(model, TreeBatches(WHOLE), rows, tmp_path).trainer
    trainer.evaluate()
    lengths = sorted((len(row.ids) for row in rows), reverse=True)
    padded = sum(2 * lengths[i] for i in (0, 2, 4))
    found = trainer.state.log_history[-1]
    assert (found["computed_tokens"], found["padded_tokens"]) == (tree.tokens, padded)
    distinct = {row.ids[:n] for row in rows for n in range(1, len(row.ids) + 1)}
    assert tree.tokens == len(distinct) < padded / 2


@given(count=st.integers(1, 12), world=st.integers(1, 5), size=st.integers(1, 4))
def test_processes_share_the_rows_of_a_step_and_lose_none(count, world, size):
    rows = [EncodedExample((1, 2, *range(10, 11 + i), 30 + i), 2 + i % 2, 0) for i in range(count)]
    shares = [StepCollator(Kept(), size, rank, world)(rows) for rank in range(world)]
    answers = sum(len(row.ids) - row.answer_start for row in rows)
    assert {share["answers"] for share in shares} == {answers}
    trained = [row for share in shares for row in share["batches"] if row.answer_start < len(row.ids)]
    assert sorted(trained) == sorted(rows)
    assert all(share["batches"] for share in shares)
    assert all(share["padded_tokens"] >= sum(len(r.ids) for r in share["batches"]) for share in shares)


class Kept:
    """Runs nothing."""

    def divide(self, rows):
        return list(rows)


@pytest.mark.parametrize("make", [lambda model: TreeBatches(WHOLE), lambda model: PaddedBatches(model, 2, 0)])
def test_a_process_without_a_row_adds_nothing_to_the_gradient(make, model, rows):
    batching = make(model)
    (batch,) = StepCollator(batching, 2, rank=1, world=2)(rows[:1])["batches"]
    loss = batching.loss(model, batch).answers
    loss.backward()
    assert loss.item() == 0.0
    # All of them, or processes would wait for one another.
    assert all((p.grad == 0).all() for p in model.parameters() if p.requires_grad)


class Told(list):
    """A progress display that keeps what is said."""

    def task(self, description, total):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def say(self, message):
        self.append(message)

    def advance(self, n=1):
        pass

    def describe(self, text):
        pass


def test_a_run_says_that_trees_ran_and_what_they_saved(tiny, tmp_path):
    told, log = Told(), Log()
    outcome = train(configure(tiny, training={"max_steps": 3}), tmp_path, log=log, progress=told)
    assert outcome.path == "tree"
    assert outcome.path_reason in told
    assert outcome.path_reason.startswith("Batches run as token trees")
    assert outcome.tree_tokens is not None
    assert 0 < outcome.computed_tokens < outcome.padded_tokens / 2
    assert told[-1] == (
        f"token trees: {outcome.computed_tokens:,} of {outcome.padded_tokens:,} padded tokens were computed"
    )
    event, values = log.events[0]
    assert (event, values["path"], values["path_reason"]) == ("started", "tree", outcome.path_reason)
    assert values["tree_tokens"] == outcome.tree_tokens


def test_padded_batches_on_request(tiny, tmp_path):
    told = Told()
    outcome = train(configure(tiny, training={"max_steps": 1, "token_tree": False}), tmp_path, progress=told)
    assert (outcome.path, outcome.tree_tokens) == ("padded", None)
    assert outcome.path_reason == "Batches are padded: training.token_tree is false."
    assert outcome.computed_tokens == outcome.padded_tokens > 0
    assert not any("token tree" in line for line in told if line != outcome.path_reason)


@pytest.fixture
def windowed(tmp_path) -> Path:
    """A model whose layers see 64 tokens only."""
    folder = save_tiny("qwen2", tmp_path / "windowed")
    config = json.loads((folder / "config.json").read_text())
    config |= {"use_sliding_window": True, "sliding_window": 64, "layer_types": ["sliding_attention"] * 2}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_model_that_cannot_run_trees_is_padded_and_says_why(windowed, tmp_path):
    config = configure(windowed, training={"max_steps": 1, "token_tree": "auto"})
    outcome = train(config, tmp_path / "run")
    assert outcome.path == "padded"
    assert "see 64 tokens" in outcome.path_reason


def test_trees_that_a_model_cannot_run_are_refused_before_it_is_loaded(windowed, tmp_path):
    (windowed / "model.safetensors").unlink()
    with pytest.raises(InvalidInput, match="see 64 tokens") as caught:
        train(configure(windowed, training={"token_tree": True}), tmp_path / "run")
    assert caught.value.where == "training.token_tree"


def test_trees_are_refused_where_the_numbers_speak_against_them():
    refused = TreeChoice("padded", "Batches are padded: a small tree differs by 2.", 2.0)
    assert choose_training_path(refused, TrainingConfig()) is refused
    with pytest.raises(InvalidInput, match="differs by 2"):
        choose_training_path(refused, TrainingConfig(token_tree=True))


@pytest.fixture(scope="module")
def half_billion():
    config = Qwen2Config(
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
    )
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def test_a_tree_takes_no_more_tokens_than_a_padded_forward(half_billion):
    def chosen(longest: int, **settings) -> int:
        return choose_tree_tokens(
            half_billion, TrainingConfig(**settings), longest=longest, shared=100, in_rows=False
        )

    assert chosen(150, per_device_batch_size=1) == 150
    assert chosen(150, per_device_batch_size=4) == 600
    bound = token_budget(half_billion, longest=150, shared=100)
    assert chosen(150, per_device_batch_size=1000) == bound
    kept = chosen(150, per_device_batch_size=1000, gradient_checkpointing=True)
    assert kept == token_budget(half_billion, longest=150, shared=100, kept="checkpoints") < bound
    assert chosen(150, tree_tokens=5000) == 5000
    # A row that is longer than that runs alone.
    assert chosen(6000, tree_tokens=5000) == 6000


def test_the_common_start_is_that_of_all_rows(rows):
    shared = common_start(rows)
    assert shared > 50
    assert len({row.ids[:shared] for row in rows}) == 1
    assert len({row.ids[: shared + 1] for row in rows}) > 1


def example(*ids: int) -> EncodedExample:
    return EncodedExample(ids, len(ids) - 1, 0)


def operations(model, steps, budget: int, size: int, *, in_rows: bool = False) -> float:
    return compare_work(model, steps, budget, size, in_rows=in_rows).operations


def test_operations_are_counted_with_attention_and_padding(half_billion):
    one, other = example(*range(100)), example(*range(100, 200))
    assert operations(half_billion, [[one]], 1000, 4) == 1.0
    assert operations(half_billion, [[one], [other]], 1000, 4) == 1.0
    # All of it shared: half of the tokens, in a forward of the same length.
    assert operations(half_billion, [[one, one]], 1000, 4) == 0.5
    assert operations(half_billion, [[one, one]], 1000, 1) == 0.5
    # Nothing shared: as many tokens, each of which attends to twice as many.
    assert 1.0 < operations(half_billion, [[one, other]], 1000, 4) < 1.02
    assert operations(half_billion, [[one, other]], 100, 4) == 1.0
    # Nearly half of the rectangle is padding.
    assert operations(half_billion, [[one, example(*range(300, 310))]], 1000, 4) < 0.6


def test_rows_attend_to_nothing_in_vain(half_billion):
    one, other = example(*range(100)), example(*range(100, 200))
    assert operations(half_billion, [[one, other]], 1000, 4, in_rows=True) == 1.0
    half = example(*range(50), *range(200, 250))
    shared = operations(half_billion, [[one, half]], 1000, 4, in_rows=True)
    assert 0.74 < shared <= 0.75 < operations(half_billion, [[one, half]], 1000, 4)


def test_a_tree_in_rows_has_the_tokens_of_a_padded_forward(half_billion):
    settings = TrainingConfig(per_device_batch_size=1000)
    assert choose_tree_tokens(half_billion, settings, longest=150, shared=100, in_rows=True) == 150_000


def test_the_share_of_a_mask_is_that_of_its_bytes(half_billion):
    one, other = example(*range(100)), example(*range(100, 200))
    kept = 4 * 24 * (10 * 896 + 4 * 4864)
    dense = compare_work(half_billion, [[one, other]], 1000, 4, in_rows=False).mask_share
    assert dense == pytest.approx(5 * 200 / kept)
    rows = compare_work(half_billion, [[one, other]], 1000, 4, in_rows=True).mask_share
    assert rows == pytest.approx(5 * 100 / kept)


@pytest.mark.parametrize(
    ("token_tree", "sharing", "path"),
    [("auto", True, "tree"), ("auto", False, "padded"), (True, False, "tree"), (False, True, "padded")],
)
def test_rows_that_share_too_little_are_padded_unless_trees_are_demanded(
    half_billion, token_tree, sharing, path
):
    head = range(40) if sharing else ()
    rows = [example(*head, *range(50 * (i + 1), 50 * (i + 2))) for i in range(8)]
    settings = TrainingConfig(token_tree=token_tree, tree_tokens=500, per_device_batch_size=4)
    allowed = TreeChoice("tree", "Batches run as token trees.", 1e-6)
    order = LengthGroupedSampler([len(row.ids) for row in rows], 4, 0)
    plan = plan_training(half_billion, rows, order, settings, allowed=allowed, begun=None, pad_id=0, world=1)
    assert plan.path.path == path
    assert plan.tree_tokens == (500 if path == "tree" else None)
    assert isinstance(plan.batching, TreeBatches if path == "tree" else PaddedBatches)
    assert ("times the operations" in plan.path.reason) == (token_tree == "auto" and not sharing)


def test_bfloat16_trains_the_same_within_its_rounding(tiny, tmp_path):
    losses = {}
    for bf16 in (False, True):
        log = Log()
        training = {"max_steps": 4, "bf16": bf16, "json_samples": 0, "token_tree": True}
        train(configure(tiny, lora={"dropout": 0.0}, training=training), tmp_path / str(bf16), log=log)
        losses[bf16] = [values["loss"] for event, values in log.events if event == "training"]
    np.testing.assert_allclose(losses[True], losses[False], rtol=0.02)
    assert losses[True] != losses[False]


def test_an_interrupted_training_goes_on_as_it_was_begun(tmp_path):
    file = tmp_path / "job.json"
    machine = {"processes": 1, "precision": "fp32"}
    trees = {**machine, "path": "tree", "tree_tokens": 500}
    file.write_text(json.dumps({"identity": {}, "machine": trees}))
    begun = BegunTraining(file)
    begun.check(machine)
    begun.check(trees)
    for changed in ({"path": "padded"}, {"tree_tokens": 400}, {"processes": 2}):
        with pytest.raises(IntegrityError, match="ran with another"):
            begun.check({**trees, **changed})
    allowed = TreeChoice("tree", "Batches run as token trees.", 1e-6)
    assert choose_training_path(allowed, TrainingConfig(), begun) is allowed
    # As versions of before token trees wrote it.
    file.write_text(json.dumps({"identity": {}, "machine": machine}))
    begun = BegunTraining(file)
    assert choose_training_path(allowed, TrainingConfig(), begun).path == "padded"
    begun.check({**machine, "path": "padded", "tree_tokens": None})
