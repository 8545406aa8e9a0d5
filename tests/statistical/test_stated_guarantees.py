"""The guarantees, tried on populations whose truth is known, against exact binomial limits.

Each limit is exceeded by a correct program with probability 1e-4; seeds are fixed.
"""

import numpy as np
import pytest

from finetune.domain.conformal import ConformalPredictor, conformal_quantile, conformal_rank
from finetune.domain.errors import InfeasibleGuarantee
from finetune.domain.risk import selective_threshold
from finetune.domain.splits import assign_splits

RUNS = 2000


def acceptance(probability):
    from scipy.stats import binom

    return binom.ppf([5e-5, 1 - 5e-5], RUNS, probability)


def population(rng, n, k=6, scale=1.0):
    """Labels from a law that the model does not know: its logits are sharpened and one label is favoured."""
    logits = rng.normal(0, 1.5, size=(n, k))
    logits[:, 0] += 1.0
    p = np.exp(logits)
    p /= p.sum(axis=1, keepdims=True)
    labels = np.minimum((p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1), k - 1)
    return logits * scale * 1.7, labels


@pytest.mark.parametrize("alpha", [0.3, 0.1])
@pytest.mark.parametrize("n", [9, 30, 100])
@pytest.mark.parametrize(("method", "randomized"), [("lac", False), ("aps", True), ("aps", False)])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_coverage_of_one_new_row(method, randomized, n, alpha, scale):
    rng = np.random.default_rng([n, round(100 * alpha), randomized, int(scale)])
    covered = 0
    for _ in range(RUNS):
        logits, labels = population(rng, n + 1, scale=scale)
        predictor = ConformalPredictor(method, inputs="logits", randomized=randomized, rng=rng)
        sets = predictor.calibrate(logits[:n], labels[:n], alpha).predict(logits[n:])
        covered += sets[0, labels[n]]
    low, high = acceptance(conformal_rank(n, alpha) / (n + 1))
    assert covered >= low
    if method == "lac" or randomized:  # no ties: the law is exact, so too much is as wrong as too little
        assert covered <= high


def smooth(scores):
    return 1 / (1 + np.exp(scores / 2))


def adversarial(scores):
    """Sure and wrong, then right, then wrong: the risk of answering above t goes up and down in t."""
    return np.select([scores > 7, scores > 4, scores > 2], [0.4, 0.02, 0.3], 0.05)


def constant(level):
    """Every hypothesis is true, only just: any rejection at all is false."""
    return lambda scores: np.full(scores.shape, level * 1.001)


@pytest.mark.parametrize("n", [150, 1000])
@pytest.mark.parametrize(
    ("profile", "risk_level"),
    [
        (smooth, 0.1),
        (smooth, 0.2),
        (adversarial, 0.1),
        (adversarial, 0.15),
        (constant(0.1), 0.1),
        (constant(0.3), 0.3),
    ],
)
def test_false_rejections_of_the_selective_threshold(profile, risk_level, n):
    delta = 0.1
    rng = np.random.default_rng([n, round(1000 * risk_level)])
    truth = np.sort(np.abs(rng.normal(3, 3, size=400_000)))
    risk_above = np.cumsum(profile(truth)[::-1])[::-1] / np.arange(len(truth), 0, -1)
    false = 0
    for _ in range(RUNS):
        scores = np.abs(rng.normal(3, 3, size=n))
        try:
            found = selective_threshold(scores, rng.random(n) < profile(scores), risk_level, delta)
        except InfeasibleGuarantee:
            continue
        place = min(np.searchsorted(truth, found.threshold), len(truth) - 1)
        false += risk_above[place] > risk_level
    assert false <= acceptance(delta)[1]


def test_coverage_of_new_rows_where_many_labels_have_one_row():
    # The model knows the labels that it was trained on.  If each label with one row went to training, the
    # calibration rows would hold no unknown label, and the sets of new rows would miss them all.
    alpha, n, new, runs, k = 0.1, 400, 400, 200, 2000
    rng = np.random.default_rng(0)
    zipf = 1 / np.arange(1, k + 1)
    zipf /= zipf.sum()
    texts, fractions = (
        [f"message {i}" for i in range(n)],
        {"train": 0.5, "validation": 0.1, "calibration": 0.4},
    )
    coverage = []
    for seed in range(runs):
        labels = rng.choice(k, p=zipf, size=n + new)
        splits = np.array(assign_splits(texts, [str(label) for label in labels[:n]], fractions, seed))
        trained = np.bincount(labels[:n][splits == "train"], minlength=k)
        scores = -np.log((trained + 1e-6) / (trained + 1e-6).sum()) + 1e-9 * rng.random(k)
        of_calibration = scores[labels[:n][splits == "calibration"]]
        threshold = conformal_quantile(of_calibration, alpha)
        coverage.append(np.mean(scores[labels[n:]] <= threshold))
    assert np.mean(coverage) > 1 - alpha - 4 * np.std(coverage) / np.sqrt(runs)
