"""Null bands, the debiased error and intervals, tried on populations whose truth is known.

Each limit is exceeded by a correct program with probability 1e-4 at most; seeds are fixed.
"""

import numpy as np
import pytest

from finetune.domain.accumulators import BrierAccumulator
from finetune.domain.calibration import (
    classwise_bins,
    compute_ace,
    compute_brier_score,
    compute_classwise_ece,
    compute_debiased_error,
    compute_ece,
    compute_mce,
    compute_rmsce,
    compute_smooth_ece,
    error_intervals,
    null_band,
)


def acceptance(runs, low, high):
    from scipy.stats import binom

    return binom.ppf(5e-5, runs, low), binom.ppf(1 - 5e-5, runs, high)


def calibrated(rng, n, k=4):
    rows = rng.dirichlet(np.full(k, 0.7), size=n)
    return rows, np.minimum((rows.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1), k - 1)


ERRORS = {
    "ece": compute_ece,
    "mce": compute_mce,
    "rmsce": compute_rmsce,
    "smooth_ece": compute_smooth_ece,
    "classwise_ece": compute_classwise_ece,
    "ace": compute_ace,
}


@pytest.mark.slow
@pytest.mark.parametrize("n", [60, 1000])
@pytest.mark.parametrize("error", ERRORS)
def test_null_band_holds_the_error_of_a_calibrated_model_as_often_as_it_says(error, n):
    runs, level = 100 if error == "smooth_ece" else 300, 0.9
    rng = np.random.default_rng([n, len(error)])
    inside = 0
    for _ in range(runs):
        rows, labels = calibrated(rng, n)
        band = null_band(rows, rng, n_resamples=200, level=level, error=error)
        inside += band.low <= ERRORS[error](rows, labels) <= band.high
    # The ends come from 200 draws, so the probability between them is itself off by about 0.02.
    low, high = acceptance(runs, level - 0.02, level + 0.02)
    assert low <= inside <= high


def test_debiased_error_is_right_on_average_and_the_plain_one_is_not():
    rng = np.random.default_rng(0)
    claims = np.arange(5, 100, 10) / 100  # one to a bin, so that nothing hides in a bin
    truth = np.mean((claims - claims**1.3) ** 2)
    debiased, plain = [], []
    for _ in range(2000):
        p = claims[rng.integers(10, size=150)]
        y = rng.random(150) < p**1.3
        debiased.append(compute_debiased_error(p, y).squared)
        plain.append(compute_rmsce(p, y) ** 2)
    se = np.std(debiased) / np.sqrt(len(debiased))
    assert abs(np.mean(debiased) - truth) < 4 * se
    assert np.mean(plain) - truth > 20 * se


def test_interval_of_the_brier_score_covers_the_truth():
    runs, rng = 400, np.random.default_rng(1)
    rows, labels = calibrated(rng, 400_000)
    truth = compute_brier_score(rows, labels)
    covered = [0, 0]
    for _ in range(runs):
        rows, labels = calibrated(rng, 300)
        bootstrap = error_intervals(rows, labels, rng, n_resamples=200, level=0.9, errors=("brier",))["brier"]
        accumulator = BrierAccumulator(4)
        accumulator.update(rows, labels)
        for i, interval in enumerate((bootstrap, accumulator.result().interval(0.9))):
            covered[i] += interval.low <= truth <= interval.high
    low, high = acceptance(runs, 0.88, 0.92)
    assert low <= min(covered)
    assert max(covered) <= high


@pytest.mark.slow
def test_interval_of_an_error_far_from_zero_covers_the_truth():
    runs, rng = 300, np.random.default_rng(2)
    truth = 0.25  # in one bin: confidences of 0.75 on average that come true half of the time
    covered = 0
    for _ in range(runs):
        p = rng.uniform(0.5, 1.0, 200)
        y = rng.random(200) < 0.5
        low, high, _ = error_intervals(p, y, rng, 1, n_resamples=200, level=0.9)["ece"]
        covered += low <= truth <= high
    low, high = acceptance(runs, 0.88, 0.92)
    assert low <= covered <= high


@pytest.mark.slow
def test_labels_drawn_for_the_null_band_have_the_frequencies_of_the_rows():
    rng = np.random.default_rng(3)
    rows, _ = calibrated(rng, 3000, k=7)
    band = null_band(rows, rng, n_resamples=400, error="classwise_ece")
    seen = [
        classwise_bins(rows, (rows.cumsum(axis=1) < rng.random((3000, 1))).sum(axis=1).clip(max=6)).ece
        for _ in range(400)
    ]
    spread = np.std(seen) * np.sqrt(2 / 400)
    assert abs(np.mean(seen) - band.mean) < 4 * spread
