"""The selective threshold, the risk-controlled predictor and the risk-coverage curve."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.domain.errors import InfeasibleGuarantee, InvalidInput
from finetune.domain.risk import (
    RiskControlledPredictor,
    SelectiveThreshold,
    answers,
    binomial_p_value,
    confidence_logit,
    cost_matrix,
    risk_controlled_actions,
    risk_coverage_curve,
    scored_actions,
    selective_threshold,
)
from finetune.domain.risk.candidates import start_weights, threshold_grid


def draw(seed, n=2000, mean=3.0):
    rng = np.random.default_rng(seed)
    scores = np.abs(rng.normal(mean, 2.0, size=n))
    return scores, rng.random(n) > 1 / (1 + np.exp(-scores))


def rows_and_labels(seed, n=2000, k=3, concentration=0.2):
    rng = np.random.default_rng(seed)
    rows = np.maximum(rng.dirichlet(np.full(k, concentration), size=n), 1e-12)
    rows /= rows.sum(axis=1, keepdims=True)
    labels = np.minimum((rows.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1), k - 1)
    return rows, labels


@given(st.integers(0, 10**6), st.sampled_from([0.02, 0.05, 0.1, 0.2]), st.sampled_from([0.05, 0.1]))
@settings(max_examples=30, deadline=None)
def test_threshold_carries_its_evidence(seed, risk_level, delta):
    scores, errors = draw(seed)
    try:
        found = selective_threshold(scores, errors, risk_level, delta)
    except InfeasibleGuarantee:
        assert errors.mean() > 0.5 * risk_level  # a model this good never comes here
        return
    answered = scores >= found.threshold
    assert (found.n_answered, found.n_errors) == (answered.sum(), errors[answered].sum())
    assert (
        binomial_p_value([found.n_errors], [found.n_answered], risk_level)[0]
        <= found.level_used
        <= delta + 1e-15
    )
    assert found.upper_bound <= risk_level + 1e-9
    assert found.n_errors / found.n_answered <= found.upper_bound
    assert found.threshold in threshold_grid()


def test_power_comes_close_to_the_best_threshold():
    scores, errors = draw(1, n=20_000)
    found = selective_threshold(scores, errors, 0.05, 0.1)
    curve = risk_coverage_curve(scores, errors)
    best = curve.coverage[curve.risk <= 0.05].max()
    assert found.n_answered / 20_000 > 0.95 * best


def test_a_good_model_answers_everything():
    scores = np.full(500, 40.0)
    assert selective_threshold(scores, np.zeros(500, bool), 0.05, 0.1).threshold == -np.inf


@pytest.mark.parametrize("ineligible_score", [-50.0, 50.0])
def test_rows_that_are_not_eligible_count_for_nothing(ineligible_score):
    scores, errors = draw(2)
    more = np.concatenate([scores, np.full(500, ineligible_score)])
    wrong = np.concatenate([errors, np.ones(500, bool)])
    eligible = np.arange(2500) < 2000
    one, other = (
        selective_threshold(scores, errors, 0.05, 0.1),
        selective_threshold(more, wrong, 0.05, 0.1, eligible),
    )
    assert (one.threshold, one.n_answered, one.n_errors) == (
        other.threshold,
        other.n_answered,
        other.n_errors,
    )


@pytest.mark.parametrize(("risk_level", "delta"), [(0.05, 0.1), (0.01, 0.05), (0.2, 0.1)])
def test_needed_rows_do_and_one_fewer_does_not(risk_level, delta):
    with pytest.raises(InfeasibleGuarantee) as caught:
        selective_threshold([30.0, 30.0], [0, 0], risk_level, delta)
    needed = caught.value.needed
    assert str(needed) in caught.value.remedy
    for score in (300.0, 3.0, 0.0, -300.0):  # whatever the scores: all may be answered
        with pytest.raises(InfeasibleGuarantee):
            selective_threshold(np.full(needed - 1, score), np.zeros(needed - 1, bool), risk_level, delta)
        enough = selective_threshold(np.full(needed, score), np.zeros(needed, bool), risk_level, delta)
        assert enough.n_answered == needed


@pytest.mark.parametrize(
    ("sure", "unsure"), [(600.0, 250.0), (300.0, 40.0), (100.0, 45.0), (66.0, 30.0), (44.0, 20.0)]
)
@pytest.mark.parametrize("risk_level", [0.02, 0.05, 0.1])
def test_saturated_scores_of_two_scales_are_told_apart(sure, unsure, risk_level):
    scores = np.repeat([sure, unsure], 500)
    errors = (scores == unsure) & (np.arange(1000) % 3 == 0)
    found = selective_threshold(scores, errors, risk_level, 0.1)
    assert (found.n_answered, found.n_errors) == (500, 0)


def test_a_tiny_delta_makes_sense():
    scores, errors = draw(5)
    found = selective_threshold(scores, errors, 0.1, 1e-17)
    assert 0 < found.n_errors / found.n_answered < found.upper_bound <= 0.1
    assert "confidence 1 - 1e-17," in found.statement
    with pytest.raises(InfeasibleGuarantee, match="with confidence 1 - 1e-17"):
        selective_threshold([30.0], [0], 0.1, 1e-17)


def test_an_infinite_threshold_answers_nothing():
    scores = [-np.inf, 0.0, np.inf]
    assert answers(scores, np.inf).tolist() == [False, False, False]
    assert answers(scores, -np.inf).tolist() == [True, True, True]
    assert answers(scores, 0.0).tolist() == [False, True, True]
    certain = np.log([[1.0, 1e-300], [0.5, 0.5]])
    certain[0] = [0.0, -np.inf]
    assert risk_controlled_actions(certain, np.inf).tolist() == [-1, -1]
    assert risk_controlled_actions(certain, -np.inf).tolist() == [0, 0]
    for bad in (np.nan, "0", None):
        with pytest.raises(InvalidInput, match="threshold"):
            answers(scores, bad)


def test_the_rule_is_the_action_where_its_score_is_answered():
    rows, _ = rows_and_labels(11, n=300)
    costs = cost_matrix(("a", "b", "c"), abstain=0.2)
    actions, scores = scored_actions(np.log(rows), costs)
    expected = np.where(answers(scores, 1.5), actions, -1)
    np.testing.assert_array_equal(risk_controlled_actions(np.log(rows), 1.5, costs=costs), expected)


def test_a_bad_model_and_no_eligible_row_are_infeasible():
    scores, _ = draw(3)
    with pytest.raises(InfeasibleGuarantee):
        selective_threshold(scores, np.ones(2000, bool), 0.05, 0.1)
    with pytest.raises(InfeasibleGuarantee):
        selective_threshold(scores, np.zeros(2000, bool), 0.05, 0.1, eligible=np.zeros(2000, bool))


@pytest.mark.parametrize("risk_level", [0.001, 0.01, 0.1, 0.5, 0.9])
def test_the_search_is_fixed_and_spends_all_of_delta(risk_level):
    assert start_weights(risk_level).sum() == pytest.approx(1.0)
    grid = threshold_grid()
    assert (np.diff(grid) < 0).all()
    assert grid[-1] == -np.inf
    assert start_weights(risk_level)[-1] == start_weights(risk_level).max()  # what `needed` counts with
    finite = grid[:-1]
    assert (finite[:-1] - finite[1:] <= np.maximum(finite[1:], 1.0) / 16 + 1e-9).all()
    assert 700 < grid[0] < 745
    assert len(grid) < 500


@pytest.mark.parametrize("scores", [[30.0] * 500, [-np.inf] * 250 + [np.inf] * 250])
def test_threshold_json_round_trip(scores):
    found = selective_threshold(scores, np.zeros(500, bool), 0.05, 0.1)
    assert SelectiveThreshold.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False))) == found
    with pytest.raises(InvalidInput):
        SelectiveThreshold.from_dict({**found.to_dict(), "n_errors": 501})


def test_statement_names_level_confidence_rows_and_limits():
    statement = selective_threshold(*draw(4), 0.05, 0.1).statement
    for part in ("confidence 0.9", "fraction 0.05", "2000 calibration cases", "does not hold for each label"):
        assert part in statement


def test_confidence_logit_keeps_its_digits():
    log_probs = np.array(
        [[0.0, -100.0, -800.0], [-np.inf, 0.0, -np.inf], [np.log(0.5), np.log(0.5), -np.inf]]
    )
    np.testing.assert_allclose(confidence_logit(log_probs, [0, 1, 0]), [100.0, np.inf, 0.0], atol=1e-12)
    assert confidence_logit(log_probs, [2, 0, 2]).tolist() == [-800.0, -np.inf, -np.inf]


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_actions_move_with_the_labels(seed):
    rows, _ = rows_and_labels(seed, n=100, k=4)
    order = np.random.default_rng(seed).permutation(4)
    actions = risk_controlled_actions(np.log(rows), 1.0)
    moved = risk_controlled_actions(np.log(rows[:, order]), 1.0)
    np.testing.assert_array_equal(np.where(moved < 0, -1, order[moved]), actions)


@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_predictor_keeps_the_risk_and_answers(dtype):
    rows, labels = rows_and_labels(5, n=8000)
    predictor = RiskControlledPredictor(delta=0.05)
    actions = predictor.calibrate(rows[:4000].astype(dtype), labels[:4000], 0.05).predict(
        rows[4000:].astype(dtype)
    )
    answered = actions >= 0
    assert answered.mean() > 0.5
    assert (actions != labels[4000:])[answered].mean() < 0.06  # 3 standard errors above the level
    np.testing.assert_array_equal(actions[answered], rows[4000:].argmax(axis=1)[answered])


def test_prediction_repeats_what_calibration_counted():
    rows, labels = rows_and_labels(6)
    costs = cost_matrix(("a", "b", "c"), abstain=0.2, pairs={"a": {"b": 5.0}})
    predictor = RiskControlledPredictor().calibrate(rows, labels, 0.1, costs)
    actions = predictor.predict(rows)
    found = predictor.evidence()
    assert (predictor.threshold, predictor.statement) == (found.threshold, found.statement)
    assert (actions >= 0).sum() == found.n_answered
    assert (actions != labels)[actions >= 0].sum() == found.n_errors


def test_another_matrix_gets_a_threshold_of_its_own():
    rows, labels = rows_and_labels(7)
    costs = cost_matrix(("a", "b", "c"), pairs={"a": {"b": 30.0, "c": 30.0}})
    one = RiskControlledPredictor().calibrate(rows, labels, 0.1)
    other = RiskControlledPredictor().calibrate(rows, labels, 0.1, costs)
    np.testing.assert_array_equal(one.predict(rows, costs), other.predict(rows))
    assert one.evidence(costs) == other.evidence()
    assert one.evidence(costs) is one.evidence(costs)
    assert one.evidence() != one.evidence(costs)
    assert other.evidence(costs) is other.evidence()
    assert one.threshold == one.evidence().threshold


def test_one_matrix_besides_the_calibrated_one_is_kept():
    rows, labels = rows_and_labels(7)
    predictor = RiskControlledPredictor().calibrate(rows, labels, 0.1)
    own = predictor.evidence()
    first, second = (cost_matrix(("a", "b", "c"), pairs={"a": {"b": cost}}) for cost in (2.0, 3.0))
    kept = predictor.evidence(first)
    predictor.evidence(second)
    assert predictor.evidence(first) is not kept
    assert predictor.evidence(first) == kept
    assert predictor.evidence() is own


def test_abstention_as_an_outcome_and_as_a_column():
    rows, labels = rows_and_labels(8)
    inside = RiskControlledPredictor(abstain_index=2).calibrate(rows, labels, 0.1)
    actions = inside.predict(rows)
    assert set(actions) == {-1, 0, 1}
    assert (actions[rows.argmax(axis=1) == 2] == -1).all()
    free = cost_matrix(("a", "b", "c"), abstain=0.0)
    with pytest.raises(InfeasibleGuarantee):
        RiskControlledPredictor().calibrate(
            np.clip(rows, 0.01, None) / np.clip(rows, 0.01, None).sum(1, keepdims=True), labels, 0.1, free
        )


def test_a_failed_calibration_leaves_the_predictor_as_it_was():
    rows, labels = rows_and_labels(9)
    predictor = RiskControlledPredictor().calibrate(rows, labels, 0.1)
    before = predictor.predict(rows)
    with pytest.raises(InfeasibleGuarantee):
        predictor.calibrate(rows[:5], labels[:5], 0.01)
    np.testing.assert_array_equal(predictor.predict(rows), before)


def test_predictor_misuse():
    rows, labels = rows_and_labels(10)
    with pytest.raises(InvalidInput, match="calibrate first"):
        RiskControlledPredictor().predict(rows)
    with pytest.raises(InvalidInput, match="calibrate first"):
        _ = RiskControlledPredictor().threshold
    fitted = RiskControlledPredictor().calibrate(rows, labels)
    with pytest.raises(InvalidInput, match="3 labels"):
        fitted.predict(np.full((2, 2), 0.5))
    with pytest.raises(InvalidInput, match="columns"):
        fitted.predict(rows, np.ones((3, 5)))
    with pytest.raises(InvalidInput, match="abstain_index"):
        RiskControlledPredictor(abstain_index=3).calibrate(rows, labels)
    for bad in ({"delta": 0.0}, {"abstain_index": -1}, {"inputs": "p"}):
        with pytest.raises(InvalidInput):
            RiskControlledPredictor(**bad)


def test_curve_by_hand():
    curve = risk_coverage_curve([0.9, 0.8, 0.8, 0.6], [0, 0, 1, 1])
    assert curve.threshold.tolist() == [0.9, 0.8, 0.6]
    assert curve.at([0.0, 0.25, 0.5, 1.0])[2] == (0.75, pytest.approx(1 / 3), 0.8)


@given(st.integers(0, 10**6), st.booleans())
@settings(max_examples=30, deadline=None)
def test_curve_equals_its_definition_and_ignores_the_order_of_rows(seed, ties):
    rng = np.random.default_rng(seed)
    confidence = rng.integers(5, size=40) / 5 if ties else rng.random(40)
    errors = rng.random(40) < 0.3
    curve = risk_coverage_curve(confidence, errors)
    shuffle = rng.permutation(40)
    np.testing.assert_array_equal(risk_coverage_curve(confidence[shuffle], errors[shuffle]).risk, curve.risk)
    for coverage, risk, threshold in zip(curve.coverage, curve.risk, curve.threshold, strict=True):
        answered = confidence >= threshold
        assert coverage == answered.mean()
        assert risk == pytest.approx(errors[answered].mean())
    assert curve.coverage[-1] == 1.0
    if not ties:
        prefix = np.cumsum(errors[np.argsort(-confidence)]) / np.arange(1, 41)
        assert curve.aurc == pytest.approx(prefix.mean())
