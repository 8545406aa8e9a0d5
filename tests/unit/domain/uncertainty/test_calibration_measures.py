"""Class-wise, adaptive, debiased and smooth errors; parts of the Brier score; intervals and null bands."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.domain.calibration import (
    brier_parts,
    classwise_bins,
    compute_ace,
    compute_brier_score,
    compute_classwise_ece,
    compute_debiased_error,
    compute_ece,
    compute_log_loss,
    compute_mce,
    compute_rmsce,
    compute_smooth_ece,
    confidence_and_hits,
    decompose_brier,
    error_intervals,
    null_band,
    reliability_bins,
)
from finetune.domain.calibration import resampling as resampling_of_bins
from finetune.domain.calibration.bin_errors import BINNED_ERRORS
from finetune.domain.calibration.bins import bin_index, equal_width
from finetune.domain.errors import InsufficientData, InvalidInput
from finetune.domain.statistics import bootstrap_interval

MEASURES = [
    compute_ece,
    compute_mce,
    compute_rmsce,
    compute_classwise_ece,
    compute_ace,
    compute_smooth_ece,
    lambda p, y: compute_debiased_error(p, y).root,
]
SCORES = [compute_brier_score, compute_log_loss, lambda p, y: decompose_brier(p, y).score]


def draw(seed, n=200, k=4):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(k, 0.5), size=n), rng.integers(k, size=n), rng


probabilities = st.one_of(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.0]), st.floats(0, 1))
events = st.lists(st.tuples(probabilities, st.booleans()), min_size=1, max_size=40)


@given(events)
@settings(deadline=None)
def test_every_error_of_an_event_is_between_zero_and_one(rows):
    p, y = map(np.array, zip(*rows, strict=True))
    for measure in (*MEASURES[:-1], compute_brier_score):
        assert 0.0 <= measure(p, y) <= 1.0 + 1e-12
    found = compute_debiased_error(p, y)
    assert found is None or -1.0 <= found.squared <= 1.0


@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_every_error_over_labels_is_between_zero_and_one_and_keeps_no_order_of_labels(seed, k, n):
    rows, labels, rng = draw(seed, n, k)
    order = rng.permutation(k)
    for measure in (*MEASURES[:-1], *SCORES):
        value = measure(rows, labels)
        assert measure(rows[:, order], np.argsort(order)[labels]) == pytest.approx(value, abs=1e-12)
        assert value >= 0.0
        assert measure in SCORES or value <= 1.0 + 1e-12


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_two_labels_are_symmetric(seed):
    rng = np.random.default_rng(seed)
    p, y = rng.random(100), rng.integers(2, size=100)
    first, second = classwise_bins(np.column_stack([1 - p, p]), y).labels
    assert first.ece == pytest.approx(second.ece)
    for measure in (*MEASURES, compute_brier_score):
        assert measure(1 - p, 1 - y) == pytest.approx(measure(p, y), abs=1e-9)


@pytest.mark.parametrize("measure", [*MEASURES, *SCORES])
def test_single_precision_gives_the_same_but_for_the_rounding_of_the_input(measure):
    rows, labels, _ = draw(3, 5000, 7)
    assert measure(rows.astype(np.float32), labels) == pytest.approx(measure(rows, labels), abs=1e-6)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("n_bins", [3, 10, 15, 100])
def test_ends_of_bins_are_exact_in_either_precision(dtype, n_bins):
    ends = np.array([k / n_bins for k in range(n_bins + 1)], dtype=dtype)
    expected = np.ones(n_bins, dtype=int)
    expected[0] = 2  # 0 and the first end
    assert reliability_bins(ends, np.zeros(n_bins + 1, int), n_bins).counts.tolist() == expected.tolist()
    above = np.nextafter(ends[:-1], np.ones(n_bins, dtype), dtype=dtype)
    assert reliability_bins(above, np.zeros(n_bins, int), n_bins).counts.tolist() == [1] * n_bins


def test_rows_in_half_precision_and_in_lists_are_read():
    rows, labels, _ = draw(4, 50)
    half = rows.astype(np.float16)
    assert compute_ece(half, labels) == pytest.approx(compute_ece(rows, labels), abs=0.05)
    assert compute_ece(rows.tolist(), labels.tolist()) == compute_ece(rows, labels)


def plain_binned_error(p, y, edges):
    total = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (p > low) & (p <= high) | (p == 0) & (low == 0)
        if inside.any():
            total += abs(y[inside].mean() - p[inside].mean()) * inside.mean()
    return total


def test_classwise_error_is_the_mean_over_labels_of_theirs():
    rows, labels, _ = draw(5, 300, 5)
    edges = [k / 10 for k in range(11)]
    plain = [plain_binned_error(rows[:, k], labels == k, edges) for k in range(5)]
    assert compute_classwise_ece(rows, labels) == pytest.approx(np.mean(plain))
    assert [bins.ece for bins in classwise_bins(rows, labels).labels] == pytest.approx(plain)


def test_adaptive_error_is_the_published_one_where_the_bins_divide_the_rows():
    rows, labels, _ = draw(6, 120, 3)
    terms = []
    for k in range(3):
        order = np.argsort(rows[:, k])
        for part in np.split(order, 8):
            terms.append(abs((labels[part] == k).mean() - rows[part, k].mean()))
    assert compute_ace(rows, labels, 8) == pytest.approx(np.mean(terms))  # 1 / (K R) over labels and ranges


def test_parts_of_classwise_bins_add_up_and_others_are_refused():
    rows, labels, _ = draw(7, 90)
    whole = classwise_bins(rows, labels)
    merged = classwise_bins(rows[:40], labels[:40]).merge(classwise_bins(rows[40:], labels[40:]))
    assert merged.ece == pytest.approx(whole.ece)
    assert brier_parts(merged).score == pytest.approx(compute_brier_score(rows, labels))
    with pytest.raises(InvalidInput, match="4 labels"):
        whole.merge(classwise_bins([[0.5, 0.5]], [0]))


def test_debiased_error_by_its_definition():
    rows, labels, _ = draw(8, 150)
    p, y = confidence_and_hits(rows, labels)
    index = np.maximum(np.ceil(p * 10).astype(int) - 1, 0)
    total = kept = 0.0
    for b in range(10):
        of_bin, n_b = y[index == b], (index == b).sum()
        if n_b > 1:
            rate = of_bin.mean()
            total += n_b * ((p[index == b].mean() - rate) ** 2 - rate * (1 - rate) / (n_b - 1))
            kept += n_b
    found = compute_debiased_error(rows, labels)
    assert found.squared == pytest.approx(total / kept)
    assert found.rows_left_out == 150 - kept
    assert found.squared < compute_rmsce(rows, labels) ** 2


def test_what_the_debiased_error_is_off_by():
    # Five calibrated rows with p uniform in one bin: the squared gap is 0, Var(p) = Cov(p, y) = 1/12.
    rng = np.random.default_rng(0)
    p = rng.random((4000, 5))
    found = [compute_debiased_error(row, rng.random(5) < row, 1).squared for row in p]
    assert np.mean(found) == pytest.approx(-1 / 60, abs=4 * np.std(found) / 4000**0.5)
    assert np.mean(found) < -0.008
    same = [compute_debiased_error(np.full(5, 0.3), rng.random(5) < 0.3, 1).squared for _ in range(4000)]
    assert np.mean(same) == pytest.approx(0.0, abs=4 * np.std(same) / 4000**0.5)


def test_rows_alone_in_their_bin_are_left_out_and_counted():
    found = compute_debiased_error([0.95, 0.15, 0.15], [1, 0, 1], 10)
    assert found.rows_left_out == 1
    assert found.squared == pytest.approx(0.35**2 - 0.25)
    assert found.root == 0.0
    assert compute_debiased_error([0.95, 0.15], [1, 0], 10) is None


def dense_smooth_error(p, y, bandwidth):
    grid = (np.arange(4000) + 0.5) / 4000
    images = np.concatenate([p + 2 * k for k in (-1, 0, 1)] + [2 * k - p for k in (-1, 0, 1)])
    kernel = np.exp(-0.5 * ((grid[:, None] - images) / bandwidth) ** 2) / (bandwidth * math.sqrt(2 * math.pi))
    return np.abs(kernel @ np.tile(y - p, 6)).mean() / len(p)


@pytest.mark.parametrize("power", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("n", [1, 10, 150])
def test_smooth_error_is_the_fixed_point_of_the_smoothed_residuals(n, power):
    rng = np.random.default_rng([n, int(10 * power)])
    p = np.concatenate([rng.random(n), [0.0, 1.0, 1.0]])  # the ends too: there the kernel is reflected
    y = rng.random(n + 3) < p**power
    found = compute_smooth_ece(p, y)
    assert dense_smooth_error(p, y, found) == pytest.approx(found, abs=1e-6)


def test_smooth_error_moves_little_when_a_confidence_does():
    p, y = np.full(100, 0.5), np.arange(100) < 80
    moved = np.where(np.arange(100) % 2, 0.5 + 1e-9, 0.5 - 1e-9)
    assert compute_smooth_ece(moved, y) == pytest.approx(compute_smooth_ece(p, y), abs=1e-7)
    assert compute_ece(moved, y, 2) == pytest.approx(0.3)


@given(events, st.integers(1, 12), st.sampled_from(["width", "mass"]))
@settings(deadline=None)
def test_parts_of_the_brier_score_add_up_to_it(rows, n_bins, binning):
    p, y = map(np.array, zip(*rows, strict=True))
    parts = decompose_brier(p, y, n_bins, binning=binning)
    assert parts.score == pytest.approx(compute_brier_score(p, y), abs=1e-12)
    for part in (parts.reliability, parts.resolution, parts.within_variance):
        assert part >= 0.0
    assert 0.0 <= parts.resolution <= parts.uncertainty + 1e-12 <= 0.25 + 2e-12


@given(st.integers(0, 10**6), st.integers(1, 12), st.sampled_from(["width", "mass"]))
@settings(max_examples=30, deadline=None)
def test_parts_over_labels_add_up_too(seed, n_bins, binning):
    rows, labels, _ = draw(seed, 60)
    parts = decompose_brier(rows, labels, n_bins, binning=binning)
    assert parts.score == pytest.approx(compute_brier_score(rows, labels), abs=1e-12)


def test_bins_of_equal_probabilities_hide_nothing():
    p, y = np.repeat([0.1, 0.4, 0.8], 10), np.tile([0, 0, 1, 0, 1], 6)
    parts = decompose_brier(p, y)
    assert parts.within_variance == pytest.approx(0.0, abs=1e-15)
    assert parts.within_covariance == pytest.approx(0.0, abs=1e-15)
    assert parts.uncertainty == pytest.approx(0.24)


def plain_error(name, rows, labels):
    function = {"classwise_ece": compute_classwise_ece, "rmsce": compute_rmsce, "ece": compute_ece}
    if name in function:
        return function[name](rows, labels)
    return getattr(decompose_brier(rows, labels), name)


@pytest.mark.parametrize(
    "name", ["classwise_ece", "reliability", "resolution", "uncertainty", "rmsce", "ece"]
)
def test_intervals_over_labels_are_those_of_the_plain_bootstrap(name):
    rows, labels, _ = draw(9, 80, 3)
    fast = error_intervals(rows, labels, np.random.default_rng(1), n_resamples=60, errors=(name,))[name]
    slow = bootstrap_interval(
        lambda drawn: plain_error(name, rows[drawn], labels[drawn]), 80, np.random.default_rng(1), 60
    )
    assert fast == pytest.approx(slow)


def test_errors_of_the_same_bins_share_their_draws():
    rows, labels, _ = draw(10)
    together = error_intervals(
        rows, labels, np.random.default_rng(2), n_resamples=50, errors=("rmsce", "ece")
    )
    alone = error_intervals(rows, labels, np.random.default_rng(2), n_resamples=50, errors=("ece",))
    assert together["ece"] == alone["ece"]
    assert list(together) == ["rmsce", "ece"]


@pytest.mark.parametrize("name", [*BINNED_ERRORS, "brier"])
@pytest.mark.parametrize("shape", ["event", "labels"])
def test_every_error_has_an_interval_near_its_value(name, shape):
    rng = np.random.default_rng(11)
    p, y = rng.random(400), rng.integers(2, size=400)
    rows = p if shape == "event" else np.column_stack([1 - p, p])
    low, high, level = error_intervals(rows, y, rng, n_resamples=50, level=0.9, errors=(name,))[name]
    assert 0.0 <= low < high
    assert level == 0.9
    if name == "smooth_ece":
        assert low < compute_smooth_ece(rows, y) < high
    if name != "brier":
        band = null_band(rows, rng, n_resamples=50, error=name)
        assert band.low <= band.median <= band.high
        assert band.low <= band.mean <= band.high


def test_log_loss_has_an_interval_unless_it_is_infinite():
    rows, labels, rng = draw(12)
    low, high, _ = error_intervals(rows, labels, rng, errors=("log_loss",))["log_loss"]
    assert low < compute_log_loss(rows, labels) < high
    with pytest.raises(InvalidInput):
        error_intervals([[1.0, 0.0], [0.5, 0.5]], [1, 0], rng, errors=("log_loss",))


@pytest.mark.parametrize("name", ["ece", "mce", "smooth_ece"])
def test_rows_in_groups_give_the_intervals_and_bands_of_single_rows(name, monkeypatch):
    rng = np.random.default_rng(13)
    p = rng.random(10_000)
    y = rng.random(10_000) < p**1.2

    def found():
        interval = error_intervals(p, y, np.random.default_rng(3), n_resamples=100, errors=(name,))[name]
        band = null_band(p, np.random.default_rng(4), n_resamples=100, error=name)
        return np.array([*interval[:2], band.low, band.mean, band.high])

    single = found()
    monkeypatch.setattr(resampling_of_bins, "_SINGLE_ROWS", 1000)
    assert found() == pytest.approx(single, rel=0.2)


def test_published_bias_of_the_error_of_a_calibrated_model():
    for n, bias in ((25, 0.175), (100, 0.091), (5000, 0.013)):
        rng = np.random.default_rng(n)
        means = [null_band(rng.uniform(0.5, 1.0, n), rng, 15, 50).mean for _ in range(20)]
        assert np.mean(means) == pytest.approx(bias, rel=0.08)


def test_labels_of_the_null_band_follow_the_rows():
    rows = np.tile([[0.0, 0.2, 0.0, 0.8, 0.0]], (50, 1))
    band = null_band(rows, np.random.default_rng(0), n_bins=1, n_resamples=2000, error="uncertainty")
    # 2 E[q (1 - q)] with q = Binomial(50, 0.2) / 50; labels of probability 0 are never drawn
    assert band.mean == pytest.approx(2 * 0.16 * (1 - 1 / 50), rel=0.02)
    certain = null_band(np.eye(4), np.random.default_rng(0), n_resamples=20, error="classwise_ece")
    assert certain.high == 0.0


def test_an_error_that_is_not_estimable_has_no_interval():
    with pytest.raises(InsufficientData, match="debiased_rmsce"):
        null_band([0.15, 0.95], np.random.default_rng(0), error="debiased_rmsce")


BAD = [
    ([[0.2, 0.8], [0.5, 0.6]], [0, 1]),
    ([[0.2, 0.8], [np.nan, 1.0]], [0, 1]),
    ([0.2, 1.2], [0, 1]),
    ([0.2, np.nan], [0, 1]),
    ([0.2, 0.3], [0, 2]),
    ([0.2, 0.3], [0]),
    ([[0.2, 0.8]], [2]),
    ([], []),
    (None, [0]),
    ([["a", "b"]], [0]),
    (0.5, 1),
]


@pytest.mark.parametrize(("rows", "labels"), BAD)
@pytest.mark.parametrize(
    "function",
    [
        *MEASURES,
        *SCORES,
        decompose_brier,
        classwise_bins,
        confidence_and_hits,
        lambda p, y: error_intervals(p, y, np.random.default_rng(0), errors=("ece", "ace", "brier")),
    ],
)
def test_bad_input_is_refused(function, rows, labels):
    with pytest.raises(InvalidInput):
        function(rows, labels)


@pytest.mark.parametrize("numbers", [{"n_bins": 0}, {"n_bins": 2.5}, {"binning": "quantile"}])
@pytest.mark.parametrize(
    "function",
    [
        reliability_bins,
        classwise_bins,
        compute_ece,
        compute_mce,
        compute_rmsce,
        compute_debiased_error,
        decompose_brier,
        lambda p, y, **numbers: error_intervals(p, y, np.random.default_rng(0), **numbers),
        lambda p, y, **numbers: null_band(p, np.random.default_rng(0), **numbers),
    ],
)
def test_bad_numbers_are_refused(function, numbers):
    with pytest.raises(InvalidInput):
        function([0.5, 0.6], [0, 1], **numbers)


@pytest.mark.parametrize("errors", ["ece", 5, None])
def test_errors_are_a_list_of_names(errors):
    with pytest.raises(InvalidInput, match="list of names"):
        error_intervals([0.5], [1], np.random.default_rng(0), errors=errors)


@pytest.mark.parametrize("other", [3, None])
def test_bins_merge_with_bins_alone(other):
    for bins in (reliability_bins([0.5], [1]), classwise_bins([0.5], [1])):
        with pytest.raises(InvalidInput):
            bins.merge(other)


def test_unknown_errors_are_answered_with_the_known_ones():
    with pytest.raises(InvalidInput, match="'smooth_ece'"):
        null_band([0.5], np.random.default_rng(0), error="tace")
    with pytest.raises(InvalidInput, match="'log_loss'"):
        error_intervals([0.5], [1], np.random.default_rng(0), errors=("tace",))


@pytest.mark.parametrize("n", [40, 40_000])
def test_intervals_and_bands_bin_single_precision_as_the_errors_do(n):
    p = np.tile(np.array([0.3, 0.25], np.float32), n // 2)  # 0.3f is above 0.3, but in (0.2, 0.3]
    y = np.tile([1, 0], n // 2)
    found = error_intervals(p, y, np.random.default_rng(0), n_resamples=50)
    assert found["ece"] == pytest.approx(found["mce"])  # there is one bin
    bands = [null_band(p, np.random.default_rng(0), n_resamples=50, error=error) for error in ("ece", "mce")]
    assert bands[0] == pytest.approx(bands[1])


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_bins_of_equal_width_are_found_as_by_a_search_for_values_at_and_beside_every_end(kind):
    for n_bins in [*range(1, 130), 997, 1000]:
        ends = equal_width(n_bins)
        at = ends.astype(kind)
        beside = np.concatenate([np.nextafter(at, kind(0)), np.nextafter(at, kind(2))])
        values = np.concatenate([at, beside[beside <= 1.0], np.random.default_rng(0).random(100, dtype=kind)])
        searched = np.searchsorted(at[1:-1], values, side="left")
        assert np.array_equal(bin_index(values, ends), searched), n_bins
