"""An objective over the labels: the same from trees, from rectangles, and from one forward a label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from tests.integration.one_step import assert_close, run_step, with_adapter
from tests.integration.test_hf_training import LABELS, PROMPT, ROWS
from tests.tiny_models import save_tiny
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune.adapters.hf.batches import LengthGroupedSampler, PaddedBatches, StepCollator, padded_shapes
from finetune.adapters.hf.encoder import HfEncoder
from finetune.adapters.hf.label_loss import LabelLoss
from finetune.adapters.hf.tree_training import TreeBatches, compare_work
from finetune.application.ports import EncodedExample
from finetune.domain.errors import InvalidInput

WEIGHT = 0.25
WEIGHTS = (1.0, 0.5, 2.0, 0.0, 1.5, 1.0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return save_tiny("qwen2", tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def encoder(tiny) -> HfEncoder:
    return HfEncoder(AutoTokenizer.from_pretrained(tiny), LABELS, PROMPT, 256)


@pytest.fixture(scope="module")
def rows(encoder) -> list[EncodedExample]:
    """A row twice, others of several lengths, and all with weights."""
    encoded = [encoder.encode(row) for row in [*ROWS[:5], ROWS[1]]]
    return [row._replace(weight=weight) for row, weight in zip(encoded, WEIGHTS, strict=True)]


@pytest.fixture
def model(tiny):
    return with_adapter(AutoModelForCausalLM.from_pretrained(tiny))


def spread(log_probabilities, labels):
    """An objective that looks at all labels, and at the right one in another way."""
    own = log_probabilities[torch.arange(len(labels)), labels]
    return (log_probabilities.exp() ** 2).sum(dim=1) - 3.0 * own


@pytest.fixture
def labels(encoder) -> LabelLoss:
    return LabelLoss(encoder.label_paths, spread)


def plain_loop(model, rows, labels):
    """One forward a row for its answer, and one for each of its labels."""
    count = sum(len(row.ids) - row.answer_start for row in rows)
    total = torch.zeros(())
    for row in rows:
        answer = token_log_probabilities(model, row.ids)[row.answer_start - 1 :].sum()
        prompt = row.ids[: row.label_start]
        scores = [
            token_log_probabilities(model, (*prompt, *path))[len(prompt) - 1 :].sum() for path in labels.paths
        ]
        found = torch.log_softmax(torch.stack(scores), 0)[None]
        objective = spread(found, torch.tensor([row.label]))[0]
        total = total + row.weight * ((1 - WEIGHT) * -answer / count + WEIGHT * objective / len(rows))
    total.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    return total.item(), gradients


def token_log_probabilities(model, ids):
    tokens = torch.tensor([ids])
    return torch.log_softmax(model(tokens).logits[0, :-1], -1).gather(1, tokens[0, 1:, None])[:, 0]


@pytest.mark.parametrize(
    "make",
    [
        lambda model, labels: TreeBatches(10_000, labels),
        lambda model, labels: TreeBatches(300, labels),
        lambda model, labels: PaddedBatches(model, 6, 0, labels),
        lambda model, labels: PaddedBatches(model, 1, 0, labels),
    ],
    ids=["one tree", "several trees", "one rectangle", "row by row"],
)
def test_a_step_has_the_loss_and_gradients_of_a_plain_loop(make, model, rows, labels, tmp_path):
    expected = plain_loop(model, rows, labels)
    batching = make(model, labels)
    loss, gradients, *_ = run_step(model, batching, rows, tmp_path, labels=labels, weight=WEIGHT)
    assert loss == pytest.approx(expected[0], abs=1e-5)
    assert_close(gradients, expected[1], 1e-4)


def test_the_labels_are_in_the_tree_of_the_answers_and_take_no_forward_of_their_own(
    model, rows, labels, tmp_path
):
    forwards = []
    hook = model.register_forward_hook(lambda *_: forwards.append(1))
    step = run_step(model, TreeBatches(10_000, labels), rows, tmp_path, labels=labels, weight=WEIGHT).given
    hook.remove()
    (batch,) = step["batches"]
    assert len(forwards) == 1
    distinct = {row.ids[:n] for row in rows for n in range(1, len(row.ids) + 1)}
    for row in rows:
        for path in labels.paths:
            whole = (*row.ids[: row.label_start], *path)
            distinct |= {whole[:n] for n in range(1, len(whole) + 1)}
    assert batch.tokens == len(distinct) < step["padded_tokens"]


def test_trees_stay_within_their_budget_with_the_labels_in_them(rows, labels):
    longest = max(len(row.ids) for row in rows) + labels.added
    trees = TreeBatches(longest + 20, labels).divide(rows)
    assert len(trees) > 1
    assert max(tree.tokens for tree in trees) <= longest + 20


def test_a_share_of_zero_leaves_the_answers_alone(model, rows, labels, tmp_path):
    with_labels = run_step(model, TreeBatches(10_000, labels), rows, tmp_path, labels=labels, weight=0.0)
    without = run_step(model, TreeBatches(10_000), rows, tmp_path, labels=None, weight=0.0)
    assert with_labels.loss == pytest.approx(without.loss, abs=1e-6)
    assert_close(with_labels.gradients, without.gradients, 1e-5)


@pytest.mark.parametrize(
    "make", [lambda m, labels: TreeBatches(10_000, labels), lambda m, labels: PaddedBatches(m, 2, 0, labels)]
)
def test_a_process_without_a_row_adds_nothing_to_the_gradient(make, model, rows, labels):
    batching = make(model, labels)
    (batch,) = StepCollator(batching, 2, rank=1, world=2, labels=labels)(rows[:1])["batches"]
    loss = batching.loss(model, batch)
    (loss.answers + loss.labels).backward()
    assert loss.answers.item() == loss.labels.item() == 0.0
    assert all((p.grad == 0).all() for p in model.parameters() if p.requires_grad)


def test_two_forwards_of_a_rectangle_go_through_data_parallel_training(model, rows, labels):
    batching = PaddedBatches(model, 6, 0, labels)
    (batch,) = batching.divide(rows)
    sum(batching.loss(model, batch)).backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        sum(batching.loss(DistributedDataParallel(model), batch)).backward()
        found = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    finally:
        dist.destroy_process_group()
    assert_close(found, expected, 1e-6)


def test_counted_padded_tokens_are_those_of_the_rectangles(model, rows, labels):
    batches = PaddedBatches(model, 2, 0, labels).divide(rows)
    counted = [
        count * longest for i in (0, 2, 4) for count, longest in padded_shapes(rows[i : i + 2], labels)
    ]
    assert sum(batch.tokens for batch in batches) == sum(counted)


def test_labels_make_trees_cheaper_beside_rectangles(model, rows, labels):
    shares = [
        compare_work(model, [rows], 10_000, 6, in_rows=True, labels=given).operations
        for given in (None, labels)
    ]
    assert shares[1] < shares[0]


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=2, max_size=8, unique_by=tuple))
def test_every_token_of_every_label_is_read_behind_its_own_beginning(paths):
    # A closing token makes none the beginning of another.
    closed = [[*path, 9] for path in paths]
    labels = LabelLoss(closed, spread)
    stems = labels.stems
    for k, path in enumerate(closed):
        for j, token in enumerate(path):
            stem = stems.ids[stems.stem[k, j]]
            assert list(stem[: len(stem) - stems.place[k, j]]) == path[:j]
            assert labels.tokens[k, j] == token
    assert not any(one != other and other[: len(one)] == one for one in stems.ids for other in stems.ids)


def test_another_way_to_write_a_label_is_refused(rows, labels):
    row = rows[0]
    changed = (*row.ids[: row.label_start], 3, *row.ids[row.label_start + 1 :])
    with pytest.raises(InvalidInput, match="other tokens than the label that is scored"):
        labels.truth([row._replace(ids=changed)])


def test_balanced_shares_draw_rare_rows_as_often_as_frequent_ones():
    lengths, shares = [5] * 1000, [1.0] * 900 + [9.0] * 100
    order = LengthGroupedSampler(lengths, 10, 0, shares)
    drawn = np.array(list(order))
    assert len(drawn) == 1000
    rare = int((drawn >= 900).sum())
    # Binomial(1000, 1/2): outside with probability 1e-6.
    assert 423 <= rare <= 577
    assert list(order) == list(LengthGroupedSampler(lengths, 10, 0, shares))
    order.set_epoch(1)
    assert list(order) != drawn.tolist()
