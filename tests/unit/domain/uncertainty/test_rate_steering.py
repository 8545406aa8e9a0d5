"""When a rise of the calibration error cuts the learning rate."""

from __future__ import annotations

import math
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.domain.accumulators import ReliabilityAccumulator
from finetune.domain.calibration import reliability_bins
from finetune.domain.calibration.error_noise import ece_noise
from finetune.domain.errors import InvalidInput
from finetune.domain.rate_steering import SteeringState, steer


def cuts(errors, noise=0.0, threshold=0.05) -> list[int]:
    """Return at which evaluations the rate is cut."""
    noises = noise if isinstance(noise, list) else [noise] * len(errors)
    state, found = SteeringState(), []
    for i, (error, of_error) in enumerate(zip(errors, noises, strict=True)):
        state, cut, _, _ = steer(state, error, of_error, threshold)
        if cut:
            found.append(i)
    return found


def test_a_rise_is_answered_once_however_long_it_lasts():
    assert cuts([0.04, 0.03, 0.2, 0.3, 0.25, 0.9]) == [2]


def test_after_coming_back_another_rise_is_answered():
    assert cuts([0.03, 0.2, 0.07, 0.2, 0.2, 0.02, 0.2]) == [1, 3, 6]
    # Half of the way back is not back.
    assert cuts([0.03, 0.2, 0.1, 0.2]) == [1]


def test_the_rise_counts_from_the_best_and_not_from_the_last():
    assert cuts([0.03, 0.05, 0.07, 0.09]) == [3]


def test_a_rise_that_noise_explains_is_answered_when_it_stays_and_noise_falls():
    noises = [0.02, 0.1, 0.1, 0.03]
    assert cuts([0.03, 0.12, 0.12, 0.12], noises) == [3]


def test_a_best_that_may_be_luck_is_no_low_mark():
    assert cuts([0.03, 0.12], [0.1, 0.01]) == []
    assert cuts([0.03, 0.12], [0.01, 0.01]) == [1]


@given(
    st.floats(0.0, 0.5),
    st.lists(st.tuples(st.floats(0.0, 0.4), st.floats(-1.0, 1.0)), min_size=1, max_size=30),
    st.floats(0.0, 0.2),
)
def test_errors_within_their_noise_of_one_that_does_not_rise_cut_nothing(true, evaluations, threshold):
    noises = [noise for noise, _ in evaluations]
    errors = [min(max(true + 0.999 * share * noise, 0.0), 1.0) for noise, share in evaluations]
    assert cuts(errors, noises, threshold) == []


@given(
    st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 0.3)), max_size=30), st.floats(0.0, 0.5, width=16)
)
def test_between_two_cuts_the_error_was_back(evaluations, threshold):
    errors = [error for error, _ in evaluations]
    found = cuts(errors, [noise for _, noise in evaluations], threshold)
    for one, other in pairwise(found):
        best = [min(errors[:i]) for i in range(one + 1, other)]
        between = zip(errors[one + 1 : other], best, strict=True)
        assert any(error - low <= threshold for error, low in between)
    for i in found:
        assert errors[i] - min(errors[:i]) > threshold


@pytest.mark.parametrize(
    ("ece", "noise", "threshold"),
    [(math.nan, 0.1, 0.1), (-0.1, 0.1, 0.1), (1.1, 0.1, 0.1), (0.1, -1.0, 0.1), (0.1, 0.1, 2.0)],
)
def test_what_is_no_error_is_refused(ece, noise, threshold):
    with pytest.raises(InvalidInput, match="must be a number in"):
        steer(SteeringState(), ece, noise, threshold)


CASES = {
    "calibrated": (lambda rng, n: rng.uniform(0.1, 1.0, n), lambda p: p),
    "calibrated and sharp": (lambda rng, n: rng.beta(20, 1, n), lambda p: p),
    "of many labels, before learning": (lambda rng, n: rng.uniform(0.01, 0.05, n), lambda p: p),
    "too sure": (lambda rng, n: np.full(n, 0.99), lambda p: 0.8 + 0.0 * p),
    "too sure, in many bins": (lambda rng, n: rng.uniform(0.3, 1.0, n), lambda p: 0.8 * p),
    "one bin": (lambda rng, n: np.full(n, 0.55), lambda p: p),
}


@pytest.mark.parametrize("n", [50, 200, 2000])
@pytest.mark.parametrize("name", CASES)
def test_labels_move_the_error_no_further_than_its_noise(name, n):
    """In at least 95 of 100 draws of the labels; 600 draws, and a chance of 1e-4 to fail in vain at 95."""
    rng = np.random.default_rng(7)
    draw, truth = CASES[name]
    p = draw(rng, n)
    true = truth(p)
    bin_of = np.maximum(np.ceil(p * 10).astype(int) - 1, 0)
    expected = np.abs(np.bincount(bin_of, true - p)).sum() / n
    kept = 0
    for _ in range(600):
        bins = reliability_bins(p, rng.random(n) < true)
        kept += abs(bins.ece - expected) <= ece_noise(bins)
    assert kept >= 551


def test_noise_of_parts_is_that_of_the_whole_and_cheap():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(77), size=2000)
    labels = rng.integers(77, size=2000)
    parts = ReliabilityAccumulator()
    for block in (slice(0, 700), slice(700, 2000)):
        parts.update(p[block], labels[block])
    bins = parts.result()
    assert bins is not None
    assert ece_noise(bins) == pytest.approx(ece_noise(reliability_bins(p, labels)))
    began = time.perf_counter()
    for _ in range(100):
        ece_noise(bins)
    assert time.perf_counter() - began < 0.5


def test_a_higher_level_is_wider():
    bins = reliability_bins(np.full(50, 0.8), np.arange(50) % 5 > 0)
    found = [ece_noise(bins, level) for level in (0.5, 0.9, 0.99)]
    assert found == sorted(found)
    assert found[0] < found[2]
