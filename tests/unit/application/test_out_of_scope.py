"""What is handed over for want of evidence, and what is promised of that."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom
from tests.fake_models import as_scores
from tests.unit.application.test_decision_rule import rule_of, scores_of
from tests.unit.application.world import make_world

from finetune.application.certificate import read_certificate
from finetune.application.certify import certify_scope
from finetune.application.decision_rule import certified_rule
from finetune.application.scored_rows import ScoredRows
from finetune.application.settings import RiskConfig


def rows_of(masses) -> ScoredRows:
    n = len(masses)
    scores = as_scores(np.log(np.full((n, 2), 0.5)))._replace(label_mass=np.asarray(masses, dtype=float))
    return ScoredRows([str(i) for i in range(n)], np.zeros(n, dtype=np.int64), scores)


def test_the_limit_is_the_calibration_evidence_of_its_rank():
    scope = certify_scope(rows_of(np.arange(199.0)), RiskConfig(out_of_scope=0.05), "message")
    assert (scope.n, scope.rank, scope.least) == (199, 10, 9.0)
    assert "all but 9 of 199 calibration rows" in scope.statement


def test_too_few_rows_hand_nothing_over_and_say_so():
    scope = certify_scope(rows_of(np.arange(10.0)), RiskConfig(out_of_scope=0.05), "message")
    assert (scope.rank, scope.least) == (0, None)
    assert "too few" in scope.statement


def test_nothing_is_certified_where_nothing_was_asked():
    assert certify_scope(rows_of([1.0, 2.0]), RiskConfig(), "message") is None


def test_little_evidence_is_handed_over_after_too_long_and_before_all_else():
    rule = rule_of(("a", "b", "abstain"))
    rule = type(rule)(**{**vars(rule), "least_evidence": -1.0})
    sure, abstains = [0.98, 0.01, 0.01], [0.1, 0.1, 0.8]
    scores = scores_of([sure, sure, abstains, sure], removed=[0, 0, 0, 5])
    scores = scores._replace(label_mass=np.array([-1.0, -1.1, -2.0, -3.0]))
    rulings = rule.apply(scores)
    assert rulings.reasons == ("none", "out_of_scope", "out_of_scope", "too_long")
    assert rulings.decisions == ("a", "abstain", "abstain", "abstain")
    assert rulings.eligible.tolist() == [True, False, False, False]


@pytest.mark.parametrize(("n", "share"), [(30, 0.1), (99, 0.05), (250, 0.02)])
@pytest.mark.parametrize("decimals", [None, 1])
def test_at_most_the_share_of_what_is_in_scope_is_handed_over(n, share, decimals):
    rng, runs = np.random.default_rng([n, int(1000 * share)]), 4000
    flagged, rank = 0, math.floor(round(share * 1000) * (n + 1) / 1000)
    for _ in range(runs):
        masses = rng.standard_normal(n + 1)
        masses = masses if decimals is None else masses.round(decimals)
        scope = certify_scope(rows_of(masses[:n]), RiskConfig(out_of_scope=share), "message")
        flagged += masses[n] < (-math.inf if scope.least is None else scope.least)
    low, high = binom.ppf([5e-5, 1 - 5e-5], runs, rank / (n + 1))
    assert flagged <= high
    if decimals is None:
        assert flagged >= low


def test_a_run_is_certified_and_decides_by_it():
    world = make_world(risk={"level": 0.3, "out_of_scope": 0.1})
    opened = world.models.open

    def with_evidence(*arguments):
        model = opened(*arguments)
        score = model.scorer.score

        def evident(texts, task=None):
            masses = np.array([(hash_of(text) % 1000) / 1000 for text in texts])
            return score(texts, task)._replace(label_mass=masses)

        model.scorer.score = evident
        return model

    world.models.open = with_evidence
    certificate = world.calibrate()
    assert certificate.scope.share == 0.1
    assert certificate.scope.statement in certificate.statements
    assert read_certificate(certificate.document(), "x").scope == certificate.scope
    assert certified_rule(certificate).least_evidence == certificate.scope.least
    evaluation = world.evaluate().document()
    assert evaluation["selective"]["error"]["low"] <= 0.3
    assert evaluation["selective"]["answered"] < 0.95 * evaluation["test"]["rows"]
    card = world.run.files[str(world.run.folder / "README.md")]
    assert certificate.scope.statement in card


def hash_of(text: str) -> int:
    return sum(ord(letter) * (place + 1) for place, letter in enumerate(text))


def test_a_certificate_without_a_limit_takes_everything_for_in_scope():
    certificate = make_world().calibrate()
    assert certificate.scope is None
    assert certified_rule(certificate).least_evidence == -math.inf
