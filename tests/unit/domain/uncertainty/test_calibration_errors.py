"""Reliability bins, ECE, MCE, Brier score and log loss: published numbers and properties."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.domain.calibration import (
    ReliabilityBins,
    compute_brier_score,
    compute_ece,
    compute_log_loss,
    compute_mce,
    error_intervals,
    null_band,
    reliability_bins,
)
from finetune.domain.errors import InvalidInput
from finetune.domain.statistics import bootstrap_interval


def draw(seed, n=200, k=4):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(k, 0.5), size=n), rng.integers(k, size=n), rng


@pytest.mark.parametrize(
    ("y_prob", "y_true", "n_bins", "l1", "l2", "largest"),
    [
        ([0.25, 0.25, 0.55, 0.75, 0.75], [0, 0, 1, 1, 1], 2, 0.2900, 0.2918, 0.3167),
        (
            [[0.25, 0.2, 0.55], [0.55, 0.05, 0.4], [0.1, 0.3, 0.6], [0.9, 0.05, 0.05]],
            [0, 1, 2, 0],
            3,
            0.2,
            0.2082,
            0.2333,
        ),
    ],
)
def test_published_numbers(y_prob, y_true, n_bins, l1, l2, largest):
    bins = reliability_bins(y_prob, y_true, n_bins)
    assert bins.ece == compute_ece(y_prob, y_true, n_bins) == pytest.approx(l1, abs=5e-5)
    assert bins.rmsce == pytest.approx(l2, abs=5e-5)
    assert bins.mce == compute_mce(y_prob, y_true, n_bins) == pytest.approx(largest, abs=5e-5)


def test_equal_width_and_equal_mass():
    y_prob, y_true = [0.6, 0.7, 0.8, 0.9], [0, 0, 1, 1]
    assert reliability_bins(y_prob, y_true, 2).ece == pytest.approx(0.25)
    assert reliability_bins(y_prob, y_true, 2, binning="mass").ece == pytest.approx(0.4)


def test_confidence_one_falls_into_the_last_bin():
    assert compute_ece([1.0, 0.95], [0, 1], 10) == pytest.approx(0.475)  # a phantom bin would make it 0.525


def test_bins_are_open_on_the_left_and_closed_on_the_right():
    assert reliability_bins([0.0, 0.1, 0.3, 0.6, 0.7, 1.0], [0] * 6, 10).counts.tolist() == [
        2, 0, 1, 0, 0, 1, 1, 0, 0, 1,
    ]  # fmt: skip


def test_n_bins_makes_that_many_bins():
    assert len(reliability_bins([0.5], [1], 7).counts) == 7


def test_labels_that_do_not_occur_do_no_harm():
    rows, _, rng = draw(0, k=5)
    labels = rng.integers(2, size=len(rows))
    bins = reliability_bins(rows, labels)
    assert 0.0 < bins.ece <= bins.mce <= 1.0


def test_two_columns_are_still_judged_by_the_likelier_label():
    assert compute_ece([[0.9, 0.1], [0.2, 0.8]], [0, 0]) == pytest.approx(0.5 * 0.1 + 0.5 * 0.8)
    assert compute_ece([0.1, 0.8], [0, 0]) == pytest.approx(0.5 * 0.1 + 0.5 * 0.8)
    assert compute_ece([0.1, 0.2], [0, 0]) == pytest.approx(0.15)


@given(st.integers(0, 10**6), st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_errors_are_ordered_and_do_not_depend_on_the_order_of_labels_or_rows(seed, n_bins):
    rows, labels, rng = draw(seed)
    order, shuffle = rng.permutation(4), rng.permutation(len(rows))
    bins = reliability_bins(rows, labels, n_bins)
    moved = reliability_bins(rows[:, order][shuffle], np.argsort(order)[labels][shuffle], n_bins)
    assert moved.ece == pytest.approx(bins.ece)
    assert moved.mce == pytest.approx(bins.mce)
    assert 0.0 <= bins.ece <= bins.rmsce + 1e-12 <= bins.mce + 2e-12 <= 1.0 + 3e-12


@given(st.integers(0, 10**6), st.integers(1, 199))
@settings(max_examples=20, deadline=None)
def test_bins_of_parts_add_up(seed, cut):
    rows, labels, _ = draw(seed)
    whole = reliability_bins(rows, labels)
    merged = reliability_bins(rows[:cut], labels[:cut]).merge(reliability_bins(rows[cut:], labels[cut:]))
    assert merged.counts.tolist() == whole.counts.tolist()
    assert merged.ece == pytest.approx(whole.ece)


def test_bins_with_other_edges_do_not_merge():
    with pytest.raises(InvalidInput, match="edges"):
        reliability_bins([0.5], [1], 5).merge(reliability_bins([0.5], [1], 4))


@given(st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), min_size=1, max_size=30), st.integers(1, 12))
@settings(deadline=None)
def test_equal_confidences_share_a_bin_of_equal_mass(y_prob, n_bins):
    bins = reliability_bins(y_prob, [1] * len(y_prob), n_bins, binning="mass")
    assert bins.counts.sum() == len(y_prob)
    assert (bins.counts > 0).sum() <= len(set(y_prob))


def test_an_empty_bin_is_none_in_json():
    table = json.loads(json.dumps(reliability_bins([0.25, 0.75], [0, 1], 4).to_dict(), allow_nan=False))
    assert table["confidence"] == [0.25, None, 0.75, None]
    assert table["accuracy"] == [0.0, None, 1.0, None]


@pytest.mark.parametrize("n", [25, 100, 5000])
def test_null_band_holds_the_ece_of_calibrated_models(n):
    rng = np.random.default_rng(n)
    y_prob = rng.random(n)
    band = null_band(y_prob, rng, n_bins=15, n_resamples=400, level=0.99)
    seen = [compute_ece(y_prob, (rng.random(n) < y_prob).astype(int), 15) for _ in range(40)]
    assert np.mean(seen) == pytest.approx(band.mean, rel=0.12)
    assert sum(not band.low <= value <= band.high for value in seen) <= 4  # P(Bin(40, .01) > 4) < 1e-4
    assert band.low <= band.median <= band.high


def test_null_band_shrinks_as_one_over_root_n():
    means = [
        null_band(np.random.default_rng(0).random(n), np.random.default_rng(1), 15, 300).mean
        for n in (100, 10000)
    ]
    assert means[0] / means[1] == pytest.approx(10, rel=0.25)


def test_a_miscalibrated_model_is_outside_the_band():
    rng = np.random.default_rng(3)
    rows = rng.dirichlet(np.full(3, 0.3), size=2000)
    assert compute_ece(rows, rng.integers(3, size=2000)) > null_band(rows, rng, n_resamples=200).high


@pytest.mark.parametrize("n", [1, 30, 2000])
def test_intervals_of_the_errors_are_those_of_the_plain_bootstrap(n):
    rng = np.random.default_rng(n)
    confidence = rng.random(n)
    hits = rng.random(n) < confidence**2
    fast = error_intervals(confidence, hits, np.random.default_rng(7), 12, 700, 0.9)
    for interval, error in zip(fast.values(), (compute_ece, compute_mce), strict=True):
        slow = bootstrap_interval(
            lambda rows, error=error: error(confidence[rows], hits[rows], 12),
            n, np.random.default_rng(7), 700, 0.9,
        )  # fmt: skip
        assert interval == pytest.approx(slow)


def test_intervals_of_the_errors_refuse_what_does_not_fit():
    rng = np.random.default_rng(0)
    for arguments in (([0.5, 1.5], [0, 1]), ([0.5], [0, 1]), ([0.5, 0.5], [0, 2]), ([], [])):
        with pytest.raises(InvalidInput):
            error_intervals(*arguments, rng)
    for numbers in ({"n_bins": 0}, {"n_resamples": 0}, {"level": 95}):
        with pytest.raises(InvalidInput):
            error_intervals([0.5, 0.6], [0, 1], rng, **numbers)


def test_brier():
    y_prob, y_true = np.array([0.1, 0.9, 0.8, 0.3]), [0, 1, 1, 0]
    assert compute_brier_score(y_prob, y_true) == pytest.approx(0.0375)
    assert compute_brier_score(np.column_stack([1 - y_prob, y_prob]), y_true) == pytest.approx(0.075)
    assert compute_brier_score([[0.0, 1.0, 0.0]], [0]) == pytest.approx(2.0)


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_scores_equal_their_definitions(seed):
    rows, labels, _ = draw(seed, n=50)
    onehot = np.eye(4)[labels]
    assert compute_brier_score(rows, labels) == pytest.approx(((rows - onehot) ** 2).sum(axis=1).mean())
    expected = -np.log(rows[np.arange(50), labels]).mean()
    assert compute_log_loss(rows, labels) == pytest.approx(expected)
    assert compute_log_loss(np.log(rows), labels, inputs="log_probabilities") == pytest.approx(expected)
    assert compute_log_loss(np.log(rows) + 7.0, labels, inputs="logits") == pytest.approx(expected)


def test_log_loss_of_an_impossible_label_is_infinite():
    assert compute_log_loss([[1.0, 0.0]], [1]) == np.inf
    assert compute_log_loss([[1.0, 0.0]], [0]) == 0.0


def test_result_is_frozen():
    bins = reliability_bins([0.5], [1])
    assert isinstance(bins, ReliabilityBins)
    with pytest.raises(AttributeError):
        bins.counts = None
