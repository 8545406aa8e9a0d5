"""Training with each objective, weights of labels and sampling, on every path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.fakes import FakeProgress
from tests.integration import test_backends, test_hf_training
from tests.integration.test_hf_training import LABELS, PROMPT, ROWS, Log
from tests.tiny_models import save_tiny, save_tiny_encoder
from torch.nn.functional import kl_div

from finetune.adapters.hf.classifier_model import ClassifiedText, load_classifier, load_text_encoder
from finetune.adapters.hf.classifier_trainer import ClassifierBatches, ClassifierTrainer
from finetune.adapters.hf.objectives import abstention_loss, cross_entropy_loss
from finetune.adapters.hf.reporting import Silence
from finetune.adapters.hf.trainer import HfTrainer
from finetune.application.config import ProjectConfig
from finetune.application.ports import TrainingJob, TrainingOutcome
from finetune.domain.objectives import abstention_loss as reference

COSTS = 1.0 - np.eye(4)
OBJECTIVES = {
    "answers": {"objective": {"weight": 0.0}},
    "cross_entropy": {},
    "label_smoothing": {"objective": {"label_smoothing": 0.1}},
    "focal": {"objective": {"name": "focal"}},
    "abstention": {"abstention_loss": {"enabled": True}},
    "expected_cost": {"objective": {"name": "expected_cost"}},
    "conformal": {"objective": {"name": "conformal"}},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return save_tiny("qwen2", tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory) -> Path:
    return save_tiny_encoder(tmp_path_factory.mktemp("encoder"))


def train(config: ProjectConfig, run: Path, log: Log) -> TrainingOutcome:
    job = TrainingJob(config, LABELS, PROMPT, ROWS, ROWS[:12], run, {"rows": 40}, False, COSTS)
    trainer = ClassifierTrainer if config.backend == "encoder" else HfTrainer
    return trainer(lambda name: name).train(job, log, Silence())


def losses(log: Log) -> list[float]:
    return [values["loss"] for event, values in log.events if event == "training"]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_trees_and_rectangles_train_alike(name, tiny, tmp_path):
    logs = []
    for tree in (True, False):
        config = test_hf_training.configure(
            tiny,
            # One rectangle a step, as there is one tree: conformal training looks at the rows of a forward.
            training={
                "token_tree": tree,
                "epochs": 1,
                "json_samples": 0,
                "per_device_batch_size": 4,
                "gradient_accumulation_steps": 1,
            },
            lora={"dropout": 0.0},
            **OBJECTIVES[name],
        )
        logs.append(Log())
        outcome = train(config, tmp_path / str(tree), logs[-1])
        assert outcome.path == ("tree" if tree else "padded")
        assert outcome.best["log_loss"] < outcome.first["log_loss"]
    assert losses(logs[0]) == pytest.approx(losses(logs[1]), rel=2e-3, abs=1e-4)


@pytest.mark.parametrize(("tree", "apart"), [(True, False), (False, True)])
def test_few_labels_have_half_of_the_loss_unless_they_are_told_not_to(tree, apart, tiny, tmp_path):
    found, said = [], []
    for i, objective in enumerate(({}, {"weight": 0.5}, {"weight": 0.0})):
        config = test_hf_training.configure(
            tiny,
            training={"max_steps": 2, "json_samples": 0, "token_tree": tree},
            lora={"dropout": 0.0},
            objective=objective,
        )
        log, progress = Log(), FakeProgress()
        test_hf_training.train(config, tmp_path / str(i), log=log, progress=progress)
        found.append(losses(log))
        said.append([message for message in progress.said if "of the loss is" in message])
    assert found[0] == found[1] != pytest.approx(found[2], rel=1e-3)
    assert said[0] == said[1]
    assert said[2] == []
    assert "50% of the loss is cross entropy of the probabilities of all 4 outcomes" in said[0][0]
    assert ("tokens more for each row" in said[0][0]) == tree
    assert ("padded batches run apart" in said[0][0]) == apart


def test_an_objective_is_what_makes_the_difference(tiny, tmp_path):
    found = []
    for name in ("cross_entropy", "focal"):
        config = test_hf_training.configure(
            tiny,
            training={"epochs": 1, "json_samples": 0},
            lora={"dropout": 0.0},
            objective={"name": name, "weight": 0.5},
        )
        log = Log()
        train(config, tmp_path / name, log)
        found.append(losses(log))
    # A model that has learnt nothing is sure of the shortest label, where both are the same.
    assert max(one - other for one, other in zip(*found, strict=True)) > 0.01


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_encoder_learns_with_each_objective(name, tiny_encoder, tmp_path):
    config = test_backends.configure(tmp_path, "encoder", tiny_encoder, epochs=8)
    config = ProjectConfig.model_validate({**config.model_dump(), **OBJECTIVES[name]})
    outcome = train(config, tmp_path / "run", Log())
    assert outcome.best["accuracy"] > outcome.first["accuracy"]


def test_the_objective_of_an_encoder_is_that_of_its_probabilities(tiny_encoder, tmp_path):
    config = test_backends.configure(tmp_path, "encoder", tiny_encoder)
    torch.manual_seed(0)
    model = load_classifier(config, lambda name: name, 4, "fp32")
    encoder = load_text_encoder(config, lambda name: name, 64)
    weights = [1.0, 0.0, 2.5]
    rows = [
        ClassifiedText(tuple(encoder.ids(row.text)[0]), 0, 0, LABELS.index(row.label), weight)
        for row, weight in zip(ROWS[:3], weights, strict=True)
    ]
    batching = ClassifierBatches(encoder, 4, torch.device("cpu"), abstention_loss)
    (batch,) = batching.divide(rows)
    found = batching.loss(model, batch)
    with torch.inference_mode():
        expected = torch.log_softmax(model(**batch.inputs._asdict()), -1).double().numpy()
    labels = np.array([row.label for row in rows])
    assert found.answers.item() == pytest.approx(-(expected[np.arange(3), labels] * weights).sum(), rel=1e-5)
    assert found.labels.item() == pytest.approx((reference(expected, labels) * weights).sum(), rel=1e-5)


def test_two_draws_of_dropout_are_drawn_together(tiny_encoder, tmp_path):
    config = test_backends.configure(tmp_path, "encoder", tiny_encoder)
    torch.manual_seed(0)
    model = load_classifier(config, lambda name: name, 4, "fp32")
    encoder = load_text_encoder(config, lambda name: name, 64)
    rows = [
        ClassifiedText(tuple(encoder.ids(row.text)[0]), 0, 0, LABELS.index(row.label)) for row in ROWS[:8]
    ]
    plain, once, twice = (
        ClassifierBatches(encoder, 8, torch.device("cpu"), cross_entropy_loss, weight)
        for weight in (0.0, 1e-9, 1.0)
    )
    (batch,) = plain.divide(rows)
    # Without dropout both draws are the same.
    assert twice.loss(model, batch).labels.item() == pytest.approx(plain.loss(model, batch).labels.item())
    model.train()
    losses = []
    for batching in (once, twice):
        torch.manual_seed(1)
        losses.append(batching.loss(model, batch).labels.item())
    torch.manual_seed(1)
    with torch.inference_mode():
        one, other = (torch.log_softmax(model(**batch.inputs._asdict()), -1) for _ in range(2))
    apart = kl_div(one, other, log_target=True, reduction="sum") + kl_div(
        other, one, log_target=True, reduction="sum"
    )
    assert losses[1] - losses[0] == pytest.approx(apart.item() / 2, rel=1e-3)
    assert apart > 0


@pytest.mark.parametrize("balance", [{"class_weights": "balanced"}, {"sampling": "balanced"}])
@pytest.mark.parametrize("backend", ["causal", "encoder"])
def test_rare_labels_are_heard(backend, balance, tiny, tiny_encoder, tmp_path):
    rows = [row for i, row in enumerate(ROWS) if row.label != "late" or i < 4]
    last = []
    for changes in ({}, balance):
        if backend == "encoder":
            config = test_backends.configure(tmp_path, "encoder", tiny_encoder, epochs=2, **changes)
        else:
            training = {"epochs": 2, "json_samples": 0, **changes}
            config = test_hf_training.configure(tiny, training=training)
        run = tmp_path / f"{backend}{bool(changes)}"
        job = TrainingJob(config, LABELS, PROMPT, rows, ROWS[2::4], run, {}, False)
        trainer = ClassifierTrainer if backend == "encoder" else HfTrainer
        log = Log()
        trainer(lambda name: name).train(job, log, Silence())
        # All validation rows are of the rare label.
        last.append([values["log_loss"] for event, values in log.events if event == "evaluation"][-1])
    assert last[1] < last[0]
