"""Differences of proportions, permutation tests, resampling of tables and clusters, numbers of rows."""

import math
from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.domain.conformal import CoverageLaw, conformal_rank
from finetune.domain.errors import InsufficientData, InvalidInput
from finetune.domain.statistics import (
    bootstrap_interval,
    bootstrap_mean_interval,
    calibration_rows_needed,
    cluster_bootstrap_interval,
    largest_difference,
    multinomial_interval,
    newcombe_interval,
    newcombe_paired_interval,
    paired_permutation_test,
    permutation_test,
)

counts = st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
values = st.lists(st.integers(-3, 3), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("first", "other", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775),
        ((0, 10), (0, 10), -0.2775, 0.2775),
        ((10, 10), (0, 20), 0.6791, 1.0),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_newcombes_published_examples(first, other, low, high):
    assert newcombe_interval(*first, *other)[:2] == pytest.approx((low, high), abs=6e-5)


@given(counts, counts, st.sampled_from([0.5, 0.9, 0.99]))
@settings(deadline=None)
def test_differences_turn_round_and_hold_the_estimate(first, other, level):
    low, high, _ = newcombe_interval(*first, *other, level)
    assert -1 <= low <= first[0] / first[1] - other[0] / other[1] <= high <= 1
    assert newcombe_interval(*other, *first, level)[:2] == pytest.approx((-high, -low), abs=1e-12)
    wider = newcombe_interval(*first, *other, 0.999)
    assert wider.low <= low
    assert high <= wider.high


@given(st.lists(st.integers(0, 40), min_size=4, max_size=4), st.sampled_from([0.5, 0.9, 0.99]))
@settings(deadline=None)
def test_paired_differences_turn_round_and_hold_the_estimate(cells, level):
    a, b, c, d = cells
    found = newcombe_paired_interval(a, b, c, d, level)
    if sum(cells) == 0:
        assert found is None
        return
    assert -1 <= found.low <= (b - c) / sum(cells) <= found.high <= 1
    assert newcombe_paired_interval(a, c, b, d, level)[:2] == pytest.approx((-found.high, -found.low))


def test_pairing_narrows_the_interval_where_models_agree():
    paired, apart = newcombe_paired_interval(800, 40, 20, 140), newcombe_interval(840, 1000, 820, 1000)
    assert paired.high - paired.low < 0.6 * (apart.high - apart.low)
    assert paired.low > 0 > apart.low


def test_paired_coverage_is_about_the_level():
    rng = np.random.default_rng(0)
    cells = rng.multinomial(60, [0.45, 0.25, 0.05, 0.25], size=2000)
    covered = [
        low <= 0.2 <= high for low, high, _ in (newcombe_paired_interval(*row) for row in cells.tolist())
    ]
    assert 0.93 < np.mean(covered) < 0.98


@given(values, values, st.sampled_from(["two-sided", "greater", "less"]))
@settings(deadline=None)
def test_small_samples_are_counted_out(first, other, alternative):
    pooled, n = np.array([*first, *other], float), len(first)
    seen = np.mean(first) - np.mean(other)
    differences = [
        pooled[list(chosen)].mean() - np.delete(pooled, list(chosen)).mean()
        for chosen in combinations(range(len(pooled)), n)
    ]
    as_extreme = {
        "two-sided": np.abs(differences) >= abs(seen) - 1e-9,
        "greater": np.array(differences) >= seen - 1e-9,
        "less": np.array(differences) <= seen + 1e-9,
    }[alternative]
    found = permutation_test(first, other, np.random.default_rng(0), alternative=alternative)
    assert found == (pytest.approx(seen), pytest.approx(as_extreme.mean()), True)


@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2)), min_size=1, max_size=7))
@settings(deadline=None)
def test_small_pairs_are_counted_out(pairs):
    first, other = np.array(pairs, float).T
    seen = (first - other).sum()
    sums = [np.dot(signs, first - other) for signs in product([-1, 1], repeat=len(pairs))]
    for alternative, as_extreme in (
        ("two-sided", np.abs(sums) >= abs(seen) - 1e-9),
        ("greater", np.array(sums) >= seen - 1e-9),
        ("less", np.array(sums) <= seen + 1e-9),
    ):
        found = paired_permutation_test(first, other, np.random.default_rng(0), alternative=alternative)
        assert found == (pytest.approx((first - other).mean()), pytest.approx(as_extreme.mean()), True)


