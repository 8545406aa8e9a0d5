"""Marginal prediction sets against TorchCP, MAPIE and crepes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmarks.peers import Identity, mapie_classifier, torchcp, torchcp_predictor
from crepes import ConformalClassifier, WrapClassifier
from crepes.extras import hinge, margin
from mapie.conformity_scores import APSConformityScore, LACConformityScore, TopKConformityScore
from problems import Problem, differences_off_the_edge, logits_problem, problem

from finetune.domain.conformal import ConformalPredictor, conformal_rank, conformal_scores

SIZES = [(20, 2), (57, 3), (300, 6), (1000, 40), (250, 100)]
ALPHAS = [0.3, 0.1, 0.05]
TORCHCP = {
    "lac": ("LAC", {}, {}),
    "aps": ("APS", {"randomized": False}, {}),
    "raps": (
        "RAPS",
        {"randomized": False, "penalty": 0.07, "kreg": 2},
        {"penalty": 0.07, "k_reg": 2},
    ),
    "saps": ("SAPS", {"randomized": False, "weight": 0.15}, {"weight": 0.15}),
    "margin": ("Margin", {}, {}),
    "topk": ("TOPK", {"randomized": False}, {}),
}
# A sum of all probabilities is 1 in theirs but for rounding, which decides where the threshold is such a sum.
# Their penalties and weights are single precision.
ROUNDING = {"lac": 0.0, "aps": 1e-12, "raps": 1e-7, "saps": 1e-7, "margin": 0.0, "topk": 0.0}
ADAPTIVE = ("aps", "raps", "saps")


def torchcp_score(method: str):
    """TorchCP's score; without its random numbers, the likeliest label comes first, as in ADR 0011."""
    name, options, _ = TORCHCP[method]
    score = getattr(torchcp().score, name)("identity", **options)
    if method not in ADAPTIVE:
        return score

    def with_the_likeliest_in_every_set(rows, labels=None):
        scores = score(rows)
        scores[rows == rows.max(dim=1, keepdim=True).values] = 0.0
        return scores if labels is None else scores[torch.arange(len(rows)), labels]

    return with_the_likeliest_in_every_set


def torchcp_sets(method: str, given: Problem, alpha: float):
    """Sets, and how far each score is from the threshold."""
    predictor = torchcp_predictor(torchcp_score(method))
    rows, labels = (torch.from_numpy(array.copy()) for array in given.cal)
    predictor.calculate_threshold(rows, labels, alpha)
    new = torch.from_numpy(given.new[0])
    sets, scores = predictor.predict_with_logits(new), predictor.score_function(new)
    return sets.numpy(), (scores - predictor.q_hat).numpy()


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize(("n", "n_labels"), SIZES)
@pytest.mark.parametrize("method", TORCHCP)
def test_sets_are_those_of_torchcp(method, n, n_labels, alpha):
    given = problem(1, n_cal=n, n_labels=n_labels)
    predictor = ConformalPredictor(method, **TORCHCP[method][2]).calibrate(*given.cal, alpha=alpha)
    theirs, distance = torchcp_sets(method, given, alpha)
    ours = predictor.predict(given.new[0])
    assert differences_off_the_edge(ours, theirs, distance, ROUNDING[method]) == 0
    if method not in ADAPTIVE:
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("method", TORCHCP)
def test_in_single_precision_sets_differ_on_the_edge_only(method, alpha):
    given = problem(2, n_cal=2000, n_new=5000, n_labels=20, dtype=np.float32)
    predictor = ConformalPredictor(method, **TORCHCP[method][2]).calibrate(*given.cal, alpha=alpha)
    theirs, distance = torchcp_sets(method, given, alpha)
    ours = predictor.predict(given.new[0])
    assert differences_off_the_edge(ours, theirs, distance, 2e-6) == 0
    assert (ours != theirs.astype(bool)).mean() < 1e-4


def test_sets_with_heavy_ties_are_those_of_torchcp():
    # Sixteenths are exact in binary: sums of them tie without rounding.
    rng = np.random.default_rng(3)
    rows = rng.multinomial(16, [0.5, 0.3, 0.15, 0.05], size=1500) / 16.0
    given = Problem(rows, (rows.cumsum(axis=1) >= rng.random((1500, 1))).argmax(axis=1), 700)
    for method in ("lac", "margin"):
        for alpha in ALPHAS:
            ours = ConformalPredictor(method).calibrate(*given.cal, alpha=alpha).predict(given.new[0])
            assert np.array_equal(ours, torchcp_sets(method, given, alpha)[0])


