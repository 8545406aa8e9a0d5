"""Coverage of prediction sets on populations whose truth is known, against exact acceptance regions.

Each limit is exceeded by a correct program with probability 1e-4 or less; seeds are fixed.
"""

import warnings

import numpy as np
import pytest

from finetune.domain.conformal import (
    METHODS,
    ClassConditionalPredictor,
    ClusteredPredictor,
    ConformalPredictor,
    CoverageLaw,
    GroupConditionalPredictor,
    conformal_rank,
)
from finetune.domain.errors import CoverageWarning

RUNS = 1000
RANDOMISABLE = ("aps", "raps", "saps")
FORMS = [(method, False) for method in METHODS] + [(method, True) for method in RANDOMISABLE]
# Scores of these have no ties here, so too much is as wrong as too little.
EXACT = {("lac", False), ("margin", False), *((method, True) for method in RANDOMISABLE)}


def acceptance(probability, runs=RUNS):
    from scipy.stats import binom

    return binom.ppf([5e-5, 1 - 5e-5], runs, probability)


def population(rng, n, k=6, scale=1.0):
    """Labels from a law that the model does not know: its logits are sharpened and one label is favoured."""
    logits = rng.normal(0, 1.5, size=(n, k))
    logits[:, 0] += 1.0
    return logits * scale * 1.7, labels_of(rng, softmax(logits))


def softmax(logits):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def labels_of(rng, p):
    return np.minimum((p.cumsum(axis=1) < rng.random((len(p), 1))).sum(axis=1), p.shape[1] - 1)


def count_covered(draw, method, randomized, n, alpha, inputs, runs=RUNS, exact=None):
    """Cover one new row in each of many runs, and compare with the expected coverage k / (n + 1)."""
    rng = np.random.default_rng([n, round(1000 * alpha), randomized, METHODS.index(method)])
    covered = 0
    for _ in range(runs):
        rows, labels = draw(rng, n + 1)
        predictor = ConformalPredictor(method, inputs=inputs, randomized=randomized, rng=rng)
        sets = predictor.calibrate(rows[:n], labels[:n], alpha).predict(rows[n:])
        covered += sets[0, labels[n]]
    low, high = acceptance(conformal_rank(n, alpha) / (n + 1), runs)
    assert covered >= low
    if ((method, randomized) in EXACT) if exact is None else exact:
        assert covered <= high


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.3, 0.1, 0.01])
@pytest.mark.parametrize("n", [9, 30, 100, 1000])
@pytest.mark.parametrize(("method", "randomized"), FORMS)
def test_marginal_coverage(method, randomized, n, alpha):
    count_covered(population, method, randomized, n, alpha, "logits")


@pytest.mark.parametrize("alpha", [0.3, 0.1])
@pytest.mark.parametrize(("method", "randomized"), [form for form in FORMS if form[0] not in ("lac", "aps")])
def test_marginal_coverage_of_thirty_rows(method, randomized, alpha):
    count_covered(population, method, randomized, 30, alpha, "logits", runs=400)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [40.0, 100.0])
@pytest.mark.parametrize(("method", "randomized"), FORMS)
@pytest.mark.parametrize("inputs", ["logits", "probabilities"])
def test_coverage_of_saturated_models(method, randomized, scale, inputs):
    def draw(rng, n):
        logits, labels = population(rng, n, scale=scale)
        return (logits if inputs == "logits" else softmax(logits).astype(np.float32)), labels

    # Where logits stay logits, LAC and APS tell all labels apart; what was rounded to 0 ties.
    exact = inputs == "logits" and (method, randomized) in {("lac", False), ("aps", True)}
    count_covered(draw, method, randomized, 100, 0.1, inputs, exact=exact)


@pytest.mark.slow
@pytest.mark.parametrize("k", [2, 1000])
@pytest.mark.parametrize(("method", "randomized"), FORMS)
def test_coverage_with_two_labels_and_with_a_thousand(method, randomized, k):
    count_covered(lambda rng, n: population(rng, n, k=k), method, randomized, 30, 0.1, "logits", runs=500)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "randomized"), FORMS)
def test_coverage_where_nearly_all_probabilities_tie(method, randomized):
    def draw(rng, n):
        p = rng.integers(1, 3, size=(n, 6)).astype(float)
        p /= p.sum(axis=1, keepdims=True)
        return p, labels_of(rng, p)

    # u makes the masses of groups continuous.
    count_covered(
        draw, method, randomized, 30, 0.1, "probabilities", exact=(method, randomized) == ("aps", True)
    )


@pytest.mark.slow
@pytest.mark.parametrize("error", [0.05, 0.3])
@pytest.mark.parametrize(("method", "randomized"), FORMS)
def test_coverage_of_one_hot_rows(method, randomized, error):
    def draw(rng, n):
        labels = rng.integers(0, 5, n)
        said = np.where(rng.random(n) < error, rng.integers(0, 5, n), labels)
        return np.eye(5, dtype=np.float32)[said], labels

    count_covered(draw, method, randomized, 50, 0.1, "probabilities", exact=False)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "randomized"), sorted(EXACT))
