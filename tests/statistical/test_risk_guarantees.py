"""Bounds on risk, learn-then-test, cost control and groups, tried where the truth is known.

Every hypothesis sits on its boundary where it can.  Each limit is exceeded by a correct program with
probability 1e-4; seeds are fixed.
"""

import numpy as np
import pytest

from finetune.domain.errors import InfeasibleGuarantee
from finetune.domain.risk import (
    binomial_p_value,
    cost_threshold,
    group_risks,
    group_thresholds,
    hoeffding_bentkus_p_value,
    hoeffding_bentkus_upper_bound,
    learn_then_test,
    wsr_p_value,
    wsr_upper_bound,
)
from finetune.domain.statistics import binomial_upper_bound

pytestmark = pytest.mark.slow
RUNS = 2000
LAWS = {
    "zero or one": lambda rng, level, size: (rng.random(size) < level).astype(float),
    "beta": lambda rng, level, size: rng.beta(4 * level, 4 * (1 - level), size),
    "two values": lambda rng, level, size: rng.choice([level / 2, 3 * level / 2], size),
    "rare and great": lambda rng, level, size: (rng.random(size) < 2 * level) / 2,
}


def limit(probability, runs=RUNS):
    from scipy.stats import binom

    return binom.ppf(1 - 1e-4, runs, probability)


@pytest.mark.parametrize("delta", [0.1, 0.02])
@pytest.mark.parametrize("level", [0.05, 0.3])
@pytest.mark.parametrize("n", [30, 200, 1000])
@pytest.mark.parametrize("law", LAWS)
def test_false_rejections_of_each_bound_on_the_boundary(law, n, level, delta):
    rng = np.random.default_rng([n, round(100 * level), round(100 * delta), len(law)])
    rejected = {"hoeffding_bentkus": 0, "wsr": 0, "binomial": 0}
    for losses in LAWS[law](rng, level, (RUNS, n)):
        rejected["wsr"] += wsr_p_value(losses, level, delta) <= delta
        rejected["hoeffding_bentkus"] += hoeffding_bentkus_p_value([losses.sum()], [n], level)[0] <= delta
        if law == "zero or one":
            rejected["binomial"] += binomial_p_value([int(losses.sum())], [n], level)[0] <= delta
    assert max(rejected.values()) <= limit(delta), rejected


@pytest.mark.parametrize("law", LAWS)
def test_upper_bounds_hold(law):
    rng, n, level, tail = np.random.default_rng(len(law)), 300, 0.1, 0.1
    failed = {"hoeffding_bentkus": 0, "wsr": 0, "binomial": 0}
    for losses in LAWS[law](rng, level, (RUNS, n)):
        failed["wsr"] += wsr_upper_bound(losses, tail) < level
        failed["hoeffding_bentkus"] += hoeffding_bentkus_upper_bound(losses.sum(), n, tail) < level
        if law == "zero or one":
            failed["binomial"] += binomial_upper_bound(int(losses.sum()), n, tail) < level
    assert max(failed.values()) <= limit(tail), failed


@pytest.mark.parametrize("bound", ["binomial", "hoeffding_bentkus", "wsr"])
@pytest.mark.parametrize("method", ["fixed_sequence", "fallback", "holm", "bonferroni"])
@pytest.mark.parametrize("dependent", [False, True])
def test_false_rejections_of_learn_then_test(method, bound, dependent):
    # Good candidates first, so that procedures come to the true hypotheses with all they have.
    n, level, delta = 300, 0.1, 0.1
    risks = np.array([0.01, 0.02, 0.02, level, level, level, 0.01, level])
    rng = np.random.default_rng([len(method), len(bound), dependent])
    false = 0
    for _ in range(RUNS):
        draws = rng.random((n, 1 if dependent else len(risks)))
        try:
            found = learn_then_test((draws < risks).astype(float), level, delta, method=method, bound=bound)
        except InfeasibleGuarantee:
            continue
        false += any(risks[j] >= level for j in found.accepted)
    assert false <= limit(delta)