@pytest.mark.parametrize("test", [permutation_test, paired_permutation_test])
def test_drawn_permutations_come_close_to_all_of_them_and_are_never_zero(test):
    rng = np.random.default_rng(0)
    first, other = rng.normal(0.6, 1, 8), rng.normal(0, 1, 8)
    exact = test(first, other, rng, 20_000)
    drawn = test(first, other, rng, 200)
    assert (exact.exact, drawn.exact) == (True, False)
    assert abs(exact.p_value - drawn.p_value) < 0.13  # 3.7 standard errors at most
    far = test(np.arange(40.0) + 1000, np.arange(40.0), rng, 999)
    assert far.p_value == 1 / 1000


def test_large_samples_do_not_compute_the_number_of_their_divisions(monkeypatch):
    # math.comb(2_000_000, 1_000_000) takes more than half a minute.
    monkeypatch.setattr(math, "comb", lambda n, k: pytest.fail(f"comb({n}, {k})"))
    found = permutation_test(np.zeros(64), np.zeros(64), np.random.default_rng(0), 9)
    assert found == (0.0, 1.0, False)


def test_one_row_against_many_is_counted_out():
    found = permutation_test([5.0], np.arange(1000) % 5, np.random.default_rng(0))
    assert found.exact
    assert found.p_value == pytest.approx(1 / 1001)


def test_rounding_does_not_break_ties():
    first, other = [0.1, 0.2, 0.3], [0.3, 0.2, 0.1]
    assert permutation_test(first, other, np.random.default_rng(0)).p_value == 1.0
    assert paired_permutation_test(first, other, np.random.default_rng(0)).p_value == 1.0
    assert paired_permutation_test(first, first, np.random.default_rng(0), 1) == (0.0, 1.0, True)


@pytest.mark.parametrize("seed", range(3))
def test_false_alarms_of_drawn_permutations(seed):
    rng = np.random.default_rng(seed)
    for test in (permutation_test, paired_permutation_test):
        alarms = sum(test(*rng.exponential(size=(2, 12)), rng, 99).p_value <= 0.1 for _ in range(400))
        assert alarms <= 66  # probability 1e-4 at a rate of .1


def accuracy(table):
    return np.trace(table) / table.sum()


def test_a_table_and_its_rows_give_the_same_interval():
    table = np.array([[40, 10], [5, 45]])
    by_table = multinomial_interval(accuracy, table, np.random.default_rng(0), 4000)
    hits = np.repeat([1, 0], [85, 15])
    by_rows = bootstrap_interval(lambda rows: hits[rows].mean(), 100, np.random.default_rng(1), 4000)
    assert by_table[:2] == pytest.approx(by_rows[:2], abs=0.011)


def test_tables_keep_their_total_and_never_see_the_unseen():
    tables = []
    multinomial_interval(
        lambda t: tables.append(t) or 0.0, [[3, 0, 4], [1, 0, 2]], np.random.default_rng(0), 50
    )
    assert all(t.shape == (2, 3) and t.sum() == 10 and t[:, 1].sum() == 0 for t in tables)


def test_clusters_are_drawn_whole():
    clusters, drawn = np.array([2, 0, 2, 7, 0, 2]), []
    cluster_bootstrap_interval(lambda rows: drawn.append(rows) or 0.0, clusters, np.random.default_rng(0), 30)
    for rows in drawn:
        seen = np.bincount(rows, minlength=6)
        assert seen[1] == seen[4]
        assert seen[0] == seen[2] == seen[5]
        assert seen[0] + seen[1] + seen[3] == 3


def test_dependent_rows_have_a_wider_interval():
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(50), 20)
    hits = (rng.random(1000) < rng.beta(0.5, 0.5, size=50)[people]).astype(float)
    whole = cluster_bootstrap_interval(lambda rows: hits[rows].mean(), people, rng, 500)
    apart = bootstrap_interval(lambda rows: hits[rows].mean(), 1000, rng, 500)
    assert whole.high - whole.low > 2.5 * (apart.high - apart.low)


def test_what_is_not_estimable_on_a_draw():
    with pytest.raises(InsufficientData, match="not estimable"):
        multinomial_interval(lambda table: None, [1, 2], np.random.default_rng(0))
    with pytest.raises(InsufficientData, match="empty"):
        multinomial_interval(accuracy, [[0, 0], [0, 0]], np.random.default_rng(0))
    with pytest.raises(InsufficientData, match="one cluster"):
        cluster_bootstrap_interval(np.mean, [3, 3], np.random.default_rng(0))