@pytest.mark.parametrize("method", ADAPTIVE)
def test_randomised_scores_are_those_of_torchcp(method, monkeypatch):
    # Theirs is 1 - u, drawn for each label; here all labels of a row get the same.
    rows = problem(4, n_labels=9).rows
    u = np.random.default_rng(5).random(len(rows))
    theirs_u = torch.from_numpy(1.0 - u)
    monkeypatch.setattr(torch, "rand", lambda shape, device=None: theirs_u[:, None].expand(shape))
    name, options, our_options = TORCHCP[method]
    score = getattr(torchcp().score, name)("identity", **(options | {"randomized": True}))
    ours = conformal_scores(rows, method, u=u, **our_options)
    ours = {"aps": lambda s: -np.expm1(-s), "raps": lambda s: 1.0 + s, "saps": lambda s: s}[method](ours)
    np.testing.assert_allclose(ours, score(torch.from_numpy(rows)).numpy(), rtol=0, atol=ROUNDING[method])


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("n_labels", [3, 12])
def test_randomised_aps_sets_are_those_of_mapie(n_labels, alpha):
    # MAPIE starts the same stream of random numbers in calibration and in prediction; ours takes 1 - u.
    given = problem(6, n_cal=400, n_new=400, n_labels=n_labels)
    classifier = mapie_classifier(APSConformityScore(), n_labels, 1.0 - alpha, seed=7)
    classifier.conformalize(*given.cal)
    theirs = classifier.predict_set(given.new[0], {"include_last_label": "randomized"})[1][:, :, 0]
    u = 1.0 - np.random.RandomState(7).uniform(size=400)
    scores = [
        conformal_scores(rows, "aps", u=np.minimum(u, 1 - 1e-16)) for rows in (given.cal[0], given.new[0])
    ]
    of_labels = np.sort(scores[0][np.arange(400), given.cal[1]])
    threshold = of_labels[conformal_rank(400, alpha) - 1]
    assert differences_off_the_edge(scores[1] <= threshold, theirs, scores[1] - threshold, 1e-6) == 0


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize(("n", "n_labels"), SIZES)
def test_lac_sets_are_those_of_mapie(n, n_labels, alpha):
    given = problem(8, n_cal=n, n_labels=n_labels)
    classifier = mapie_classifier(LACConformityScore(), n_labels, 1.0 - alpha)
    classifier.conformalize(*given.cal)
    theirs = classifier.predict_set(given.new[0])[1][:, :, 0]
    predictor = ConformalPredictor("lac").calibrate(*given.cal, alpha=alpha)
    distance = np.exp(-predictor.threshold) - given.new[0]
    assert differences_off_the_edge(predictor.predict(given.new[0]), theirs, distance, 1e-7) == 0


@pytest.mark.parametrize("alpha", ALPHAS)
def test_top_k_sets_are_those_of_mapie(alpha):
    given = problem(9, n_labels=8)
    classifier = mapie_classifier(TopKConformityScore(), 8, 1.0 - alpha)
    classifier.conformalize(*given.cal)
    theirs = classifier.predict_set(given.new[0])[1][:, :, 0]
    assert np.array_equal(
        ConformalPredictor("topk").calibrate(*given.cal, alpha=alpha).predict(given.new[0]), theirs
    )


@pytest.mark.parametrize(("n", "alpha"), [(100, 0.3), (57, 0.1), (123, 0.05)])
@pytest.mark.parametrize(("method", "score"), [("lac", hinge), ("margin", margin)])
def test_sets_are_those_of_crepes(method, score, n, alpha):
    # (n + 1) alpha is not whole here; see below for where it is.
    given = problem(10, n_cal=n, n_new=200, n_labels=5)
    classifier = WrapClassifier(Identity(5))
    classifier.calibrate(*given.cal, nc=score)
    theirs = classifier.predict_set(given.new[0], labels=False, confidence=1.0 - alpha, smoothing=False)
    ours = ConformalPredictor(method).calibrate(*given.cal, alpha=alpha).predict(given.new[0])
    assert np.array_equal(ours, np.asarray(theirs, dtype=bool))


def test_crepes_keeps_labels_whose_p_value_is_alpha():
    # Vovk et al. (2005) take p > alpha; crepes takes p >= alpha, a rank more, where (n + 1) alpha is whole.
    scores = np.arange(1.0, 16.0)
    labels_at = ConformalClassifier().fit(scores)
    kept = labels_at.predict_set(scores[:, None], confidence=0.75, smoothing=False)[:, 0]
    assert scores[kept.astype(bool)].max() == 13.0
    assert conformal_rank(15, 0.25) == 12


@pytest.mark.parametrize("factor", [1.0, 10.0])
def test_sets_from_logits_are_those_from_probabilities_of_torchcp(factor):
    given = logits_problem(11, sharpness=factor)
    predictor = torchcp_predictor(torchcp().score.LAC("log_softmax"))
    predictor.calculate_threshold(*map(torch.from_numpy, given.cal), 0.1)
    theirs = predictor.predict_with_logits(torch.from_numpy(given.new[0])).numpy().astype(bool)
    ours = ConformalPredictor("lac", inputs="logits").calibrate(*given.cal).predict(given.new[0])
    assert np.array_equal(ours, theirs)
