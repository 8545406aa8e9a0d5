"""Weights of rows where labels are not equally frequent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from finetune.application.balance import balance_rows, balanced_weights
from finetune.application.config import TrainingConfig
from finetune.domain.errors import InvalidInput
from finetune.domain.examples import Example
from finetune.domain.labels import Label, LabelSet

LABELS = LabelSet("Cards", (Label("lost"), Label("stolen"), Label("unused")))


@dataclass
class Config:
    training: TrainingConfig


@dataclass
class Job:
    """What of a job is looked at."""

    labels: LabelSet
    train: list[Example]
    config: Config


def job(names, **settings) -> Job:
    rows = [Example(str(i), "text", name, None) for i, name in enumerate(names)]
    return Job(LABELS, rows, Config(TrainingConfig(**settings)))


def test_rows_count_alike_and_are_seen_once_unless_asked_otherwise():
    assert balance_rows(job(["lost", "lost", "stolen"])) == ([1.0, 1.0, 1.0], None)


def test_balanced_weights_let_labels_count_alike():
    weights, shares = balance_rows(job(["lost", "lost", "lost", "stolen"], class_weights="balanced"))
    assert shares is None
    assert weights == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2.0])


def test_balanced_sampling_draws_labels_alike_and_leaves_the_loss_alone():
    weights, shares = balance_rows(job(["lost", "lost", "lost", "stolen"], sampling="balanced"))
    assert weights == [1.0] * 4
    assert sum(shares[:3]) == pytest.approx(shares[3])


def test_given_weights_hold_relative_to_one_another_and_others_are_one():
    weights, _ = balance_rows(job(["lost", "stolen", "stolen"], class_weights={"lost": 4.0}))
    assert weights == pytest.approx([2.0, 0.5, 0.5])


def test_a_weight_of_zero_leaves_a_label_out():
    weights, _ = balance_rows(job(["lost", "stolen"], class_weights={"lost": 0.0}))
    assert weights == [0.0, 2.0]


def test_what_is_no_label_is_refused_with_the_nearest_one():
    with pytest.raises(InvalidInput, match="did you mean 'stolen'"):
        balance_rows(job(["lost"], class_weights={"stolne": 2.0}))


def test_weights_that_leave_no_row_are_refused():
    with pytest.raises(InvalidInput, match="no training row has a weight above 0"):
        balance_rows(job(["lost"], class_weights={"lost": 0.0}))


def test_balancing_twice_is_refused():
    with pytest.raises(ValidationError, match="count twice over"):
        TrainingConfig(class_weights="balanced", sampling="balanced")
    with pytest.raises(ValidationError):
        TrainingConfig(class_weights={"lost": -1.0})


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60))
def test_every_label_that_occurs_has_the_same_total(truth):
    weights = balanced_weights(np.array(truth), 6)
    totals = np.bincount(truth, weights=weights[truth], minlength=6)
    present = np.unique(truth)
    assert totals[present] == pytest.approx(np.full(len(present), len(truth) / len(present)))
    assert weights[truth].mean() == pytest.approx(1.0)
