"""Expected-cost control, and selective risk of each group."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.domain.errors import InfeasibleGuarantee, InvalidInput
from finetune.domain.risk import (
    Abstained,
    CostThreshold,
    GroupThresholds,
    answers,
    binomial_p_value,
    confidence_logit,
    control_cost,
    cost_controlled_actions,
    cost_matrix,
    cost_scored_actions,
    cost_threshold,
    group_risks,
    group_thresholds,
    hoeffding_bentkus_p_value,
    selective_rows_needed,
    selective_threshold,
    wsr_p_value,
)
from finetune.domain.risk.candidates import start_weights, threshold_grid
from finetune.domain.statistics import binomial_upper_bound

COSTS = cost_matrix(("a", "b", "c"), pairs={"a": {"b": 20.0}, "c": {"a": 5.0}})
BOUNDS = ("hoeffding_bentkus", "wsr")


def rows_and_labels(seed, n=2000):
    rng = np.random.default_rng(seed)
    rows = np.maximum(rng.dirichlet(np.full(3, 0.2), size=n), 1e-12)
    rows /= rows.sum(axis=1, keepdims=True)
    labels = np.minimum((rows.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1), 2)
    return np.log(rows), labels


@pytest.mark.parametrize("bound", BOUNDS)
def test_the_cost_threshold_carries_its_evidence(bound):
    rows, labels = rows_and_labels(0)
    found = control_cost(rows, labels, COSTS, 0.4, 0.1, bound=bound)
    actions = cost_controlled_actions(rows, found.threshold, COSTS)
    answered = actions >= 0
    losses = COSTS[labels, actions][answered]
    assert found.n_answered == answered.sum()
    assert found.mean_cost == pytest.approx(losses.mean())
    assert found.mean_cost <= found.upper_bound <= 0.4 + 1e-9
    assert found.max_cost == 20.0
    assert found.threshold in threshold_grid()
    p = {
        "hoeffding_bentkus": lambda: hoeffding_bentkus_p_value([losses.sum() / 20], [len(losses)], 0.4 / 20)[
            0
        ],
        "wsr": lambda: wsr_p_value(losses / 20, 0.4 / 20, start_weights(0.4 / 20).max() * 0.1),
    }[bound]()
    assert p <= found.level_used <= 0.1 + 1e-15


def test_costs_of_one_size_are_selective_risk():
    rows, labels = rows_and_labels(1)
    ones = cost_matrix(("a", "b", "c"))
    actions, scores = cost_scored_actions(rows, ones)
    np.testing.assert_allclose(scores, confidence_logit(rows, actions), rtol=1e-6, atol=1e-9)
    one = cost_threshold(scores, 4.0 * (actions != labels), 0.4, 0.1, max_cost=4.0, bound="binomial")
    other = selective_threshold(scores, actions != labels, 0.1, 0.1)
    assert (one.threshold, one.n_answered, one.level_used) == (
        other.threshold,
        other.n_answered,
        other.level_used,
    )
    assert one.upper_bound == pytest.approx(4 * other.upper_bound)


def test_the_unit_of_costs_does_not_matter():
    rows, labels = rows_and_labels(2)
    one, other = control_cost(rows, labels, COSTS, 0.4, 0.1), control_cost(rows, labels, 8 * COSTS, 3.2, 0.1)
    assert (one.threshold, one.n_answered) == (other.threshold, other.n_answered)
    assert other.mean_cost == pytest.approx(8 * one.mean_cost)


@pytest.mark.parametrize("bound", BOUNDS)
def test_abstention_as_a_column_and_as_an_outcome(bound):
    rows, labels = rows_and_labels(3)
    column = np.column_stack([COSTS, [0.3] * 3])
    found = control_cost(rows, labels, column, 0.4, 0.1, bound=bound)
    eligible = cost_scored_actions(rows, column).actions >= 0
    assert 0 < found.n_answered <= eligible.sum() < len(rows)
    inside = control_cost(rows, labels, COSTS, 0.4, 0.1, abstain_index=1, bound=bound)
    assert inside.max_cost == 5.0
    assert set(cost_controlled_actions(rows, inside.threshold, COSTS, abstain_index=1)) == {-1, 0, 2}


@pytest.mark.parametrize("abstention", [0, 1, 2])
def test_the_abstention_may_be_any_label_and_cost_more_than_any_answer(abstention):
    rows, labels = rows_and_labels(7)
    costs = 1.0 - np.eye(3)
    costs[costs[:, abstention] > 0, abstention] = 10.0
    found = control_cost(rows, labels, costs, 0.3, 0.1, abstain_index=abstention)
    assert found.max_cost == 1.0
    actions = cost_controlled_actions(rows, found.threshold, costs, abstain_index=abstention)
    assert found.n_answered == (actions >= 0).sum() > 0
    assert found.mean_cost == pytest.approx(costs[labels, actions][actions >= 0].mean())


def test_the_mean_cost_is_the_one_seen_where_betting_decides_on_the_first_rows():
    spent = np.repeat([0.0, 1.0], 300)
    found = cost_threshold(np.full(600, 2.0), spent, 0.1, 0.1, max_cost=1.0, bound="wsr")
    assert found.mean_cost == 0.5
    assert "at 0.5 each" in found.statement
    assert "the order of the calibration cases does not depend" in found.statement
    assert CostThreshold.from_dict(found.to_dict()) == found


def test_certain_rows_and_hopeless_rows_have_infinite_scores():
    costs = [[0.0, 2.0], [2.0, 0.0]]
    with np.errstate(divide="ignore"):
        scores = cost_scored_actions(np.log([[1.0, 0.0], [0.5, 0.5]]), costs).scores
    assert scores.tolist() == [np.inf, 0.0]
    always = [[2.0, 2.0], [2.0, 2.0]]
    assert cost_scored_actions(np.log([[0.5, 0.5]]), always).scores.tolist() == [-np.inf]


@pytest.mark.parametrize("bound", BOUNDS)
def test_needed_free_rows_do_and_one_fewer_does_not(bound):
    def search(n):
        return cost_threshold(np.zeros(n), np.zeros(n), 1.0, 0.1, max_cost=20.0, bound=bound)

    with pytest.raises(InfeasibleGuarantee) as caught:
        search(1)
    needed = caught.value.needed
    assert search(needed).n_answered == needed
    with pytest.raises(InfeasibleGuarantee):
        search(needed - 1)
    with pytest.raises(InfeasibleGuarantee):
        cost_threshold(np.zeros(500), np.zeros(500), 1.0, 0.1, max_cost=2.0, eligible=np.zeros(500, bool))


@given(st.integers(0, 10**6), st.sampled_from(BOUNDS))
@settings(max_examples=20, deadline=None)
def test_rows_that_are_not_eligible_count_for_nothing(seed, bound):
    rng = np.random.default_rng(seed)
    scores = rng.normal(3, 2, size=600)
    spent = 3.0 * (rng.random(600) > 1 / (1 + np.exp(-scores))) * rng.random(600)
    more, eligible = np.append(scores, rng.normal(3, 2, size=100)), np.arange(700) < 600
    try:
        one = cost_threshold(scores, spent, 0.3, 0.1, max_cost=3.0, bound=bound)
    except InfeasibleGuarantee:
        return
    other = cost_threshold(
        more, np.append(spent, np.full(100, 3.0)), 0.3, 0.1, max_cost=3.0, eligible=eligible, bound=bound
    )
    assert (one.threshold, one.n_answered, one.mean_cost) == (
        other.threshold,
        other.n_answered,
        other.mean_cost,
    )
    record = json.loads(json.dumps(one.to_dict(), allow_nan=False))
    assert CostThreshold.from_dict(record) == one
    assert "at most 0.3 each on average" in one.statement
    assert ("the order of the calibration cases" in one.statement) == (bound == "wsr")


def test_an_infinite_cost_threshold_round_trips():
    found = cost_threshold(np.full(300, -np.inf), np.zeros(300), 0.1, 0.1, max_cost=1.0)
    assert found.threshold == -np.inf
    assert found.to_dict()["threshold"] == "-inf"
    assert CostThreshold.from_dict(found.to_dict()) == found
    for change in (
        {"mean_cost": 1.2},
        {"cost_level": 1.0},
        {"n_answered": 301},
        {"n_answered": 0},
        {"threshold": "+inf"},
        {"x": 1},
    ):
        with pytest.raises(InvalidInput):
            CostThreshold.from_dict({**found.to_dict(), **change})


@pytest.mark.parametrize(
    "change",
    [
        {"cost_level": 3.0},
        {"cost_level": 0.0},
        {"cost_level": True},
        {"max_cost": 0.0},
        {"max_cost": np.nan},
        {"max_cost": "1"},
        {"max_cost": 1e101},
        {"max_cost": 0.5},
        {"incurred": [0.0]},
        {"incurred": [-1.0, 0.0]},
        {"bound": "binomial", "incurred": [0.0, 0.5]},
        {"bound": "hoeffding"},
        {"delta": 10},
        {"scores": [np.nan, 0.0]},
        {"eligible": [True]},
    ],
)
def test_bad_cost_arguments(change):
    arguments = {
        "scores": [1.0, 2.0],
        "incurred": [0.0, 1.0],
        "cost_level": 0.1,
        "delta": 0.1,
        "max_cost": 1.0,
    }
    with pytest.raises(InvalidInput):
        cost_threshold(**{**arguments, **change})


@pytest.mark.parametrize("costs", [[[0, 0], [0, 0]], [[0, 1]], [[0, 1, 1, 1], [1, 0, 1, 1]]])
def test_bad_cost_matrices(costs):
    with pytest.raises(InvalidInput):
        cost_scored_actions(np.log([[0.5, 0.5]]), costs)


def grouped(seed, n=3000):
    rng = np.random.default_rng(seed)
    scores = rng.normal(3, 2, size=n)
    groups = rng.choice(3, p=[0.6, 0.39, 0.01], size=n)
    return scores, rng.random(n) > 1 / (1 + np.exp(-scores)), groups


def test_each_group_has_the_threshold_of_its_own_rows():
    scores, errors, groups = grouped(0)
    found = group_thresholds(scores, errors, groups, 0.1, 0.1, n_groups=4)
    for group in (0, 1):
        own = groups == group
        assert found.groups[group] == selective_threshold(scores[own], errors[own], 0.1, 0.1 / 4)
    needed = selective_rows_needed(0.1, 0.1 / 4)
    few, none = found.groups[2:]
    assert isinstance(few, Abstained)
    assert (few.n_calibration, few.needed) == ((groups == 2).sum(), needed)
    assert none == Abstained(0, needed, "there is no calibration row of this group")
    assert found.thresholds.tolist()[2:] == [np.inf, np.inf]
    answered = found.answers(scores, groups)
    assert not answered[groups == 2].any()
    for group in (0, 1):
        own = groups == group
        np.testing.assert_array_equal(answered[own], answers(scores[own], found.thresholds[group]))
        assert answered[own].sum() == found.groups[group].n_answered
    assert "in these groups: 2, 3." in found.statement


def test_group_thresholds_round_trip():
    found = group_thresholds(*grouped(1), 0.1, 0.1, n_groups=3)
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert GroupThresholds.from_dict(record) == found
    for change in ({"groups": []}, {"groups": [{"x": 1}]}, {"risk_level": 0.2}, {"delta": 0}, {"x": 1}):
        with pytest.raises(InvalidInput):
            GroupThresholds.from_dict({**record, **change})


def test_decided_labels_are_groups():
    rows, labels = rows_and_labels(4, n=3000)
    actions, scores = rows.argmax(axis=1), confidence_logit(rows, rows.argmax(axis=1))
    eligible = actions != 2  # label 2 is the abstention: its group is never answered
    found = group_thresholds(scores, actions != labels, actions, 0.1, 0.1, n_groups=3, eligible=eligible)
    assert np.isinf(found.thresholds).tolist() == [False, False, True]
    assert found.groups[2].reason.startswith("no threshold is proven")


def test_no_group_at_all_is_infeasible():
    with pytest.raises(InfeasibleGuarantee) as caught:
        group_thresholds([9.0] * 6, [0] * 6, [0, 1, 0, 1, 0, 1], 0.1, 0.1, n_groups=2)
    assert caught.value.needed == selective_rows_needed(0.1, 0.05)


def test_risks_of_groups_hold_at_once_or_are_not_estimable():
    errors = [1, 0, 0, 0, 1]
    answered = [True, True, True, False, False]
    found = group_risks(errors, answered, [0, 0, 0, 1, 1], 0.1, n_groups=3)
    assert found[0] == (3, 3, 1, pytest.approx(1 / 3), binomial_upper_bound(1, 3, 0.1 / 3))
    assert found[1] == (2, 0, 0, None, None)
    assert found[2] == (0, 0, 0, None, None)
    assert binomial_p_value([1], [3], found[0].upper_bound)[0] == pytest.approx(0.1 / 3)


@pytest.mark.parametrize(
    "call",
    [
        lambda: group_thresholds([1.0], [0], [1], 0.1, 0.1, n_groups=1),
        lambda: group_thresholds([1.0], [0], [0, 0], 0.1, 0.1, n_groups=1),
        lambda: group_thresholds([1.0], [0], [-1], 0.1, 0.1, n_groups=1),
        lambda: group_thresholds([1.0], [0], [0], 0.1, 0.1, n_groups=0),
        lambda: group_thresholds([1.0], [0], [0], 1.0, 0.1, n_groups=1),
        lambda: group_thresholds(*grouped(0), 0.1, 0.1, n_groups=3).answers([1.0], [3]),
        lambda: group_thresholds(*grouped(0), 0.1, 0.1, n_groups=3).answers([1.0, 2.0], [0]),
        lambda: group_risks([0], [2], [0], 0.1, n_groups=1),
        lambda: group_risks([0, 0], [1], [0], 0.1, n_groups=1),
        lambda: answers([1.0, 2.0], [1.0, 2.0, 3.0]),
        lambda: answers([1.0], [[1.0]]),
    ],
)
def test_bad_group_arguments(call):
    with pytest.raises(InvalidInput):
        call()
