"""Temperature scaling: the optimum, its limits, and what it leaves alone."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.domain.calibration import Temperature, compute_log_loss, fit_temperature
from finetune.domain.errors import InvalidInput


def draw(seed, n=300, k=4, scale=1.0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, size=(n, k))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return logits * scale, labels


def loss(logits, labels, temperature):
    return compute_log_loss(Temperature(temperature).apply(logits), labels, inputs="log_probabilities")


@given(st.integers(0, 10**6), st.sampled_from([0.1, 0.5, 1.0, 4.0, 40.0, 100.0]))
@settings(max_examples=25, deadline=None)
def test_matches_a_brute_force_optimiser(seed, scale):
    from scipy.optimize import minimize_scalar

    logits, labels = draw(seed, scale=scale)
    found = fit_temperature(logits, labels)
    brute = minimize_scalar(
        lambda t: loss(logits, labels, np.exp(t)), bounds=(np.log(0.01), np.log(1e4)), method="bounded",
        options={"xatol": 1e-10},
    )  # fmt: skip
    assert found.value == pytest.approx(np.exp(brute.x), rel=1e-4)
    assert loss(logits, labels, found.value) <= brute.fun + 1e-12
    assert loss(logits, labels, found.value) <= loss(logits, labels, 1.0) + 1e-12


def test_scaling_the_logits_scales_the_temperature():
    logits, labels = draw(5)
    one = fit_temperature(logits, labels).value
    assert fit_temperature(logits * 100, labels).value == pytest.approx(100 * one, rel=1e-9)
    shifted = fit_temperature(logits * 100 + 1234.5, labels).value
    assert shifted == pytest.approx(100 * one, rel=1e-6)


def test_log_probabilities_are_logits():
    logits, labels = draw(6)
    assert fit_temperature(Temperature(1.0).apply(logits), labels).value == pytest.approx(
        fit_temperature(logits, labels).value
    )


@given(st.integers(0, 10**6), st.floats(0.01, 1e4))
@settings(max_examples=50, deadline=None)
def test_the_likeliest_label_stays_the_likeliest(seed, temperature):
    logits, _ = draw(seed, n=20)
    scaled = Temperature(temperature).apply(logits)
    before = logits.argmax(axis=1)
    np.testing.assert_array_equal(scaled[np.arange(20), before], scaled.max(axis=1))
    np.testing.assert_allclose(np.exp(scaled).sum(axis=1), 1.0)


def test_excluded_labels_stay_excluded_and_do_not_move_the_optimum():
    logits, labels = draw(7)
    wide = np.column_stack([logits, np.full(len(logits), -np.inf)])
    assert fit_temperature(wide, labels).value == pytest.approx(fit_temperature(logits, labels).value)
    assert np.isneginf(Temperature(2.0).apply(wide)[:, -1]).all()


def test_all_right_ends_at_the_documented_limit():
    assert fit_temperature([[1.0, 0.0], [0.0, 2.0]], [0, 1]) == Temperature(0.01, at_limit=True)


@pytest.mark.parametrize("logits", [[[1.0, 0.0], [0.0, 2.0]], [[0.0, 0.0], [3.0, 3.0]]])
def test_useless_scores_end_at_the_other_limit(logits):
    assert fit_temperature(logits, [1, 0]) == Temperature(10_000.0, at_limit=True)


def test_an_impossible_true_label_is_an_error():
    with pytest.raises(InvalidInput, match=r"rows\[1\]"):
        fit_temperature([[0.0, 1.0], [0.0, -np.inf]], [0, 1])


@pytest.mark.parametrize("value", [0.0, -1.0, np.inf, np.nan, "2", None, True])
def test_impossible_temperatures(value):
    with pytest.raises(InvalidInput):
        Temperature(value)


@given(st.floats(1e-6, 1e6))
@settings(deadline=None)
def test_json_round_trip(value):
    fitted = Temperature(value, at_limit=True)
    assert Temperature.from_dict(json.loads(json.dumps(fitted.to_dict(), allow_nan=False))) == fitted