def inside(n, alpha, epsilon, probability):
    low, high, _ = CoverageLaw(n, conformal_rank(n, alpha)).interval(probability)
    exact = Fraction(str(alpha))
    return low >= float(1 - exact - Fraction(str(epsilon))) and high <= float(
        1 - exact + Fraction(str(epsilon))
    )


@pytest.mark.parametrize(
    ("epsilon", "published", "safe"),
    [(0.1, 22, 30), (0.05, 102, 110), (0.01, 2491, 2520), (0.005, 9812, 9910), (0.001, 244390, 244400)],
)
def test_published_rows_are_crossings_below_the_safe_number(epsilon, published, safe):
    assert calibration_rows_needed(0.1, epsilon) == safe
    assert calibration_rows_needed(0.1, epsilon, definition="published") == published
    assert inside(published, 0.1, epsilon, 0.9)
    assert not inside(published - 1, 0.1, epsilon, 0.9)
    assert not inside(safe - 1, 0.1, epsilon, 0.9)
    assert all(inside(n, 0.1, epsilon, 0.9) for n in (*range(safe, safe + 40), 2 * safe, 10 * safe))


@pytest.mark.parametrize(
    ("alpha", "epsilon"), [(0.05, 0.05), (0.05, 0.01), (0.05, 0.001), (0.2, 0.05), (0.3, 0.02)]
)
def test_published_rows_are_those_of_the_published_search(alpha, epsilon):
    from scipy.optimize import brentq
    from scipy.stats import beta

    def condition(n):
        limit = np.floor((n + 1) * alpha)
        low, high = beta.ppf([0.05, 0.95], n + 1 - limit, limit)
        return -1 if low < 1 - alpha - epsilon or high > 1 - alpha + epsilon else 1

    found = math.ceil(brentq(condition, math.ceil(1 / alpha), 1e11))
    assert calibration_rows_needed(alpha, epsilon, definition="published") == found
    assert inside(found, alpha, epsilon, 0.9)


def test_published_rows_where_the_first_number_does():
    assert calibration_rows_needed(0.05, 0.1, definition="published") == 20


@given(st.integers(3, 95), st.integers(5, 40), st.sampled_from([0.5, 0.9, 0.99]))
@settings(max_examples=25, deadline=None)
def test_rows_needed_by_trying_them_all(alpha, epsilon, probability):
    alpha, epsilon = alpha / 100, epsilon / 100
    found = calibration_rows_needed(alpha, epsilon, probability)
    assert found == 1 or not inside(found - 1, alpha, epsilon, probability)
    assert all(inside(n, alpha, epsilon, probability) for n in range(found, found + 150))


@pytest.mark.parametrize(
    "call",
    [
        lambda rng: newcombe_interval(2, 1, 0, 1),
        lambda rng: newcombe_interval(0, 1, 0, 1, 95),
        lambda rng: newcombe_paired_interval(1, -1, 0, 1),
        lambda rng: newcombe_paired_interval(1, 0.5, 0, 1),
        lambda rng: newcombe_paired_interval(1, 0, 0, 1, 1.0),
        lambda rng: largest_difference([2], [1]),
        lambda rng: largest_difference([1, 1], [1]),
        lambda rng: largest_difference([1.0], [1]),
        lambda rng: largest_difference([1], [1], 95),
        lambda rng: permutation_test([], [1.0], rng),
        lambda rng: permutation_test([np.inf], [1.0], rng),
        lambda rng: permutation_test([1.0], [1.0], 0),
        lambda rng: permutation_test([1.0], [1.0], rng, 0),
        lambda rng: permutation_test([1.0], [1.0], rng, alternative="more"),
        lambda rng: paired_permutation_test([1.0], [1.0, 2.0], rng),
        lambda rng: paired_permutation_test([np.nan], [1.0], rng),
        lambda rng: multinomial_interval(accuracy, [0.5, 0.5], rng),
        lambda rng: multinomial_interval(accuracy, [-1, 2], rng),
        lambda rng: multinomial_interval(accuracy, [1, 2], None),
        lambda rng: cluster_bootstrap_interval(np.mean, ["a", "b"], rng),
        lambda rng: calibration_rows_needed(0, 0.1),
        lambda rng: calibration_rows_needed(0.1, 1.0),
        lambda rng: calibration_rows_needed(0.1, 0.1, 90),
        lambda rng: calibration_rows_needed(0.1, 0.1, definition="exact"),
        lambda rng: bootstrap_mean_interval([1.7e308, 1.7e308], rng),
    ],
)
def test_bad_input(call):
    with pytest.raises(InvalidInput):
        call(np.random.default_rng(0))
