"""What went wrong in peers with prediction sets: each test fails with the peer's behaviour.

The peer's behaviour is written down beside ours, so that the test shows that it can tell them apart.
"""

import math

import numpy as np
import pytest

from finetune.domain.conformal import (
    ClassConditionalPredictor,
    ClusteredPredictor,
    ConformalPredictor,
    CoverageLaw,
    conformal_quantile,
    conformal_rank,
)
from finetune.domain.errors import CoverageWarning, InvalidInput

ALPHA = 0.1
N = 20_000


def problem(scale=1.0, n=2 * N, k=10, spread=2.0):
    """Logits of a model that is right up to the scale, and labels."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, spread, size=(n, k))
    p = softmax(logits)
    return logits * scale, (p.cumsum(axis=1) > rng.random((n, 1)) * p.sum(axis=1, keepdims=True)).argmax(
        axis=1
    )


def softmax(logits):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def halves(*arrays):
    return [part for array in arrays for part in (array[:N], array[N:])]


def coverage(sets, labels):
    return sets[np.arange(len(labels)), labels].mean()


def as_promised(predictor, covered, n=N):
    low, high, _ = predictor.law.test_band(n, 0.9999)
    return low <= covered <= high


def cumulative(p, u=1.0):
    """APS scores by argsort, without ties."""
    order = np.argsort(-p, axis=1)
    ordered = np.take_along_axis(p, order, axis=1)
    scores = np.empty_like(p)
    np.put_along_axis(scores, order, ordered.cumsum(axis=1) - ordered * (1.0 - u), axis=1)
    return scores


def test_torch_uncertainty_leaves_the_plus_one_out():
    n, rng = 19, np.random.default_rng(0)
    rank_of_peer = 1 + math.floor(
        (n - 1) * (1 - ALPHA)
    )  # np.quantile(scores, 0.9), between this and the next
    assert CoverageLaw(n, rank_of_peer).expected < 0.86 < CoverageLaw(n, rank_of_peer + 1).expected
    assert CoverageLaw(n, conformal_rank(n, ALPHA)).expected == 0.9
    scores = rng.random((20_000, n + 1))
    peer = (scores[:, n] <= np.quantile(scores[:, :n], 1 - ALPHA, axis=1)).mean()
    ours = np.mean([row[n] <= conformal_quantile(row[:n], ALPHA) for row in scores])
    assert peer == pytest.approx(0.86, abs=0.01)
    assert ours == pytest.approx(0.9, abs=0.01)


def test_np_quantile_takes_the_score_after_the_right_one():
    def rank_of_peer(n):
        level = math.ceil((n + 1) * (1 - ALPHA)) / n
        return 1 + int(np.quantile(np.arange(n), min(level, 1.0), method="higher"))

    sizes = range(20, 2000)
    assert sum(rank_of_peer(n) != conformal_rank(n, ALPHA) for n in sizes) > 100
    scores = np.random.default_rng(1).random(99)
    assert conformal_quantile(scores, ALPHA) == np.sort(scores)[89]


@pytest.mark.parametrize("scale", [40.0, 100.0])
def test_lac_of_rounded_probabilities_gives_everything(scale):
    logits, labels = problem(scale)
    cal, new, y, truth = halves(logits, labels)
    peer = 1 - softmax(cal.astype(np.float32)), 1 - softmax(new.astype(np.float32))
    threshold = conformal_quantile(peer[0][np.arange(N), y], ALPHA)
    ours = ConformalPredictor("lac", inputs="logits").calibrate(cal, y, ALPHA)
    assert (peer[1] <= threshold).sum(axis=1).mean() > 9.9  # of 10
    sets = ours.predict(new)
    assert as_promised(ours, coverage(sets, truth))
    assert sets.sum(axis=1).mean() < 6


@pytest.mark.parametrize("scale", [40.0, 100.0])
@pytest.mark.parametrize("randomized", [False, True])
def test_mapie_aps_drops_labels_of_probability_zero(scale, randomized):
    logits, labels = problem(scale)
    cal, new, y, truth = halves(logits, labels)
    p, q = softmax(cal.astype(np.float32)), softmax(new.astype(np.float32))
    threshold = conformal_quantile(cumulative(p)[np.arange(N), y], ALPHA)
    # The set ends with the first label at which the sum, rounded, reaches the threshold.
    ordered = -np.sort(-q, axis=1)
    last = (ordered.cumsum(axis=1) >= threshold - 1e-8).argmax(axis=1)[:, None]
    peer = q >= np.take_along_axis(ordered, last, axis=1) - 1e-8
    assert coverage(peer, truth) < 0.75
    rng = np.random.default_rng(0)
    for inputs, rows in (("logits", (cal, new)), ("probabilities", (p, q))):
        ours = ConformalPredictor("aps", inputs=inputs, randomized=randomized, rng=rng)
        sets = ours.calibrate(rows[0], y, ALPHA).predict(rows[1])
        assert coverage(sets, truth) > 0.89
        if inputs == "logits":
            assert as_promised(ours, coverage(sets, truth))
            assert not ours.covers_everything


def test_mapie_aps_calibrates_randomised_whatever_prediction_does():
    logits, labels = problem()
    p, q, y, truth = halves(softmax(logits), labels)
    rng = np.random.default_rng(0)
    mixed = conformal_quantile(cumulative(p, rng.random((N, 1)))[np.arange(N), y], ALPHA)
    peer = coverage(cumulative(q) <= mixed, truth)  # predicts without randomisation
    assert peer < 0.89
    for randomized in (False, True):
        ours = ConformalPredictor("aps", randomized=randomized, rng=rng).calibrate(p, y, ALPHA)
        assert not as_promised(ours, peer)
        assert as_promised(ours, coverage(ours.predict(q), truth))


@pytest.mark.parametrize("alpha", [0.1, 0.2])
def test_torchcp_saps_calibrates_with_u_0_and_predicts_with_u_1(alpha):
    logits, labels = problem(spread=8.0)
    p, q, y, truth = halves(softmax(logits), labels)

    def peer_scores(rows, u):
        ranks, best = np.argsort(np.argsort(-rows, axis=1), axis=1) + 1, rows.max(axis=1, keepdims=True)
        return np.where(ranks == 1, u * best, best + (ranks - 2 + u) * 0.2)

    threshold = conformal_quantile(peer_scores(p, 0.0)[np.arange(N), y], alpha)
    peer = coverage(peer_scores(q, 1.0) <= threshold, truth)
    assert peer == 0.0 if alpha == 0.2 else peer < 0.7
    for randomized in (False, True):
        ours = ConformalPredictor("saps", randomized=randomized, rng=np.random.default_rng(0))
        sets = ours.calibrate(p, y, alpha).predict(q)
        low, high, _ = ours.law.test_band(N, 0.9999)
        assert low <= coverage(sets, truth)
        assert coverage(sets, truth) <= high or not randomized  # the likeliest labels tie


def test_torchcp_class_conditional_and_clustered_give_an_unseen_label_a_neighbours_threshold():
    logits, labels = problem(n=4000)
    labels[labels == 9] = 8
    with pytest.warns(CoverageWarning):
        ours = ClassConditionalPredictor(inputs="logits").calibrate(logits, labels, ALPHA)
    with pytest.warns(CoverageWarning):
        clustered = ClusteredPredictor(inputs="logits").calibrate(
            logits, labels, ALPHA, rng=np.random.default_rng(0)
        )
    for predictor in (ours, clustered):
        assert predictor.predict(logits)[:, 9].all()  # with any finite threshold it would be missed somewhere
        assert not predictor.predict(logits)[:, 8].all()


@pytest.mark.parametrize("method", ["lac", "aps", "raps", "saps", "margin", "topk"])
def test_torchcp_takes_nan_logits_and_gives_empty_sets(method):
    logits, labels = problem(n=200)
    bad = logits.copy()
    bad[np.random.default_rng(0).random(200) < 0.3] = np.nan
    with np.errstate(invalid="ignore"):
        assert not (-bad <= np.nan).any()  # what becomes of a comparison with a threshold that is NaN
    with pytest.raises(InvalidInput, match="NaN"):
        ConformalPredictor(method, inputs="logits").calibrate(bad, labels, ALPHA)
    with pytest.raises(InvalidInput, match="NaN"):
        ConformalPredictor(method, inputs="logits").calibrate(logits, labels, ALPHA).predict(bad)


def test_puncc_caps_the_sets_at_the_size_of_the_batch():
    logits, labels = problem(n=2000, k=50)
    predictor = ConformalPredictor("aps", inputs="logits").calibrate(logits, labels, 0.01)
    sizes = predictor.predict(logits).sum(axis=1)
    hard = logits[[sizes.argmax()]]
    assert sizes.max() > 10
    assert predictor.predict(hard).sum() == sizes.max()  # a batch of one row


def test_puncc_adds_one_label_to_deterministic_aps():
    logits, labels = problem()
    p, q, y, truth = halves(softmax(logits), labels)
    ours = ConformalPredictor("aps").calibrate(p, y, ALPHA)
    covered = coverage(ours.predict(q), truth)
    threshold = conformal_quantile(cumulative(p)[np.arange(N), y], ALPHA)
    ordered = np.sort(cumulative(q), axis=1)
    sizes = (ordered <= threshold).sum(axis=1)
    peer = cumulative(q) <= np.take_along_axis(ordered, np.minimum(sizes, 9)[:, None], axis=1)
    assert as_promised(ours, covered)
    assert not as_promised(ours, coverage(peer, truth))
    assert peer.sum(axis=1).mean() > ours.predict(q).sum(axis=1).mean() + 0.5
