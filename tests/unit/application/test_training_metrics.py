"""What is measured on validation rows, against the definitions, whatever order and number they have."""

from __future__ import annotations

import tracemalloc
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.application.metric_choice import Metric, greater_is_better, why_not_measured
from finetune.application.training_metrics import measure_validation
from finetune.domain.calibration import compute_brier_score, compute_ece, compute_log_loss, compute_mce
from finetune.domain.checks import FloatArray, IntArray
from finetune.domain.errors import InsufficientData, InvalidInput


def draw(n: int, k: int, seed: int, sharpness: float = 2.0) -> tuple[FloatArray, IntArray]:
    """Rows of a calibrated model, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=sharpness, size=(n, k))
    rows = logits - np.logaddexp.reduce(logits, axis=1)[:, None]
    labels = (np.exp(rows).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return rows, np.minimum(labels, k - 1)


@given(st.integers(1, 60), st.integers(2, 6), st.integers(0, 2**32 - 1), st.floats(0.05, 1.0))
def test_measures_are_those_of_the_domain(n, k, seed, threshold):
    rows, labels = draw(n, k, seed)
    found = measure_validation(rows, labels, confidence_threshold=threshold)
    probabilities = np.exp(rows)
    confidence, right = probabilities.max(axis=1), rows.argmax(axis=1) == labels
    answered = confidence >= threshold
    expected = {
        "log_loss": compute_log_loss(rows, labels, inputs="log_probabilities"),
        "accuracy": right.mean(),
        "ece": compute_ece(probabilities, labels),
        "mce": compute_mce(probabilities, labels),
        "brier": compute_brier_score(probabilities, labels),
        "abstention_rate": 1.0 - answered.mean(),
        **({"selective_risk": 1.0 - right[answered].mean()} if answered.any() else {}),
    }
    rest = {"ece_noise", "coverage", "mean_set_size"}
    assert found.keys() == expected.keys() | rest
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["ece_noise"] > 0.0
    assert 0.0 <= found["coverage"] <= 1.0
    assert 0.0 <= found["mean_set_size"] <= k


def test_where_nothing_is_answered_there_is_no_risk_of_answers():
    rows, labels = draw(50, 4, 0, sharpness=0.1)
    found = measure_validation(rows, labels)
    assert found["abstention_rate"] == 1.0
    assert "selective_risk" not in found


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_sets_of_the_tested_half_cover_as_often_as_they_should(alpha):
    """Over many data sets the mean coverage is k / (n + 1) of the half that calibrates."""
    covered = [measure_validation(*draw(200, 5, seed), alpha=alpha)["coverage"] for seed in range(300)]
    expected = np.ceil(101 * (1 - alpha)) / 101
    assert np.mean(covered) == pytest.approx(expected, abs=4 * np.std(covered) / np.sqrt(300))


@pytest.mark.parametrize("period", [None, 2, 4])
def test_halves_are_alike_in_rows_that_are_sorted_or_come_in_turns(period):
    """Of two labels the model knows one: were a half all of one label, sets would miss or hold everything."""
    n = 4000
    labels = np.sort(np.arange(n) % 4) if period is None else np.arange(n) % period
    rows = np.full((n, 4), np.log(0.02 / 3))
    rows[np.arange(n), labels] = np.log(0.98)
    unsure = labels == labels[0]
    rows[unsure] = np.log([0.4, 0.3, 0.2, 0.1])
    for order in (np.arange(n), np.arange(n)[::-1]):
        found = measure_validation(rows[order], labels[order], alpha=0.02)
        assert found["coverage"] == pytest.approx(0.99, abs=0.011)


def test_the_same_rows_calibrate_at_each_evaluation():
    rows, labels = draw(101, 3, 1)
    assert measure_validation(rows, labels) == measure_validation(rows.copy(), labels.copy())


@pytest.mark.parametrize("n", [1, 2, 17])
def test_with_too_few_rows_sets_hold_everything(n):
    rows, labels = draw(n, 3, 2)
    found = measure_validation(rows, labels, alpha=0.1)
    assert (found["coverage"], found["mean_set_size"]) == (1.0, 3.0)


def test_no_rows_and_wrong_rows_are_refused():
    with pytest.raises(InsufficientData, match="no validation rows"):
        measure_validation(np.empty((0, 3)), np.empty(0, np.int64))
    rows, labels = draw(5, 3, 0)
    with pytest.raises(InvalidInput):
        measure_validation(rows, labels + 3)
    rows[2, 1] = np.nan
    with pytest.raises(InvalidInput):
        measure_validation(rows, labels)


def test_many_rows_take_little_more_memory_than_they_have():
    rows, labels = draw(200_000, 10, 3)
    tracemalloc.start()
    found = measure_validation(rows, labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.4 * rows.nbytes
    assert found["ece"] < 0.01


def test_each_metric_has_a_direction_and_most_are_always_measured():
    rows, labels = draw(50, 4, 0)
    measured = measure_validation(rows, labels).keys()
    assert set(get_args(Metric)) - measured == {"json_validity"}
    assert [name for name in get_args(Metric) if greater_is_better(name)] == ["accuracy", "json_validity"]
    for name in get_args(Metric):
        assert why_not_measured(name, "causal", 16) is None
    assert "json_samples is 0" in str(why_not_measured("json_validity", "causal", 0))
    assert "encoder" in str(why_not_measured("json_validity", "encoder", 16))
