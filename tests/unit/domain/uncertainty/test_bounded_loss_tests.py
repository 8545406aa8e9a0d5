"""Hoeffding-Bentkus and betting: p-values, upper bounds, and how they hang together."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.domain.errors import InvalidInput
from finetune.domain.risk import (
    binomial_p_value,
    error_free_rows_needed,
    hoeffding_bentkus_p_value,
    hoeffding_bentkus_upper_bound,
    wsr_p_value,
    wsr_upper_bound,
)
from finetune.domain.risk.betting import loss_free_rows_needed, wsr_p_values
from finetune.domain.statistics import binomial_upper_bound

counts = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
levels = st.floats(0.001, 0.999)
tails = st.sampled_from([0.5, 0.1, 0.01, 1e-6, 1e-30])
losses = st.lists(st.floats(0, 1), min_size=1, max_size=60)


@pytest.mark.parametrize(
    ("k", "n", "level", "p"),
    [(5, 100, 0.1, 0.1565102043), (70, 1000, 0.1, 0.001561641605), (0, 250, 0.02, 0.006404996889)],
)
def test_published_hoeffding_bentkus(k, n, level, p):
    assert hoeffding_bentkus_p_value([k], [n], level)[0] == pytest.approx(p, rel=1e-9)


def test_the_integer_count_is_not_the_mean_times_n():
    n = 4999
    k = np.arange(n + 1)
    from_means = np.array([math.ceil(n * (i / n)) for i in k.tolist()])
    assert (from_means != k).sum() == 277
    by_count = hoeffding_bentkus_p_value(k, np.full(n + 1, n), 0.3)
    np.testing.assert_array_equal(by_count, hoeffding_bentkus_p_value(k * 1.0, np.full(n + 1, n), 0.3))
    wrong = hoeffding_bentkus_p_value(np.minimum(from_means, n), np.full(n + 1, n), 0.3)
    assert (wrong > by_count).any()


@given(counts, levels)
@settings(deadline=None)
def test_the_exact_test_is_never_greater(count, level):
    k, n = count
    exact, bounded = binomial_p_value([k], [n], level)[0], hoeffding_bentkus_p_value([k], [n], level)[0]
    assert exact <= bounded * (1 + 1e-6) + 1e-300
    assert 0 <= bounded <= 1


@given(counts, levels)
@settings(deadline=None)
def test_p_values_are_monotone_in_losses_rows_and_level(count, level):
    k, n = count
    for test in (binomial_p_value, hoeffding_bentkus_p_value):
        more_losses = test(np.arange(n + 1), np.full(n + 1, n), level)
        assert (np.diff(more_losses) >= -1e-12).all()
        more_rows = test(np.full(50, k), np.arange(n, n + 50), level)
        assert (np.diff(more_rows) <= 1e-12).all()
        greater = [test([k], [n], a)[0] for a in np.linspace(0.01, 0.99, 20)]
        assert (np.diff(greater) <= 1e-12).all()


@given(counts, st.floats(0, 1), tails)
@settings(deadline=None)
def test_the_hoeffding_bentkus_bound_inverts_its_p_value(count, share, tail):
    total, n = count[0] * share, count[1]
    for losses_sum in (count[0], total):
        bound = hoeffding_bentkus_upper_bound(losses_sum, n, tail)
        assert losses_sum / n <= bound <= 1.0
        as_sum = np.array([losses_sum])
        if bound < 1 - 1e-9:
            above = bound + 1e-6 * min(bound, 1 - bound)
            assert hoeffding_bentkus_p_value(as_sum, [n], above)[0] <= tail * (1 + 1e-9)
        if bound * (1 - 1e-6) > 1e-12:
            assert hoeffding_bentkus_p_value(as_sum, [n], bound * (1 - 1e-6))[0] > tail * (1 - 1e-9)
    assert binomial_upper_bound(*count, tail) <= hoeffding_bentkus_upper_bound(*count, tail) * (1 + 1e-9)


def test_nothing_seen_says_nothing():
    assert hoeffding_bentkus_p_value([0], [0], 0.1)[0] == 1.0
    assert hoeffding_bentkus_upper_bound(0, 0, 0.1) == 1.0
    assert hoeffding_bentkus_upper_bound(7, 7, 0.1) == 1.0


@given(losses, levels, tails)
@settings(deadline=None)
def test_betting_equals_its_definition(rows, level, bets_for):
    n, capital, most, seen = len(rows), 1.0, 1.0, []
    variance = 0.25
    for j, loss in enumerate(rows, start=1):
        bet = min(1.0, math.sqrt(2 * math.log(1 / bets_for) / (n * variance)))
        capital *= 1 - bet * (loss - level)
        most = max(most, capital)
        mean = (0.5 + sum(rows[:j])) / (j + 1)
        seen.append((loss - mean) ** 2)
        variance = (0.25 + sum(seen)) / (j + 1)
    assert wsr_p_value(rows, level, bets_for) == pytest.approx(1 / most, rel=1e-9)


@given(losses, tails)
@settings(deadline=None)
def test_the_betting_bound_inverts_its_p_value(rows, tail):
    bound = wsr_upper_bound(rows, tail)
    assert 0 < bound <= 1
    if bound < 1 - 1e-6:
        assert wsr_p_value(rows, bound * (1 + 1e-9), tail) <= tail * (1 + 1e-6)
    if bound > 1e-9:
        assert wsr_p_value(rows, bound * (1 - 1e-6), tail) >= tail
    grid = [wsr_p_value(rows, level, tail) for level in np.linspace(0.01, 0.99, 15)]
    assert (np.diff(grid) <= 1e-12).all()


@given(losses, st.floats(0.01, 0.99))
@settings(deadline=None)
def test_greater_last_loss_never_helps(rows, level):
    # Only the last: an earlier loss also changes the bets after it.
    assert wsr_p_value([*rows, 1.0], level) >= wsr_p_value([*rows, 0.0], level) - 1e-12


def test_columns_of_a_matrix_are_tested_one_by_one():
    matrix = np.random.default_rng(0).beta(1, 9, size=(2000, 700))  # more than one block of columns
    together = wsr_p_values(matrix, 0.11, 0.1)
    for column in (0, 523, 524, 699):
        assert together[column] == wsr_p_value(matrix[:, column], 0.11, 0.1)


def test_the_order_of_rows_matters_to_betting_alone():
    rows = np.random.default_rng(1).beta(1, 9, size=500)
    shuffled = np.random.default_rng(2).permutation(rows)
    assert wsr_p_value(rows, 0.12) != wsr_p_value(shuffled, 0.12)
    ours, theirs = (hoeffding_bentkus_p_value([math.fsum(r)], [500], 0.12)[0] for r in (rows, shuffled))
    assert ours == theirs


def test_betting_is_better_where_losses_vary_little():
    rows = np.random.default_rng(3).beta(20, 380, size=1000)
    assert (
        wsr_upper_bound(rows, 0.1)
        < 0.054
        < 0.06
        < hoeffding_bentkus_upper_bound(float(rows.sum()), 1000, 0.1)
    )


@pytest.mark.parametrize(
    ("level", "delta"), [(0.1, 0.1), (0.05, 0.001), (0.5, 0.4), (0.99, 0.9), (0.01, 0.02)]
)
def test_loss_free_rows_do_and_one_fewer_does_not(level, delta):
    n = loss_free_rows_needed(level, delta)
    assert wsr_p_value(np.zeros(n), level, delta) <= delta
    assert n == 1 or wsr_p_value(np.zeros(n - 1), level, delta) > delta
    assert n >= error_free_rows_needed(level, delta)


def test_a_level_below_the_rounding_of_one_raises_nothing():
    assert wsr_p_value([0.0, 1.0], 1e-17, 0.5) == 1.0
    assert 0 < wsr_upper_bound([0.0, 1.0], 1 - 1e-16, 0.5) <= 1


def test_a_million_losses_do_not_underflow():
    assert wsr_p_value(np.zeros(100_000), 0.5) == 0.0
    assert wsr_upper_bound(np.zeros(100_000), 1e-300) == pytest.approx(-math.log(1e-300) / 1e5, rel=0.05)


@pytest.mark.parametrize(
    "call",
    [
        lambda: hoeffding_bentkus_p_value([3.0], [2], 0.1),
        lambda: hoeffding_bentkus_p_value([-1], [2], 0.1),
        lambda: hoeffding_bentkus_p_value([np.nan], [2], 0.1),
        lambda: hoeffding_bentkus_p_value([1.0, 1.0], [2], 0.1),
        lambda: hoeffding_bentkus_p_value([1], [2.0], 0.1),
        lambda: hoeffding_bentkus_p_value([1], [2], 1.0),
        lambda: hoeffding_bentkus_p_value([True], [2], 0.1),
        lambda: hoeffding_bentkus_upper_bound(3, 2, 0.1),
        lambda: hoeffding_bentkus_upper_bound("1", 2, 0.1),
        lambda: hoeffding_bentkus_upper_bound(1, 2, 10),
        lambda: wsr_p_value([0.5, 1.1], 0.1),
        lambda: wsr_p_value([[0.5]], 0.1),
        lambda: wsr_p_value([], 0.1),
        lambda: wsr_p_value([0.5], 0.1, 1.0),
        lambda: wsr_upper_bound([np.nan], 0.1),
        lambda: wsr_upper_bound([0.5], 0.1, 0.0),
        lambda: loss_free_rows_needed(0.1, 0.0),
    ],
)
def test_bad_input(call):
    with pytest.raises(InvalidInput):
        call()