@pytest.mark.parametrize("bound", ["hoeffding_bentkus", "wsr"])
def test_false_rejections_of_several_risks(bound):
    # The second risk is on its boundary for every candidate, the first is low.
    rng, n = np.random.default_rng(len(bound)), 300
    false = 0
    for _ in range(RUNS):
        losses = np.stack([rng.random((n, 3)) < 0.01, rng.random((n, 3)) < 0.1]).astype(float)
        try:
            false += bool(learn_then_test(losses, [0.1, 0.1], 0.1, bound=bound).accepted)
        except InfeasibleGuarantee:
            continue
    assert false <= limit(0.1)


def mean_cost(scores):
    """Share of the greatest cost at each score: up, down and up again; never told to the program."""
    return np.select([scores > 6, scores > 4, scores > 2], [0.15, 0.02, 0.12], 0.3)


@pytest.mark.parametrize("bound", ["hoeffding_bentkus", "wsr"])
@pytest.mark.parametrize("profile", ["adversarial", "boundary"])
def test_cost_control_keeps_the_expected_cost(profile, bound):
    rng, n, level, delta = np.random.default_rng([len(profile), len(bound)]), 800, 1.0, 0.1
    share = mean_cost if profile == "adversarial" else lambda scores: np.full(len(scores), 0.1000001)
    truth = np.sort(np.abs(rng.normal(3, 3, size=400_000)))
    cost_above = 10 * np.cumsum(share(truth)[::-1])[::-1] / np.arange(len(truth), 0, -1)
    false = found_any = 0
    for _ in range(RUNS // 2):
        scores = np.abs(rng.normal(3, 3, size=n))
        spent = 10 * (rng.random(n) < 2 * share(scores)) * rng.random(n)
        try:
            found = cost_threshold(scores, spent, level, delta, max_cost=10.0, bound=bound)
        except InfeasibleGuarantee:
            continue
        found_any += 1
        false += cost_above[min(np.searchsorted(truth, found.threshold), len(truth) - 1)] > level
    assert false <= limit(delta, RUNS // 2)
    assert profile == "boundary" or found_any > 0


@pytest.mark.parametrize("boundary", [False, True])
def test_thresholds_of_groups_hold_at_once(boundary):
    rng, n, level, delta, n_groups = np.random.default_rng(boundary), 1500, 0.1, 0.2, 4

    def error_rate(scores, groups):
        slope = np.array([2.0, 1.0, 0.5, 0.2])[groups]
        return np.full(len(scores), level * 1.001) if boundary else 1 / (1 + np.exp(scores * slope))

    truth = np.sort(np.abs(rng.normal(3, 3, size=200_000)))
    risks = [
        np.cumsum(error_rate(truth, np.full(len(truth), g))[::-1])[::-1] / np.arange(len(truth), 0, -1)
        for g in range(n_groups)
    ]
    false = 0
    for _ in range(RUNS // 2):
        scores, groups = (
            np.abs(rng.normal(3, 3, size=n)),
            rng.choice(n_groups, size=n, p=[0.4, 0.3, 0.2, 0.1]),
        )
        errors = rng.random(n) < error_rate(scores, groups)
        try:
            found = group_thresholds(scores, errors, groups, level, delta, n_groups=n_groups)
        except InfeasibleGuarantee:
            continue
        false += any(
            np.isfinite(t) and risks[g][min(np.searchsorted(truth, t), len(truth) - 1)] > level
            for g, t in enumerate(found.thresholds)
        )
    assert false <= limit(delta, RUNS // 2)


def test_bounds_of_groups_hold_at_once():
    rng, delta = np.random.default_rng(0), 0.1
    rates = np.array([0.02, 0.1, 0.3, 0.5, 0.05])
    failed = 0
    for _ in range(RUNS):
        groups = rng.choice(5, size=400)
        found = group_risks(rng.random(400) < rates[groups], rng.random(400) < 0.8, groups, delta, n_groups=5)
        failed += any(r.upper_bound < rate for r, rate in zip(found, rates, strict=True))
    assert failed <= limit(delta)
