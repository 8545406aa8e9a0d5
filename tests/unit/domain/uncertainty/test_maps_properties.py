"""What holds for every map and any rows."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from finetune.domain.calibration.maps import MAPS, map_from_dict
from finetune.domain.errors import FinetuneError

KINDS = [name for name in MAPS if name != "identity"]
MONOTONE = ["platt", "beta", "isotonic"]

seeds = st.integers(0, 10**6)
kinds = st.sampled_from(list(MAPS))


def draw(seed, n=80, k=3, scale=1.0):
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1.5, size=(n, k))
    return scale * z, (z + rng.gumbel(size=z.shape)).argmax(axis=1)


def fit(kind, rows, labels, **options):
    return MAPS[kind].fit(rows, labels, **options)


@given(kinds, seeds, st.sampled_from([2, 3, 7]), st.sampled_from([1e-3, 1.0, 40.0, 100.0, 1e6]))
@settings(max_examples=80, deadline=None)
def test_rows_are_log_probabilities(kind, seed, k, scale):
    z, labels = draw(seed, k=k, scale=scale)
    fitted = fit(kind, z, labels)
    new = draw(seed + 1, k=k, scale=3 * scale)[0]
    log_probs = fitted.apply(new)
    assert log_probs.shape == new.shape
    assert log_probs.max() <= 0.0
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1.0, rtol=1e-12)


@pytest.mark.parametrize("kind", list(MAPS))
@pytest.mark.parametrize("k", [2, 3, 4, 7, 20])
def test_a_row_becomes_the_same_whatever_else_is_in_its_batch(kind, k):
    z, labels = draw(3, n=150, k=k)
    fitted = fit(kind, z, labels)
    together = fitted.apply(z)
    for size in (1, 3):
        apart = np.concatenate([fitted.apply(z[i : i + size]) for i in range(0, len(z), size)])
        np.testing.assert_array_equal(apart, together)


@given(kinds, seeds, st.sampled_from([2, 4]))
@settings(max_examples=40, deadline=None)
def test_json_round_trip_gives_the_same_numbers(kind, seed, k):
    z, labels = draw(seed, k=k)
    fitted = fit(kind, z, labels)
    read = map_from_dict(json.loads(json.dumps(fitted.to_dict(), allow_nan=False)))
    assert type(read) is type(fitted)
    assert read.kind == kind
    np.testing.assert_array_equal(read.apply(z), fitted.apply(z))


@given(st.sampled_from(KINDS), seeds, st.permutations(range(4)))
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_labels_does_not_matter(kind, seed, order):
    z, labels = draw(seed, k=4)
    permuted = fit(kind, z[:, order], np.argsort(order)[labels]).apply(z[:, order])
    np.testing.assert_allclose(permuted, fit(kind, z, labels).apply(z)[:, order], atol=1e-6)


@given(st.sampled_from(["platt", "beta", "isotonic"]), seeds)
@settings(max_examples=30, deadline=None)
def test_neither_does_it_for_two(kind, seed):
    z, labels = draw(seed, k=2)
    swapped = fit(kind, z[:, ::-1], 1 - labels).apply(z[:, ::-1])
    np.testing.assert_allclose(swapped, fit(kind, z, labels).apply(z)[:, ::-1], atol=1e-6)


@given(kinds, seeds)
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_rows_does_not_matter(kind, seed):
    z, labels = draw(seed)
    order = np.random.default_rng(seed).permutation(len(z))
    np.testing.assert_allclose(
        fit(kind, z[order], labels[order]).apply(z), fit(kind, z, labels).apply(z), atol=1e-7
    )


@given(
    st.sampled_from([kind for kind in MAPS if kind not in ("vector", "matrix")]), seeds, st.floats(-50, 50)
)
@settings(max_examples=40, deadline=None)
def test_only_probabilities_matter(kind, seed, shift):
    z, labels = draw(seed)
    log_probs = log_softmax(z, axis=1)
    fitted = fit(kind, z, labels)
    expected = fitted.apply(z)
    np.testing.assert_allclose(fitted.apply(z + shift), expected, atol=1e-7)
    np.testing.assert_allclose(fitted.apply(log_probs, inputs="log_probabilities"), expected, atol=1e-7)
    np.testing.assert_allclose(fitted.apply(np.exp(log_probs), inputs="probabilities"), expected, atol=1e-7)
    again = fit(kind, np.exp(log_probs), labels, inputs="probabilities")
    np.testing.assert_allclose(again.apply(z), expected, atol=1e-6)


@given(seeds, st.floats(0.01, 100.0))
@settings(max_examples=40, deadline=None)
def test_temperature_keeps_the_likeliest_label(seed, scale):
    z, labels = draw(seed, scale=scale)
    scaled = fit("temperature", z, labels).apply(z)
    np.testing.assert_array_equal(scaled[np.arange(len(z)), z.argmax(axis=1)], scaled.max(axis=1))


@given(st.sampled_from(MONOTONE), seeds, st.sampled_from([1.0, 100.0]))
@settings(max_examples=40, deadline=None)
def test_binary_curves_never_turn(kind, seed, scale):
    z, labels = draw(seed, k=2, scale=scale)
    fitted = fit(kind, z, labels)
    grid = np.linspace(-20 * scale, 20 * scale, 301)
    curve = fitted.apply(np.column_stack([np.zeros(301), grid]))[:, 1]
    steps = np.diff(curve)
    rises = kind != "platt" or fitted.slopes[0] >= 0
    assert (steps >= -1e-12).all() if rises else (steps <= 1e-12).all()


@given(
    st.sampled_from(["platt", "beta", "isotonic", "histogram", "temperature", "vector", "dirichlet"]), seeds
)
@settings(max_examples=40, deadline=None)
def test_scaled_logits_lose_no_digits(kind, seed):
    # At 100 times the logits every probability is 0 or 1 to double precision; the order is not lost.
    z, labels = draw(seed, k=2)
    once, saturated = fit(kind, z, labels), fit(kind, 100 * z, labels)
    loss = [
        -fitted.apply(rows)[np.arange(len(z)), labels].mean()
        for fitted, rows in ((once, z), (saturated, 100 * z))
    ]
    assert loss[1] <= loss[0] + 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_calibrated_rows_are_left_nearly_as_they_are(kind):
    z, labels = draw(5, n=20_000, k=3)
    z_new, labels_new = draw(6, n=20_000, k=3)
    log_probs = fit(kind, z, labels).apply(z_new)
    of_truth = log_softmax(z_new, axis=1)
    excess = np.mean((of_truth - log_probs)[np.arange(len(z_new)), labels_new])
    assert excess < 0.012  # nats; 0.004 for 60 numbers fitted, and the width of the bins of the histogram
    assert np.abs(np.exp(log_probs) - np.exp(of_truth)).mean() < (0.04 if kind == "histogram" else 0.012)


@given(
    kinds,
    st.one_of(
        st.none(),
        st.just("rows"),
        st.lists(st.lists(st.floats(), max_size=3), max_size=3),
        st.just([[np.nan, 1.0]]),
        st.just([[0.5, 0.5], [0.7, 0.7]]),
    ),
    st.one_of(
        st.none(), st.just([0]), st.lists(st.integers(-1, 3), max_size=3), st.just([0.0]), st.just("ab")
    ),
    st.sampled_from(["logits", "log_probabilities", "probabilities", "odds", None]),
)
@settings(max_examples=300, deadline=None)
def test_what_is_wrong_raises_our_errors_only(kind, rows, labels, inputs):
    try:
        log_probs = fit(kind, rows, labels, inputs=inputs).apply(rows, inputs=inputs)
    except FinetuneError:
        return
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1.0)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(-2, 2)
    | st.integers(-3, 3)
    | st.sampled_from(["", "logits", "+inf"]),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(list(MAPS)), st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_records_raise_our_errors_only(kind, data):
    record = fit(kind, *draw(0)).to_dict()
    key = data.draw(st.sampled_from(sorted(record)))
    record[key] = data.draw(json_values)
    try:
        fitted = map_from_dict(record)
        log_probs = fitted.apply(draw(1, k=3)[0])
    except FinetuneError:
        return
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1.0)
