import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fake_models import as_scores
from tests.unit.application.world import make_world

from finetune.application.decision_rule import DecisionRule, certified_rule, costs_of
from finetune.application.labels_file import Costs
from finetune.application.ports import LabelScores
from finetune.domain.calibration import Temperature
from finetune.domain.checks import log_softmax
from finetune.domain.conformal import ConformalPredictor
from finetune.domain.risk import risk_controlled_actions


def scores_of(p, removed=None):
    return as_scores(np.log(np.asarray(p, dtype=float)), removed)


def sets_at(threshold, k):
    return ConformalPredictor.from_dict(
        {
            "kind": "conformal_predictor", "version": 1, "method": "lac", "inputs": "log_probabilities",
            "randomized": False, "n_labels": k, "alpha": 0.1, "n_calibration": 99, "rank": 90,
            "threshold": threshold,
        }
    )  # fmt: skip


def rule_of(outcomes, *, smallest=0.2, threshold=-np.inf, abstain=0.3, ambiguous=False):
    return DecisionRule(
        outcomes=outcomes,
        map=Temperature(1.0),
        sets=sets_at(-float(np.log(smallest)), len(outcomes)),
        costs=costs_of(outcomes, Costs(default=1.0, abstain=abstain)),
        threshold=threshold,
        abstain_on_ambiguous_set=ambiguous,
    )


@pytest.mark.parametrize(
    ("p", "options", "reason", "decision"),
    [
        ([0.9, 0.06, 0.04], {}, "none", "a"),
        ([0.5, 0.1, 0.4], {}, "model_abstained", "abstain"),
        ([0.1, 0.1, 0.8], {}, "model_abstained", "abstain"),
        ([0.6, 0.3, 0.1], {"abstain": 0.3}, "expected_cost", "abstain"),
        ([0.6, 0.35, 0.05], {"abstain": 0.9, "ambiguous": True}, "ambiguous_set", "abstain"),
        ([0.6, 0.35, 0.05], {"abstain": 0.9}, "none", "a"),
        ([0.8, 0.1, 0.1], {"smallest": 0.95}, "empty_set", "abstain"),
        ([0.9, 0.06, 0.04], {"threshold": 3.0}, "low_confidence", "abstain"),
        ([0.9, 0.06, 0.04], {"threshold": np.inf}, "low_confidence", "abstain"),
    ],
)
def test_reasons(p, options, reason, decision):
    rulings = rule_of(("a", "b", "abstain"), **options).apply(scores_of([p]))
    assert rulings.reasons == (reason,)
    assert rulings.decisions == (decision,)


def test_a_shortened_text_is_handed_over_whatever_else_holds():
    rulings = rule_of(("a", "b", "abstain")).apply(scores_of([[0.98, 0.01, 0.01]] * 2, removed=[0, 5]))
    assert rulings.reasons == ("none", "too_long")
    assert rulings.eligible.tolist() == [True, False]


def test_abstention_that_is_no_outcome_has_its_own_column():
    rulings = rule_of(("a", "b"), abstain=0.3).apply(scores_of([[0.6, 0.4], [0.9, 0.1]]))
    assert rulings.decisions == ("abstain", "a")
    assert rulings.proposals.tolist() == [2, 0]
    assert rulings.taken.tolist() == [2, 0]
    np.testing.assert_allclose(rulings.expected_cost, [0.3, 0.1])
    np.testing.assert_allclose(rulings.confidence, [0.6, 0.9])


def test_expected_cost_is_that_of_the_decision_taken():
    rulings = rule_of(("a", "b"), threshold=np.inf).apply(scores_of([[0.9, 0.1]]))
    assert rulings.decisions == ("abstain",)
    np.testing.assert_allclose(rulings.expected_cost, [0.3])


logits = st.lists(st.lists(st.floats(-30, 30), min_size=3, max_size=3), min_size=1, max_size=8)


@given(rows=logits, threshold=st.floats(-10, 10), cut=st.integers(0, 7))
def test_answered_are_exactly_the_eligible_rows_at_or_above_the_threshold(rows, threshold, cut):
    """What calibration counts as answered at a threshold is what prediction answers at it."""
    removed = [int(i == cut) for i in range(len(rows))]
    scores = as_scores(log_softmax(np.array(rows)), removed)
    loose = rule_of(("a", "b", "abstain")).apply(scores)
    strict = rule_of(("a", "b", "abstain"), threshold=threshold).apply(scores)
    np.testing.assert_array_equal(strict.answered, loose.eligible & (loose.score >= threshold))
    np.testing.assert_array_equal(loose.answered, loose.eligible)
    for decision, proposal, answered in zip(strict.decisions, strict.proposals, strict.answered, strict=True):
        assert decision == (("a", "b", "abstain")[proposal] if answered else "abstain")


def test_a_threshold_that_nothing_reaches_answers_nothing():
    """Not even where the other outcomes are impossible, so that the log-odds are infinite."""
    certain = as_scores(np.array([[0.0, -np.inf, -np.inf]]))
    rulings = rule_of(("a", "b", "abstain"), threshold=np.inf).apply(certain)
    assert rulings.score.tolist() == [np.inf]
    assert rulings.reasons == ("low_confidence",)


@given(rows=logits, threshold=st.floats(-10, 10) | st.sampled_from([-np.inf, np.inf]))
def test_where_no_set_interferes_the_domain_decides_the_same(rows, threshold):
    rule = rule_of(("a", "b", "c"), threshold=threshold)
    log_probs = log_softmax(np.array(rows))
    rulings = rule.apply(as_scores(log_probs))
    expected = risk_controlled_actions(log_probs, threshold, costs=rule.costs)
    np.testing.assert_array_equal(np.where(rulings.answered, rulings.taken, -1), expected)


@given(rows=logits)
def test_each_row_is_decided_by_itself(rows):
    rule = rule_of(("a", "b", "abstain"), threshold=1.0)
    scores = as_scores(log_softmax(np.array(rows)))
    together = rule.apply(scores)
    for i in range(len(rows)):
        alone = rule.apply(LabelScores(*(part[i : i + 1] for part in scores)))
        assert (alone.decisions[0], alone.reasons[0]) == (together.decisions[i], together.reasons[i])


def test_saturated_probabilities_keep_their_order():
    log_probs = log_softmax(np.array([[50.0, 0.0, 0.0], [60.0, 0.0, 0.0]]))
    rulings = rule_of(("a", "b", "abstain")).apply(as_scores(log_probs))
    assert rulings.confidence.tolist() == [1.0, 1.0]
    assert rulings.score[0] < rulings.score[1]


def test_the_rule_of_a_certificate_survives_its_file():
    world = make_world()
    certificate = world.calibrate()
    rule = certified_rule(certificate)
    assert rule.threshold == certificate.selective.threshold
    assert rule.sets.threshold == certificate.conformal.threshold
    assert rule.map.to_dict() == certificate.map.parameters