def test_the_coverage_of_a_calibration_set_has_the_stated_law(method, randomized):
    from scipy.stats import betabinom

    n, m, alpha = 50, 400, 0.1
    rng = np.random.default_rng(7)
    covered = []
    for _ in range(RUNS):
        logits, labels = population(rng, n + m)
        predictor = ConformalPredictor(method, inputs="logits", randomized=randomized, rng=rng)
        sets = predictor.calibrate(logits[:n], labels[:n], alpha).predict(logits[n:])
        covered.append(sets[np.arange(m), labels[n:]].sum())
    law = betabinom(m, predictor.rank, n + 1 - predictor.rank)
    for level in (0.05, 0.25, 0.5, 0.75, 0.95):
        at = law.ppf(level)
        low, high = acceptance(law.cdf(at))
        assert low <= np.sum(np.array(covered) <= at) <= high


SIZES = [9, 30, 100]


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.3, 0.1, 0.01])
@pytest.mark.parametrize(("method", "randomized"), FORMS)
def test_each_label_is_covered(method, randomized, alpha):
    """Frequent labels are easy here, so that marginal sets would miss the rare ones."""
    rng = np.random.default_rng([round(1000 * alpha), METHODS.index(method)])
    labels = np.repeat(np.arange(3), np.array(SIZES) + 1)
    new = np.cumsum(np.array(SIZES) + 1) - 1
    covered = np.zeros(3)
    for _ in range(RUNS):
        logits = (
            rng.normal(size=(len(labels), 3)) + np.array([0.0, 1.0, 3.0])[labels, None] * np.eye(3)[labels]
        )
        predictor = ClassConditionalPredictor(method, inputs="logits", randomized=randomized, rng=rng)
        predictor.calibrate(np.delete(logits, new, axis=0), np.delete(labels, new), alpha)
        covered += predictor.predict(logits[new])[np.arange(3), np.arange(3)]
    for count, n in zip(covered, SIZES, strict=True):
        low, high = acceptance(conformal_rank(n, alpha) / (n + 1))
        assert count >= low
        assert count <= high or (method, randomized) not in EXACT


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.3, 0.1, 0.01])
@pytest.mark.parametrize(("method", "randomized"), FORMS)
def test_each_group_is_covered(method, randomized, alpha):
    rng = np.random.default_rng([round(1000 * alpha), METHODS.index(method)])
    groups = np.repeat(["hard", "middling", "simple"], np.array(SIZES) + 1)
    strength = np.repeat([0.0, 1.0, 3.0], np.array(SIZES) + 1)
    new = np.cumsum(np.array(SIZES) + 1) - 1
    covered = np.zeros(3)
    for _ in range(RUNS):
        labels = rng.integers(0, 4, len(groups))
        logits = rng.normal(size=(len(labels), 4)) + strength[:, None] * np.eye(4)[labels]
        predictor = GroupConditionalPredictor(method, inputs="logits", randomized=randomized, rng=rng)
        predictor.calibrate(
            np.delete(logits, new, axis=0), np.delete(labels, new), np.delete(groups, new), alpha
        )
        covered += predictor.predict(logits[new], groups[new])[np.arange(3), labels[new]]
    for count, n in zip(covered, SIZES, strict=True):
        low, high = acceptance(conformal_rank(n, alpha) / (n + 1))
        assert count >= low
        assert count <= high or (method, randomized) not in EXACT


def test_marginal_sets_do_not_cover_each_group():
    # What the tests above would see if thresholds were shared.
    rng = np.random.default_rng(0)
    hard = rng.random(20_000) < 0.2
    labels = rng.integers(0, 4, 20_000)
    logits = rng.normal(size=(20_000, 4)) + np.where(hard, 0.0, 3.0)[:, None] * np.eye(4)[labels]
    predictor = ConformalPredictor(inputs="logits").calibrate(logits[:10_000], labels[:10_000])
    inside = predictor.predict(logits[10_000:])[np.arange(10_000), labels[10_000:]]
    assert inside[hard[10_000:]].mean() < 0.8


@pytest.mark.slow
@pytest.mark.parametrize(("method", "randomized"), [("lac", False), ("aps", True), ("saps", False)])
def test_each_cluster_is_covered(method, randomized):
    rng = np.random.default_rng(METHODS.index(method))
    k, alpha, inside, total = 12, 0.1, 0, 0
    frequency = np.array([1.0] * 8 + [0.3] * 4)
    for _ in range(RUNS):
        labels = rng.choice(k, p=frequency / frequency.sum(), size=601)
        logits = rng.normal(size=(601, k)) + np.where(labels % 2, 0.5, 3.0)[:, None] * np.eye(k)[labels]
        predictor = ClusteredPredictor(
            method, inputs="logits", randomized=randomized, rng=rng, n_clusters=3, clustering_fraction=0.4
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CoverageWarning)
            predictor.calibrate(logits[:600], labels[:600], alpha, rng=rng)
        if isinstance(predictor.clusters[labels[600]], int):
            total += 1
            inside += predictor.predict(logits[600:])[0, labels[600]]
    assert total > 0.8 * RUNS
    assert inside >= acceptance(1 - alpha, total)[0]


@pytest.mark.parametrize("alpha", [0.3, 0.1, 0.01])
def test_below_the_fewest_rows_everything_is_covered(alpha):
    rng = np.random.default_rng(0)
    n = int(1 / alpha) - 1
    for size in {max(1, n - 1), 1}:
        if conformal_rank(size, alpha) > size:
            logits, labels = population(rng, size + 5)
            predictor = ConformalPredictor(inputs="logits").calibrate(logits[:size], labels[:size], alpha)
            assert predictor.predict(logits).all()
            assert predictor.law == CoverageLaw(size, size + 1)
