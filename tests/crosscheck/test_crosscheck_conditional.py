"""Sets that cover each label, group or cluster of labels against TorchCP, crepes and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmarks.peers import Identity, torchcp, torchcp_predictor
from crepes import ConformalClassifier, WrapClassifier
from crepes.extras import hinge, margin
from problems import Problem, problem
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from finetune.domain.conformal.clustered import ClusteredPredictor
from finetune.domain.conformal.clustering import weighted_k_means
from finetune.domain.conformal.mondrian import ClassConditionalPredictor, GroupConditionalPredictor
from finetune.domain.errors import CoverageWarning


def torchcp_class_conditional(score, given: Problem, alpha: float):
    predictor = torchcp_predictor(score, "ClassConditionalPredictor")
    predictor.calculate_threshold(*(torch.from_numpy(array.copy()) for array in given.cal), alpha)
    return predictor


@pytest.mark.parametrize("alpha", [0.1, 0.27])
@pytest.mark.parametrize(("n", "n_labels"), [(200, 3), (900, 12)])
@pytest.mark.parametrize(("method", "score"), [("lac", "LAC"), ("margin", "Margin")])
def test_sets_by_class_are_those_of_torchcp(method, score, n, n_labels, alpha):
    # Theirs keeps thresholds in single precision.
    given = problem(0, n_cal=n, n_labels=n_labels)
    theirs = torchcp_class_conditional(getattr(torchcp().score, score)("identity"), given, alpha)
    ours = ClassConditionalPredictor(method).calibrate(*given.cal, alpha=alpha).predict(given.new[0])
    sets = theirs.predict_with_logits(torch.from_numpy(given.new[0])).numpy().astype(bool)
    assert (ours != sets).mean() < 1e-3
    thresholds = theirs.q_hat.numpy()
    distance = theirs.score_function(torch.from_numpy(given.new[0])).numpy() - thresholds
    assert not (ours != sets)[np.abs(distance) > 1e-6].any()


@pytest.mark.parametrize(("method", "score"), [("lac", hinge), ("margin", margin)])
def test_sets_by_class_are_those_of_crepes(method, score):
    # alpha is such that (n + 1) alpha is not whole for any n below 1000.
    given = problem(1, n_cal=400, n_new=150, n_labels=4)
    classifier = WrapClassifier(Identity(4))
    classifier.calibrate(*given.cal, nc=score, class_cond=True)
    theirs = classifier.predict_set(given.new[0], labels=False, confidence=0.8999, smoothing=False)
    ours = ClassConditionalPredictor(method).calibrate(*given.cal, alpha=0.1001).predict(given.new[0])
    assert np.array_equal(ours, np.asarray(theirs, dtype=bool))


def test_sets_by_group_are_those_of_crepes():
    given = problem(2, n_cal=400, n_new=200, n_labels=4)
    groups = np.random.default_rng(2).integers(0, 3, size=600)
    known = np.arange(4)
    classifier = ConformalClassifier().fit(hinge(given.cal[0], known, given.cal[1]), bins=groups[:400])
    theirs = classifier.predict_set(hinge(given.new[0]), groups[400:], confidence=0.8999, smoothing=False)
    predictor = GroupConditionalPredictor("lac").calibrate(*given.cal, groups[:400], alpha=0.1001)
    assert np.array_equal(predictor.predict(given.new[0], groups[400:]), theirs.astype(bool))


@pytest.mark.filterwarnings("ignore::finetune.domain.errors.CoverageWarning")
def test_a_label_without_rows_is_in_every_set_of_crepes_and_torchcp_too():
    given = problem(3, n_cal=300, n_labels=4)
    given = given._replace(labels=np.where(given.labels == 2, 0, given.labels))
    theirs = torchcp_class_conditional(torchcp().score.LAC("identity"), given, 0.1)
    with pytest.warns(CoverageWarning):
        predictor = ClassConditionalPredictor("lac").calibrate(*given.cal, alpha=0.1)
    assert predictor.predict(given.new[0])[:, 2].all()
    assert theirs.predict_with_logits(torch.from_numpy(given.new[0])).numpy()[:, 2].all()


def two_kinds_of_labels(seed: int, n: int, n_labels: int = 12, unseen: bool = False) -> Problem:
    """Probabilities where labels of the first half are hard to tell and those of the second easy."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_labels - unseen, size=n)
    logits = rng.normal(size=(n, n_labels))
    logits[np.arange(n), labels] += np.where(labels < n_labels // 2, 0.5, 5.0)
    weights = np.exp(logits)
    return Problem(weights / weights.sum(axis=1, keepdims=True), labels, n // 2)


def torchcp_clustered(given: Problem):
    predictor = torchcp_predictor(
        torchcp().score.LAC("identity"), "ClusteredPredictor", ratio_clustering=0.4, num_clusters=2
    )
    torch.manual_seed(0)
    predictor.calculate_threshold(*map(torch.from_numpy, given.cal), 0.1)
    return predictor


def test_clusters_are_those_of_torchcp():
    # The rows are divided at random, so the thresholds are near and not the same.
    given = two_kinds_of_labels(4, 24_000)
    theirs = torchcp_clustered(given)
    rng = np.random.default_rng(5)
    ours = ClusteredPredictor("lac", n_clusters=2, clustering_fraction=0.4)
    ours.calibrate(*given.cal, alpha=0.1, rng=rng)
    assert adjusted_rand_score(ours.clusters, theirs.cluster_assignments.numpy()) == 1.0
    sets = theirs.predict_with_logits(torch.from_numpy(given.new[0])).numpy().astype(bool)
    assert (ours.predict(given.new[0]) != sets).mean() < 0.02


@pytest.mark.filterwarnings("ignore::finetune.domain.errors.CoverageWarning")
def test_torchcp_gives_an_unseen_label_the_threshold_of_the_last_cluster():
    given = two_kinds_of_labels(6, 24_000, unseen=True)
    theirs = torchcp_clustered(given)
    last = theirs.q_hat[theirs.cluster_assignments == 1][0]
    assert theirs.cluster_assignments[11] == -1
    assert theirs.q_hat[11] == last < 1.0
    rng = np.random.default_rng(7)
    ours = ClusteredPredictor("lac", n_clusters=2, clustering_fraction=0.4)
    ours.calibrate(*given.cal, alpha=0.1, rng=rng)
    assert ours.clusters[11] == "unseen"
    assert ours.predict(given.new[0])[:, 11].all()


@pytest.mark.parametrize("n_clusters", [1, 3, 5])
def test_k_means_is_as_good_as_that_of_scikit_learn(n_clusters):
    rng = np.random.default_rng(8)
    points = rng.normal(size=(60, 5)) + 6.0 * rng.integers(0, 3, size=(60, 1))
    weights = rng.gamma(4.0, size=60)
    clusters = weighted_k_means(points, weights, n_clusters, rng)
    theirs = KMeans(n_clusters, n_init=10, random_state=0).fit(points, sample_weight=weights)
    means = [np.average(points[clusters == c], axis=0, weights=weights[clusters == c]) for c in clusters]
    assert weights @ ((points - means) ** 2).sum(axis=1) <= 1.02 * theirs.inertia_
