"""Conformal risk control on a grid of losses, and over all thresholds of prediction sets."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.domain.conformal.miss_cost import CostControlledPredictor, miss_cost_threshold
from finetune.domain.conformal.quantile import conformal_quantile
from finetune.domain.conformal.risk_control import RiskControl, conformal_risk_control, rows_needed
from finetune.domain.conformal.split import ConformalPredictor
from finetune.domain.errors import InfeasibleGuarantee, InvalidInput


def exactly(value):
    return Fraction(str(value))


def draw(seed, n=200, k=4):
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.ones(k), size=n)
    labels = np.minimum((rows.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1), k - 1)
    return rows, labels


def test_golden_number():
    found = conformal_risk_control([[0.0], [1.0], [0.0], [0.0]], [0.5], alpha=0.4)
    assert (found.lambda_, found.adjusted_risk, found.risk) == (0.5, 0.4, 0.25)
    with pytest.raises(InfeasibleGuarantee) as raised:
        conformal_risk_control([[0.0], [1.0], [0.0], [0.0]], [0.5], alpha=0.399)
    assert raised.value.needed == 2
    assert "least adjusted risk 0.4" in str(raised.value)


@given(
    st.integers(1, 30),
    st.integers(1, 8),
    st.sampled_from([1.0, 0.7, 3.0]),
    st.integers(1, 99),
    st.integers(0, 10**6),
)
def test_grid_equals_the_definition(n, m, bound, percent, seed):
    rng = np.random.default_rng(seed)
    tenths = np.sort(rng.integers(0, round(10 * bound) + 1, size=(n, m)), axis=1)[:, ::-1]
    losses = np.round(tenths / 10, 1)
    grid = np.cumsum(rng.random(m) + 0.01)
    alpha = round(percent / 100 * bound, 3)
    risk = [(sum(map(exactly, column)) + exactly(bound)) / (n + 1) for column in losses.T.tolist()]
    possible = [place for place in range(m) if risk[place] <= exactly(alpha)]
    if not possible:
        with pytest.raises(InfeasibleGuarantee) as raised:
            conformal_risk_control(losses, grid, alpha, bound=bound)
        needed = raised.value.needed
        assert exactly(bound) / (needed + 1) <= exactly(alpha)
        assert needed == 1 or exactly(bound) / needed > exactly(alpha)
        return
    found = conformal_risk_control(losses, grid, alpha, bound=bound)
    assert found.lambda_ == grid[possible[0]]
    assert found.adjusted_risk == pytest.approx(float(risk[possible[0]]))


@given(st.integers(1, 60), st.integers(0, 10**6), st.integers(2, 98))
def test_lambda_falls_as_more_loss_is_allowed(n, seed, percent):
    rng = np.random.default_rng(seed)
    losses = np.sort(rng.random((n, 20)), axis=1)[:, ::-1] * rng.random((n, 1))
    losses[:, -1] = 0.0
    scores, costs = rng.normal(size=n), rng.random(n)
    strict, loose = percent / 100, (percent + 1) / 100
    assert (
        miss_cost_threshold(scores, costs, loose).lambda_
        <= miss_cost_threshold(scores, costs, strict).lambda_
    )
    if n >= rows_needed(strict):
        of = [conformal_risk_control(losses, np.arange(20.0), alpha).lambda_ for alpha in (strict, loose)]
        assert of[1] <= of[0]


def test_sums_on_the_edge_are_exact():
    # In floats 0.1 + 0.1 + 0.1 > 0.3, and (0.3 + 0.1) / 10 > 0.04.
    losses = np.array([[0.1]] * 3 + [[0.0]] * 6)
    assert conformal_risk_control(losses, [1.0], alpha=0.04, bound=0.1).lambda_ == 1.0
    with pytest.raises(InfeasibleGuarantee):
        conformal_risk_control(losses, [1.0], alpha=0.0399999, bound=0.1)


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (([[0.5, 0.4], [0.3, 0.31]], [0.0, 1.0], 0.5), "losses[1, 1]"),
        (([[0.5, 0.4], [1.5, 0.3]], [0.0, 1.0], 0.5), "losses[1]"),
        (([[0.5, math.nan]], [0.0, 1.0], 0.5), "losses[0]"),
        (([[0.5, -0.1]], [0.0, 1.0], 0.5), "losses[0]"),
        (([[0.5, 0.4]], [1.0, 1.0], 0.5), "lambdas[1]"),
        (([[0.5, 0.4]], [1.0, math.nan], 0.5), "lambdas[1]"),
        (([[0.5, 0.4]], [1.0], 0.5), None),
        (([0.5, 0.4], [0.0, 1.0], 0.5), None),
        ((np.empty((0, 2)), [0.0, 1.0], 0.5), None),
        (([["a", "b"]], [0.0, 1.0], 0.5), None),
        (([[0.5, 0.4]], [0.0, 1.0], 0.0), None),
        (([[0.5, 0.4]], [0.0, 1.0], 1.0), None),
        (([[0.5, 0.4]], [0.0, 1.0], None), None),
        (([[0.5, 0.4]], [0.0, 1.0], math.nan), None),
    ],
)
def test_bad_grids(arguments, where):
    with pytest.raises(InvalidInput) as raised:
        conformal_risk_control(*arguments)
    assert raised.value.where == where


@pytest.mark.parametrize("bound", [0.0, -1.0, math.inf, math.nan, None, True, 1e101, 10**400, "a"])
def test_bad_bounds(bound):
    with pytest.raises(InvalidInput):
        conformal_risk_control([[0.5]], [0.0], 0.1, bound=bound)
    with pytest.raises(InvalidInput):
        rows_needed(0.1, bound)


@pytest.mark.parametrize("unit", [1e100, 1e-300, Fraction(1, 4), np.float32(0.1), 7])
def test_any_unit(unit):
    losses = float(str(unit) if isinstance(unit, np.floating) else unit) * np.array(
        [[1.0, 0.0]] + [[0.0, 0.0]] * 8
    )
    found = conformal_risk_control(losses, [0.0, 1.0], float(losses.max()) / 5, bound=unit)
    assert found.lambda_ == 0.0
    assert json.dumps(found.to_dict(), allow_nan=False)
    with pytest.raises(InvalidInput, match="below the greatest loss"):
        conformal_risk_control(losses, [0.0, 1.0], unit, bound=unit)


def test_rows_needed_is_exact():
    assert [rows_needed(alpha) for alpha in (0.3, 0.1, 0.05, 0.01, 0.001)] == [3, 9, 19, 99, 999]
    assert rows_needed(0.9) == 1


def test_record_of_a_result():
    found = conformal_risk_control([[0.5, 0.1]] * 20, [0.0, math.inf], alpha=0.2)
    again = RiskControl.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False)))
    assert again == found
    assert found.lambda_ == math.inf
    assert "at most 0.2 on average" in found.statement
    assert "the 20 calibration cases" in found.statement


@pytest.mark.parametrize(
    "change",
    [
        {"total_loss": 5.0},
        {"total_loss": -1.0},
        {"total_loss": 50.0},
        {"alpha": 2.0},
        {"bound": 0.0},
        {"n_calibration": 0},
        {"n_calibration": 10**400},
        {"lambda": "NaN"},
        {"lambda": math.nan},
        {"kind": "other"},
    ],
)
def test_bad_records_of_a_result(change):
    record = conformal_risk_control([[0.1]] * 20, [0.0], alpha=0.2).to_dict()
    with pytest.raises(InvalidInput):
        RiskControl.from_dict(record | change)


some_scores = st.lists(st.sampled_from([-math.inf, 0.0, 0.1, 0.2, 1.0, math.inf]), min_size=1, max_size=25)


@pytest.mark.parametrize("value", [None, "a", math.nan, True, [1.0], np.ones(2)])
@pytest.mark.parametrize("name", ["lambda_", "total_loss", "n_calibration", "alpha", "bound"])
def test_a_result_is_made_of_numbers(name, value):
    fields = {"lambda_": 0.5, "total_loss": 0.0, "n_calibration": 20, "alpha": 0.1, "bound": 1.0}
    assert RiskControl(**fields).adjusted_risk == 1 / 21
    with pytest.raises(InvalidInput):
        RiskControl(**fields | {name: value})


@given(some_scores, st.sampled_from([1.0, 0.5, 4.0]), st.integers(1, 999), st.integers(0, 10**6))
@settings(max_examples=200)
def test_threshold_equals_the_definition(scores, bound, thousandths, seed):
    tenths = np.random.default_rng(seed).integers(0, round(10 * bound) + 1, size=len(scores))
    costs = np.round(tenths / 10, 1)
    alpha = round(thousandths / 1000 * bound, 4)

    def adjusted(threshold):
        missed = [exactly(c) for s, c in zip(scores, costs.tolist(), strict=True) if s > threshold]
        return (sum(missed) + exactly(bound)) / (len(scores) + 1)

    possible = [t for t in sorted({-math.inf, *scores}) if adjusted(t) <= exactly(alpha)]
    found = miss_cost_threshold(scores, costs, alpha, bound=bound)
    assert found.lambda_ == (possible[0] if possible else math.inf)


@given(st.integers(1, 300), st.integers(1, 999), st.sampled_from([1.0, 0.1, 7.0]), st.integers(0, 10**6))
@settings(max_examples=200)
def test_equal_costs_give_the_conformal_quantile(n, thousandths, cost, seed):
    scores = np.random.default_rng(seed).normal(size=n).round(1)
    alpha = thousandths / 1000
    found = miss_cost_threshold(scores, np.full(n, cost), round(alpha * cost, 6), bound=cost)
    assert found.lambda_ == conformal_quantile(scores, alpha)


def test_a_grid_of_all_scores_gives_the_same_threshold():
    rng = np.random.default_rng(0)
    scores, costs = rng.normal(size=200), rng.random(200)
    grid = np.sort(scores)
    losses = costs[:, None] * (scores[:, None] > grid)
    on_grid = conformal_risk_control(losses, grid, alpha=0.1)
    anywhere = miss_cost_threshold(scores, costs, alpha=0.1)
    assert on_grid == anywhere


@pytest.mark.parametrize(
    ("scores", "costs"),
    [
        ([1.0], [1.0, 1.0]),
        ([math.nan], [1.0]),
        ([1.0], [2.0]),
        ([1.0], [-0.1]),
        ([1.0], [math.nan]),
        ([], []),
    ],
)
def test_bad_scores_and_costs(scores, costs):
    with pytest.raises(InvalidInput):
        miss_cost_threshold(scores, costs, 0.1)


@pytest.mark.parametrize("method", ["lac", "aps"])
def test_cost_one_for_each_label_gives_the_sets_of_the_split_predictor(method):
    rows, labels = draw(0)
    split = ConformalPredictor(method).calibrate(rows, labels, alpha=0.1)
    costly = CostControlledPredictor(method).calibrate(rows, labels, np.ones(4), alpha=0.1)
    assert costly.threshold == split.threshold
    np.testing.assert_array_equal(costly.predict(rows), split.predict(rows))


def test_costs_decide_the_threshold():
    rows, labels = draw(1)
    cheap, dear = (
        CostControlledPredictor().calibrate(rows, labels, cost, alpha=0.2).predict(rows).sum()
        for cost in ([1.0, 0.1, 0.1, 0.1], [1.0, 1.0, 1.0, 1.0])
    )
    assert cheap < dear


def test_too_few_rows_give_the_whole_set_and_say_so():
    rows, labels = draw(2, n=8)
    predictor = CostControlledPredictor().calibrate(rows, labels, np.full(4, 5.0), alpha=0.5)
    assert predictor.covers_everything
    assert predictor.predict(rows).all()
    assert "fewer than 9 calibration cases" in predictor.statement


def test_labels_that_the_model_excludes():
    rows = np.array([[1.0, 0.0]] * 20)
    predictor = CostControlledPredictor().calibrate(rows, [1] * 20, [1.0, 1.0], alpha=0.2)
    assert predictor.predict(rows).all()
    assert "a model that excludes true labels" in predictor.statement


def test_where_nothing_costs_much_sets_are_empty_and_it_is_said():
    rows, labels = draw(3)
    labels[:] = 1
    predictor = CostControlledPredictor().calibrate(rows, labels, [1.0, 0.0, 0.0, 0.0], alpha=0.1)
    assert predictor.threshold == -math.inf
    assert not predictor.predict(rows).any()
    assert "every set is empty" in predictor.statement


@pytest.mark.parametrize("n", [8, 200])
def test_predictor_survives_a_restart(n):
    rows, labels = draw(4, n=n)
    with np.errstate(divide="ignore"):
        logits = np.log(rows)
    predictor = CostControlledPredictor("aps", inputs="logits", randomized=True, rng=np.random.default_rng(0))
    predictor.calibrate(logits, labels, [5.0, 1.0, 2.0, 0.0], alpha=0.5)
    record = json.loads(json.dumps(predictor.to_dict(), allow_nan=False))
    again = CostControlledPredictor.from_dict(record, rng=np.random.default_rng(1))
    assert again.to_dict() == predictor.to_dict()
    assert again.statement == predictor.statement
    fresh = CostControlledPredictor.from_dict(record, rng=np.random.default_rng(1))
    np.testing.assert_array_equal(again.predict(logits), fresh.predict(logits))
    with pytest.raises(InvalidInput):
        CostControlledPredictor.from_dict(record)  # without a generator
    with pytest.raises(InvalidInput):
        CostControlledPredictor.from_dict(record | {"miss_cost": [1.0] * 4}, rng=np.random.default_rng(1))


@pytest.mark.parametrize(
    "cost", [[1.0] * 3, [0.0] * 4, [1.0, 1.0, 1.0, -1.0], [math.inf] * 4, [1e200] * 4, [], None, [[1.0] * 4]]
)
def test_bad_costs(cost):
    rows, labels = draw(5)
    with pytest.raises(InvalidInput):
        CostControlledPredictor().calibrate(rows, labels, cost, alpha=0.1)


def test_misuse_of_the_predictor():
    rows, labels = draw(6)
    predictor = CostControlledPredictor()
    with pytest.raises(InvalidInput):
        predictor.predict(rows)
    with pytest.raises(InvalidInput):
        predictor.calibrate(rows, labels, np.ones(4), alpha=1.0)
    with pytest.raises(InvalidInput):
        predictor.calibrate(rows, labels + 1, np.ones(4), alpha=0.1)
    predictor.calibrate(rows, labels, np.ones(4), alpha=0.1)
    with pytest.raises(InvalidInput):
        predictor.predict(rows[:, :2] / rows[:, :2].sum(axis=1, keepdims=True))
    with pytest.raises(InvalidInput):
        CostControlledPredictor("lac", randomized=True, rng=np.random.default_rng(0))
    with pytest.raises(InvalidInput):
        CostControlledPredictor("aps", randomized=True)
    with pytest.raises(InvalidInput):
        CostControlledPredictor("none")
