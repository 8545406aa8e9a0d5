"""Areas under the risk-coverage curve, operating points and bootstrap intervals."""

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.domain.errors import InvalidInput
from finetune.domain.risk import OperatingPoint, curve_area_intervals, risk_coverage_curve
from finetune.domain.statistics import bootstrap_interval

rows = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40)


def auroc(confidence, errors):
    """Probability that a right row is surer than a wrong one, ties half."""
    right, wrong = confidence[~errors], confidence[errors]
    above = (right[:, None] > wrong).mean() + (right[:, None] == wrong).mean() / 2
    return float(above)


@given(rows)
@settings(deadline=None)
def test_augrc_is_what_its_paper_says(pairs):
    confidence, errors = np.array([c for c, _ in pairs], float), np.array([e for _, e in pairs])
    r = errors.mean()
    ranking_part = 0.0 if r in (0, 1) else r * (1 - r) * (1 - auroc(confidence, errors))
    assert risk_coverage_curve(confidence, errors).augrc == pytest.approx(ranking_part + r * r / 2, abs=1e-12)


@given(rows, st.integers(0, 10**6))
@settings(deadline=None)
def test_areas_by_their_definitions_in_any_order_of_rows(pairs, seed):
    order = np.random.default_rng(seed).permutation(len(pairs))
    confidence, errors = np.array([c for c, _ in pairs])[order], np.array([e for _, e in pairs])[order]
    curve = risk_coverage_curve(confidence, errors)
    own_risk = [errors[confidence >= c].mean() for c in confidence]
    assert curve.aurc == pytest.approx(np.mean(own_risk), abs=1e-12)
    r = errors.mean()
    ideal = r + ((1 - r) * math.log(1 - r) if r < 1 else 0.0)
    assert curve.e_aurc == pytest.approx(np.mean(own_risk) - ideal, abs=1e-12)


@given(st.lists(st.booleans(), min_size=1, max_size=6))
@settings(deadline=None, max_examples=30)
def test_excess_is_over_the_best_ranking_there_is(errors):
    def aurc(wrong):
        return np.mean(np.cumsum(wrong) / np.arange(1, len(wrong) + 1))

    best = min(aurc(ranking) for ranking in set(permutations(errors)))
    curve = risk_coverage_curve(-np.arange(len(errors)), errors)
    assert curve.excess_aurc == pytest.approx(aurc(errors) - best, abs=1e-12)
    ideal = risk_coverage_curve(-np.arange(len(errors)), np.sort(errors))
    assert ideal.excess_aurc == pytest.approx(0.0, abs=1e-12)
    assert ideal.e_aurc >= -1e-12


def test_a_large_ideal_ranking_has_no_excess_by_either_measure():
    curve = risk_coverage_curve(-np.arange(100_000), np.arange(100_000) >= 80_000)
    assert curve.excess_aurc == pytest.approx(0.0, abs=1e-12)
    assert 0 < curve.e_aurc < 1e-5


@given(rows, rows, rows)
@settings(deadline=None)
def test_curves_of_parts_merge_to_the_curve_of_all_in_any_order(first, second, third):
    parts = (first, second, third)
    one, two, three = (risk_coverage_curve([c for c, _ in part], [e for _, e in part]) for part in parts)
    whole = [pair for part in parts for pair in part]
    expected = risk_coverage_curve([c for c, _ in whole], [e for _, e in whole])
    for merged in (one.merge(two).merge(three), three.merge(one.merge(two))):
        for name in ("answered", "wrong", "threshold"):
            np.testing.assert_array_equal(getattr(merged, name), getattr(expected, name))


def test_no_errors_and_nothing_but_errors():
    for wrong in (0, 1):
        curve = risk_coverage_curve([3.0, 2.0, 2.0], [wrong] * 3)
        assert (curve.aurc, curve.augrc) == (wrong, wrong / 2)
        assert curve.e_aurc == curve.excess_aurc == 0.0


def test_operating_points_by_hand():
    curve = risk_coverage_curve([0.9, 0.8, 0.8, 0.6], [0, 0, 1, 1])
    assert curve.within([0.0, 0.4, 0.5]) == (
        OperatingPoint(0.25, 0.0, 0.9),
        OperatingPoint(0.75, pytest.approx(1 / 3), 0.8),
        OperatingPoint(1.0, 0.5, 0.6),
    )
    assert risk_coverage_curve([1.0], [1]).within([0.5]) == (None,)
    with pytest.raises(InvalidInput):
        curve.within([1.5])


@given(rows, st.floats(0, 1))
@settings(deadline=None)
def test_the_point_within_a_risk_covers_most(pairs, limit):
    curve = risk_coverage_curve([c for c, _ in pairs], [e for _, e in pairs])
    (point,) = curve.within([limit])
    good = curve.coverage[curve.risk <= limit]
    assert (point is None) == (len(good) == 0)
    if point is not None:
        assert point.coverage == good.max()
        assert point.risk <= limit


@pytest.mark.parametrize("ties", [False, True])
def test_intervals_are_those_of_resampled_rows(ties):
    rng = np.random.default_rng(0)
    confidence = rng.integers(5, size=200) / 5 if ties else rng.random(200)
    errors = rng.random(200) > confidence
    found = curve_area_intervals(confidence, errors, np.random.default_rng(1), 50, 0.9)
    for name in ("aurc", "e_aurc", "augrc"):
        plain = bootstrap_interval(
            lambda drawn, name=name: getattr(risk_coverage_curve(confidence[drawn], errors[drawn]), name),
            200,
            np.random.default_rng(1),
            50,
            0.9,
        )
        assert getattr(found, name) == pytest.approx(plain)


def test_a_curve_merges_with_a_curve_alone():
    with pytest.raises(InvalidInput, match="merge two curves"):
        risk_coverage_curve([0.5], [1]).merge(3)


def test_intervals_check_their_input():
    with pytest.raises(InvalidInput):
        curve_area_intervals([0.5], [2], np.random.default_rng(0))
    with pytest.raises(InvalidInput):
        curve_area_intervals([0.5], [1], np.random.default_rng(0), level=95)
    with pytest.raises(InvalidInput):
        curve_area_intervals([0.5], [1], 0)
