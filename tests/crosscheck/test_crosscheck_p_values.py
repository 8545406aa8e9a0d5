"""Conformal p-values and martingales against crepes."""

from __future__ import annotations

import numpy as np
import pytest
from crepes import ConformalClassifier
from crepes.extras import hinge
from crepes.martingales import EpsilonBettingFunction, SimpleJumper
from problems import problem

from finetune.domain.conformal import conformal_scores
from finetune.domain.conformal.martingale import ExchangeabilityMartingale
from finetune.domain.conformal.p_values import OnlinePValues, conformal_p_values


def tied_scores(seed: int, n: int):
    return np.random.default_rng(seed).integers(0, 40, size=n) / 8.0


def the_same_draws(monkeypatch, seed: int) -> np.random.Generator:
    """Make crepes take 1 - u where ours draws u, from the generator that is returned."""
    theirs = np.random.default_rng(seed)
    monkeypatch.setattr(np.random, "rand", lambda *shape: 1.0 - theirs.random(shape))
    return np.random.default_rng(seed)


@pytest.mark.parametrize("n", [1, 19, 400])
def test_p_values_are_those_of_crepes(n):
    scores = tied_scores(0, n + 300)
    theirs = ConformalClassifier().fit(scores[:n]).predict_p(scores[n:], smoothing=False)
    np.testing.assert_array_equal(conformal_p_values(scores[:n], scores[n:]), theirs)


@pytest.mark.parametrize("n", [1, 19, 400])
def test_smoothed_p_values_are_those_of_crepes(n, monkeypatch):
    scores, rng = tied_scores(1, n + 300), the_same_draws(monkeypatch, 2)
    theirs = ConformalClassifier().fit(scores[:n]).predict_p(scores[n:])
    np.testing.assert_allclose(conformal_p_values(scores[:n], scores[n:], rng=rng), theirs, rtol=1e-15)


def test_p_values_of_all_labels_are_those_of_crepes():
    given = problem(3)
    cal, new = (conformal_scores(rows, "lac") for rows in (given.cal[0], given.new[0]))
    of_labels = cal[np.arange(len(cal)), given.cal[1]]
    known = np.arange(given.rows.shape[1])
    theirs = ConformalClassifier().fit(hinge(given.cal[0], known, given.cal[1]))
    ours = conformal_p_values(of_labels, new)
    np.testing.assert_array_equal(ours, theirs.predict_p(hinge(given.new[0]), smoothing=False))


@pytest.mark.parametrize("n_before", [0, 50])
def test_p_values_of_a_stream_are_those_of_crepes(n_before, monkeypatch):
    scores = tied_scores(4, 350)
    theirs = ConformalClassifier().fit(scores[:n_before])
    stream = OnlinePValues(np.random.default_rng(0))
    if n_before:
        stream.update_many(scores[:n_before])
    stream._rng = the_same_draws(monkeypatch, 5)
    after, labels = scores[n_before:], np.zeros(350 - n_before, dtype=int)
    expected = theirs.predict_p_online(after[:, None], np.array([0]), labels, all_classes=False)
    np.testing.assert_allclose(stream.update_many(after), expected, rtol=1e-14)


def test_crepes_without_smoothing_takes_the_score_of_another_row_of_the_stream():
    # With calibration scores before the stream, its p-values of the true labels are those of all_alphas[q].
    scores = np.arange(1.0, 21.0)
    classifier = ConformalClassifier().fit(scores[:19])
    options = {"smoothing": False, "all_classes": False}
    theirs = classifier.predict_p_online(scores[19:, None], np.array([0]), np.array([0]), **options)
    assert theirs.tolist() == [1.0]
    assert conformal_p_values(scores[:19], scores[19:]).tolist() == [1 / 20]


@pytest.mark.parametrize("jump", [0.01, 0.3])
@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_simple_jumper_is_that_of_crepes(power, jump):
    p_values = 1.0 - np.random.default_rng(6).random(800) ** power
    theirs = SimpleJumper(jump, EpsilonBettingFunction([-1, 0, 1])).apply(p_values)
    ours = ExchangeabilityMartingale("simple_jumper", jump=jump).update_many(p_values)
    np.testing.assert_allclose(ours, np.log(theirs), atol=1e-10)
