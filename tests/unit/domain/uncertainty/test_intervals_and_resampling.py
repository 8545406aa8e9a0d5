"""Intervals of proportions and bootstrap intervals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.domain.errors import InsufficientData, InvalidInput
from finetune.domain.statistics import (
    binomial_upper_bound,
    bootstrap_interval,
    bootstrap_mean_interval,
    clopper_pearson_interval,
    clopper_pearson_upper,
    wilson_interval,
)

counts = st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts, st.sampled_from([0.5, 0.9, 0.95, 0.999]))
@settings(deadline=None)
def test_intervals_equal_scipy(count, level):
    from scipy.stats import binomtest

    result = binomtest(*count)
    for ours, method in ((clopper_pearson_interval, "exact"), (wilson_interval, "wilson")):
        low, high, _ = ours(*count, level)
        theirs = result.proportion_ci(level, method=method)
        assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-10)
        assert 0.0 <= low <= count[0] / count[1] <= high <= 1.0


def test_nothing_seen_is_not_estimable():
    assert wilson_interval(0, 0) is None
    assert clopper_pearson_interval(0, 0) is None
    assert clopper_pearson_upper(0, 0) == 1.0


@given(counts, st.sampled_from([0.05, 1e-5, 1e-17, 1e-100]))
@settings(deadline=None)
def test_the_upper_bound_is_exact_in_the_far_tail(count, tail):
    from scipy.special import bdtr

    k, n = count
    bound = binomial_upper_bound(k, n, tail)
    assert k / n < bound <= 1.0 or k == n
    if k < n and bound < 1 - 1e-9:
        assert bdtr(k, n, bound) == pytest.approx(tail, rel=1e-6)
    assert clopper_pearson_upper(k, n, 0.95) == pytest.approx(binomial_upper_bound(k, n, 0.05))


@pytest.mark.parametrize("function", [wilson_interval, clopper_pearson_interval, clopper_pearson_upper])
@pytest.mark.parametrize("bad", [(2, 1), (-1, 3), (0.5, 3), (1, 3, 95)])
def test_bad_counts(function, bad):
    with pytest.raises(InvalidInput):
        function(*bad)


def test_bootstrap_of_a_mean_is_the_same_by_both_ways():
    values = np.random.default_rng(0).normal(size=40)
    slow = bootstrap_interval(lambda rows: values[rows].mean(), 40, np.random.default_rng(7), 300, 0.9)
    assert bootstrap_mean_interval(values, np.random.default_rng(7), 300, 0.9) == pytest.approx(slow)


def test_bootstrap_finds_the_standard_error():
    values = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    low, high, _ = bootstrap_mean_interval(values, np.random.default_rng(2), 4000, 0.95)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_a_statistic_that_a_resample_does_not_have_is_an_error():
    with pytest.raises(InsufficientData):
        bootstrap_interval(lambda rows: float("nan"), 3, np.random.default_rng(0))
