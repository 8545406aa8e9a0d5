"""The head of an encoder begins as the classifier by the nearest mean vector."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.integration import test_backends
from tests.integration.test_hf_training import ROWS
from tests.tiny_models import save_tiny_encoder
from transformers import TrainingArguments

from finetune.adapters.hf.batches import LengthGroupedSampler
from finetune.adapters.hf.classifier_model import ClassifiedText, load_classifier, load_text_encoder
from finetune.adapters.hf.loading import quiet
from finetune.adapters.hf.objective import AnswerTrainer
from finetune.adapters.hf.prototypes import begin_at_prototypes

WORDS = {"card": 0, "lost": 1, "late": 2, "abstain": 4}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    config = test_backends.configure(folder, "encoder", save_tiny_encoder(folder))
    torch.manual_seed(0)
    model = load_classifier(config, lambda name: name, 5, "fp32")
    encoder = load_text_encoder(config, lambda name: name, 64)
    rows = [ClassifiedText(tuple(encoder.ids(row.text)[0]), 0, 0, WORDS[row.label]) for row in ROWS]
    return model, encoder, rows


def vectors(model, encoder, rows) -> np.ndarray:
    with torch.inference_mode():
        return torch.cat(
            [model.pool(**encoder.pad([r.ids], torch.device("cpu"))._asdict()) for r in rows]
        ).numpy()


def logits(model, encoder, rows) -> np.ndarray:
    with torch.inference_mode():
        return torch.cat([model(**encoder.pad([r.ids], torch.device("cpu"))._asdict()) for r in rows]).numpy()


def test_logits_fall_with_the_distance_from_the_means(parts):
    model, encoder, rows = parts
    begin_at_prototypes(model, encoder, rows, 8)
    pooled = vectors(model, encoder, rows).astype(np.float64)
    units = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    truth = np.array([row.label for row in rows])
    means = np.stack(
        [units[truth == k].mean(axis=0) if (truth == k).any() else units.mean(axis=0) for k in range(5)]
    )
    # Of vectors of the mean length, which the rows have nearly.
    scaled = units * np.linalg.norm(pooled, axis=1).mean()
    found = scaled @ model.head.weight.detach().double().numpy().T + model.head.bias.detach().double().numpy()
    distances = ((units[:, None] - means[None]) ** 2).sum(axis=2)
    # -scale x distance, but for a number of each row.
    above, nearer = found - found[:, :1], distances[:, :1] - distances
    scale = (above * nearer).sum() / (nearer**2).sum()
    assert scale > 0
    assert above == pytest.approx(scale * nearer, abs=1e-3 * np.abs(above).max())


def test_a_simple_task_is_mostly_solved_before_the_first_step(parts):
    model, encoder, rows = parts
    begin_at_prototypes(model, encoder, rows[:20], 8)
    truth = np.array([row.label for row in rows[20:]])
    assert (logits(model, encoder, rows[20:]).argmax(axis=1) == truth).mean() > 0.6


def test_the_scale_is_judged_by_other_rows(parts):
    """Labels drawn by chance look separable by means that hold the rows themselves."""
    model, encoder, rows = parts
    drawn = np.random.default_rng(0).integers(0, 5, len(rows))
    begin_at_prototypes(
        model, encoder, [row._replace(label=int(k)) for row, k in zip(rows, drawn, strict=True)], 8
    )
    log_probabilities = torch.log_softmax(torch.from_numpy(logits(model, encoder, rows)), -1)
    assert log_probabilities.exp().max() < 0.5


@pytest.mark.parametrize("count", [1, 4])
def test_few_rows_and_labels_without_rows_leave_finite_numbers(parts, count):
    model, encoder, rows = parts
    begin_at_prototypes(model, encoder, rows[:count], 8)
    assert np.isfinite(logits(model, encoder, rows)).all()


def test_the_head_learns_faster_than_the_adapter_in_every_step(parts, tmp_path):
    model, _, _ = parts
    with quiet():
        wrapped = get_peft_model(
            copy.deepcopy(model), LoraConfig(r=2, target_modules=["query"], modules_to_save=["head"])
        )
    trainer = AnswerTrainer(
        evaluation=dict,
        order=LengthGroupedSampler([1] * 8, 2, 0),
        batching=None,
        forward_rows=2,
        new_rate=5.0,
        model=wrapped,
        args=TrainingArguments(
            str(tmp_path), report_to="none", use_cpu=True, learning_rate=1e-3, weight_decay=0.1
        ),
        train_dataset=list(range(8)),
    )
    trainer.create_optimizer_and_scheduler(10)
    names = {id(weight): name for name, weight in wrapped.named_parameters()}
    rates = {}
    for _ in range(5):
        for group in trainer.optimizer.param_groups:
            rates |= {names[id(weight)]: (group["lr"], group["weight_decay"]) for weight in group["params"]}
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    assert set(rates) == {name for name, weight in wrapped.named_parameters() if weight.requires_grad}
    adapter = {rate for name, (rate, _) in rates.items() if "lora_" in name}
    head = {rate for name, (rate, _) in rates.items() if "head" in name}
    assert len(adapter) == len(head) == 1
    assert head.pop() == pytest.approx(5 * adapter.pop())
    assert {decay for name, (_, decay) in rates.items() if name.endswith("bias")} == {0.0}
    assert {decay for name, (_, decay) in rates.items() if name.endswith("weight")} == {0.1}
