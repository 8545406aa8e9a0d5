"""Exact binomial p-values and the fallback procedure."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from finetune.domain.errors import InvalidInput
from finetune.domain.risk import binomial_p_value, error_free_rows_needed, fallback_sequence
from finetune.domain.statistics import clopper_pearson_upper

counts = st.integers(0, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize(
    ("k", "n", "level", "p"),
    [(5, 100, 0.1, 0.05757688649), (70, 1000, 0.1, 0.0005744958), (0, 250, 0.02, 0.006404996889)],
)
def test_published_p_values(k, n, level, p):
    assert binomial_p_value([k], [n], level)[0] == pytest.approx(p, rel=1e-7)


@given(counts, st.floats(0.001, 0.999))
@example((26, 504), 0.78125)
@settings(deadline=None)
def test_p_value_is_that_of_exact_arithmetic(count, level):
    # Not that of scipy.stats.binom.cdf, which is wrong in the fifth digit at 26 of 504 and 0.78125.
    (errors, trials), (share, whole) = count, level.as_integer_ratio()
    term = total = (whole - share) ** trials
    for i in range(errors):
        term = term * ((trials - i) * share) // ((i + 1) * (whole - share))
        total += term
    found = binomial_p_value([errors], [trials], level)[0]
    assert found == pytest.approx(float(Fraction(total, whole**trials)), rel=1e-7, abs=1e-280)


@given(counts, st.sampled_from([0.01, 0.1, 0.3]), st.sampled_from([0.001, 0.05, 0.2]))
@settings(deadline=None)
def test_p_value_and_upper_bound_agree(count, level, delta):
    p = binomial_p_value([count[0]], [count[1]], level)[0]
    if abs(p - delta) > 1e-9:
        assert (p <= delta) == (clopper_pearson_upper(*count, 1 - delta) <= level)


@given(st.floats(0.001, 0.5), st.floats(0.001, 0.5))
@settings(deadline=None)
def test_rows_needed_is_the_least_that_does(level, delta):
    n = error_free_rows_needed(level, delta)
    assert binomial_p_value([0], [n], level)[0] <= delta
    assert n == 1 or binomial_p_value([0], [n - 1], level)[0] > delta


@pytest.mark.parametrize(("k", "n"), [([3], [2]), ([-1], [2]), ([0.0], [2]), ([1, 1], [2])])
def test_bad_p_value_counts(k, n):
    with pytest.raises(InvalidInput):
        binomial_p_value(k, n, 0.1)


def test_fixed_sequence_stops_at_the_first_failure():
    assert fallback_sequence([0.01, 0.05, 0.2, 0.0], [1, 0, 0, 0], 0.1).rejected.tolist() == [1, 1, 0, 0]


def test_levels_are_handed_on_and_lost():
    rejected, levels = fallback_sequence([0.02, 0.09, 0.03, 0.0], [0.25, 0.25, 0.25, 0.25], 0.1)
    assert rejected.tolist() == [True, False, False, True]
    np.testing.assert_allclose(levels, [0.025, 0.05, 0.025, 0.025])


@pytest.mark.parametrize("weights", [[0.6, 0.6], [1.0], [-0.1, 1.0], [np.nan, 0.0]])
def test_bad_weights(weights):
    with pytest.raises(InvalidInput):
        fallback_sequence([0.1, 0.1], weights, 0.1)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.integers(0, 10**6), st.floats(0.01, 0.5))
@settings(deadline=None)
def test_smaller_p_values_never_reject_less(p_values, seed, delta):
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(len(p_values)))
    weights = weights / max(weights.sum(), 1.0)
    smaller = np.array(p_values) * rng.random(len(p_values))
    before = fallback_sequence(p_values, weights, delta).rejected
    assert not (before & ~fallback_sequence(smaller, weights, delta).rejected).any()


@given(st.integers(0, 10**6), st.integers(1, 8))
@settings(max_examples=20, deadline=None)
def test_family_wise_error_of_worst_case_dependence(seed, m):
    # Disjoint rejection events: the union bound is attained, so this is where delta is really spent.
    rng = np.random.default_rng(seed)
    weights, delta, draws = rng.dirichlet(np.ones(m)) * 0.999999, 0.2, 2000
    starts = np.concatenate([[0.0], np.cumsum(weights)[:-1]]) * delta
    false_rejections = 0
    for place in (np.arange(draws) + rng.random()) / draws:
        p = (place - starts) % 1.0  # each uniform; at most one of them is below its own level
        false_rejections += fallback_sequence(p, weights, delta).rejected.any()
    assert false_rejections / draws <= delta + m / draws
