"""What went wrong in peers with risks and rates: each test fails with the peer's behaviour.

The peer's behaviour is written down beside ours, so that the test shows that it can tell them apart.
"""

import math

import numpy as np
import pytest

from finetune.domain.risk import group_risks, risk_coverage_curve, wsr_p_value
from finetune.domain.statistics import (
    clopper_pearson_interval,
    largest_difference,
    newcombe_interval,
    newcombe_paired_interval,
    wilson_interval,
)

RUNS = 2000


def limit(probability):
    from scipy.stats import binom

    return binom.ppf(1 - 1e-4, RUNS, probability)


def capital_of_two_batches(losses, level, delta):
    """MAPIE 1.6.0: the maxima of the capital in two batches of rows are multiplied."""
    n = len(losses)
    seen = np.arange(2, n + 2)
    mean = (0.5 + np.cumsum(losses)) / seen
    variance = (0.25 + np.cumsum((losses - mean) ** 2)) / seen
    bets = np.minimum(1, np.sqrt(2 * math.log(1 / delta) / (n * np.append(0.25, variance[:-1]))))
    gains = np.log(1 - bets * (losses - level))
    return np.cumsum(gains[: n // 2]).max() + np.cumsum(gains[n // 2 :]).max()


@pytest.mark.parametrize("n", [100, 500])
def test_betting_keeps_its_level_where_a_product_of_maxima_does_not(n):
    rng, level, delta = np.random.default_rng(n), 0.1, 0.1
    ours = theirs = 0
    for losses in (rng.random((RUNS, n)) < level).astype(float):
        ours += wsr_p_value(losses, level, delta) <= delta
        theirs += capital_of_two_batches(losses, level, delta) > -math.log(delta)
    assert ours <= limit(delta)
    assert 0.18 < theirs / RUNS < 0.28


def test_a_rate_without_cases_is_not_zero_which_would_be_the_best():
    # Fairlearn gives a group without negatives the false-positive rate 0.0.
    assert wilson_interval(0, 0) is None
    assert clopper_pearson_interval(0, 0) is None
    assert newcombe_interval(0, 0, 3, 10) is None
    assert newcombe_paired_interval(0, 0, 0, 0) is None
    silent = group_risks([1, 0], [True, True], [0, 0], 0.1, n_groups=2)[1]
    assert silent.risk is None
    assert silent.upper_bound is None
    found = largest_difference([3, 4, 0], [10, 10, 0])
    assert found.difference == pytest.approx(0.1)
    assert found.not_estimable == (2,)
    assert largest_difference([3, 0], [10, 0]) is None
    assert risk_coverage_curve([1.0, 2.0], [1, 1]).within([0.5]) == (None,)


@pytest.mark.parametrize("groups", [3, 6])
def test_the_largest_difference_of_equal_groups_may_be_zero(groups):
    # Fairlearn bootstraps the greatest minus the smallest rate, which is above 0 in every draw.
    rng, n, level = np.random.default_rng(groups), 200, 0.95
    covered = bootstrapped = 0
    for k in rng.binomial(n, 0.3, size=(400, groups)):
        covered += largest_difference(k, np.full(groups, n), level).interval.low == 0.0
        draws = rng.binomial(n, k / n, size=(200, groups)) / n
        bootstrapped += np.quantile(draws.max(axis=1) - draws.min(axis=1), 0.025) <= 0.0
    assert bootstrapped == 0
    assert covered >= 0.95 * 400 - 4 * math.sqrt(400 * 0.95 * 0.05)


def test_the_largest_difference_is_found_where_there_is_one():
    found = largest_difference([10, 90, 50], [100, 100, 100])
    assert 0.6 < found.interval.low < found.difference < found.interval.high < 1
    assert found.difference == pytest.approx(0.8)
