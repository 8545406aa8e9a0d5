"""Adjusted p-values and ordered procedures."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.domain.errors import InvalidInput
from finetune.domain.statistics import adjusted_p_values, fallback_sequence, fixed_sequence, rejections

METHODS = ("bonferroni", "sidak", "holm", "hochberg", "benjamini_hochberg", "benjamini_yekutieli")
p_lists = st.lists(st.floats(0, 1) | st.sampled_from([0.0, 1e-300, 0.01, 0.05, 1.0]), min_size=1, max_size=30)


def test_by_hand():
    p = [0.01, 0.04, 0.03, 0.005]
    expected = {
        "bonferroni": [0.04, 0.16, 0.12, 0.02],
        "holm": [0.03, 0.06, 0.06, 0.02],
        "hochberg": [0.03, 0.04, 0.04, 0.02],
        "benjamini_hochberg": [0.02, 0.04, 0.04, 0.02],
        "benjamini_yekutieli": [x * 25 / 12 for x in (0.02, 0.04, 0.04, 0.02)],
        "sidak": [1 - (1 - x) ** 4 for x in p],
    }
    for method in METHODS:
        np.testing.assert_allclose(adjusted_p_values(p, method), expected[method])


@given(p_lists)
@settings(deadline=None)
def test_false_discovery_rates_equal_scipy(p):
    from scipy.stats import false_discovery_control

    for ours, theirs in (("benjamini_hochberg", "bh"), ("benjamini_yekutieli", "by")):
        np.testing.assert_allclose(adjusted_p_values(p, ours), false_discovery_control(p, method=theirs))


def step_down(p, level_of):
    order, rejected = np.argsort(p), np.zeros(len(p), bool)
    for j, i in enumerate(order):
        if p[i] > level_of(j):
            break
        rejected[i] = True
    return rejected


def step_up(p, level_of):
    order, rejected = np.argsort(p), np.zeros(len(p), bool)
    good = [j for j, i in enumerate(order) if p[i] <= level_of(j)]
    rejected[order[: good[-1] + 1 if good else 0]] = True
    return rejected


@given(p_lists, st.floats(0.001, 0.7))
@settings(deadline=None)
def test_adjusted_p_values_make_the_decisions_of_the_procedures(p, delta):
    p, m = np.array(p), len(p)
    procedures = {
        "bonferroni": p <= delta / m,
        "holm": step_down(p, lambda j: delta / (m - j)),
        "hochberg": step_up(p, lambda j: delta / (m - j)),
        "benjamini_hochberg": step_up(p, lambda j: delta * (j + 1) / m),
    }
    for method, expected in procedures.items():
        adjusted = adjusted_p_values(p, method)
        if np.abs(adjusted - delta).min() > 1e-12:
            np.testing.assert_array_equal(rejections(p, delta, method), expected)


@given(p_lists, st.floats(0.001, 0.7))
@settings(deadline=None)
def test_who_rejects_more(p, delta):
    found = {method: rejections(p, delta, method) for method in METHODS}
    for less, more in (
        ("bonferroni", "holm"),
        ("holm", "hochberg"),
        ("hochberg", "benjamini_hochberg"),
        ("benjamini_yekutieli", "benjamini_hochberg"),
    ):
        close = np.abs(adjusted_p_values(p, more) - delta) < 1e-12
        assert not (found[less] & ~found[more] & ~close).any()
    slack = adjusted_p_values(p, "sidak") - adjusted_p_values(p, "bonferroni")
    assert (slack <= 1e-12).all()


@given(p_lists, st.integers(0, 10**6), st.sampled_from(METHODS))
@settings(deadline=None)
def test_adjustment_moves_with_the_hypotheses_and_keeps_their_order(p, seed, method):
    p = np.array(p)
    order = np.random.default_rng(seed).permutation(len(p))
    adjusted = adjusted_p_values(p, method)
    np.testing.assert_allclose(adjusted_p_values(p[order], method), adjusted[order], rtol=1e-12)
    assert (adjusted >= p * (1 - 1e-12)).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= -1e-15).all()


@given(p_lists, st.data(), st.floats(0.01, 0.7))
@settings(deadline=None)
def test_fixed_sequences_by_walking(p, data, delta):
    starts = data.draw(st.lists(st.integers(0, len(p) - 1), min_size=1, max_size=4, unique=True))
    expected = set()
    for start in starts:
        for j in range(start, len(p)):
            if p[j] > delta / len(starts):
                break
            expected.add(j)
    found = fixed_sequence(p, delta, starts)
    assert set(np.flatnonzero(found.rejected)) == expected
    assert (found.levels[found.rejected] == delta / len(starts)).all()
    weights = np.zeros(len(p))
    weights[starts] = 1 / len(starts)
    passed_on = fallback_sequence(p, weights, delta).rejected
    close = np.abs(np.array(p) - delta / len(starts)) < 1e-12
    assert not (found.rejected & ~passed_on).any() or close.any()


def test_one_start_is_the_fallback_with_all_weight_there():
    p = [0.01, 0.05, 0.2, 0.0]
    one, other = fixed_sequence(p, 0.1), fallback_sequence(p, [1, 0, 0, 0], 0.1)
    assert one.rejected.tolist() == other.rejected.tolist() == [True, True, False, False]
    assert one.levels.tolist() == [0.1, 0.1, 0.1, 0.0]


@pytest.mark.parametrize(
    "call",
    [
        lambda: adjusted_p_values([], "holm"),
        lambda: adjusted_p_values([1.5], "holm"),
        lambda: adjusted_p_values([np.nan], "holm"),
        lambda: adjusted_p_values([0.5], "bh"),
        lambda: rejections([0.5], 5, "holm"),
        lambda: fixed_sequence([0.5], 0.1, [1]),
        lambda: fixed_sequence([0.5, 0.5], 0.1, [0, 0]),
        lambda: fixed_sequence([0.5], 0.1, []),
        lambda: fixed_sequence([0.5], 0.1, [0.5]),
    ],
)
def test_bad_input(call):
    with pytest.raises(InvalidInput):
        call()
