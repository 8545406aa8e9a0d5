"""What went wrong in other packages beyond split prediction: each test fails with the peer's behaviour."""

import numpy as np

from finetune.domain.conformal.weighted import weighted_conformal_quantile

RUNS, N, ALPHA = 2000, 300, 0.1


def acceptance(probability):
    from scipy.stats import binom

    return binom.ppf([5e-5, 1 - 5e-5], RUNS, probability)


def weights_sorted_by_value(scores, weights, test_weight):
    """TorchCP 1.2.1: the weights are sorted on their own, away from their scores."""
    shares = np.append(np.sort(weights), test_weight)
    through = np.cumsum(shares / shares.sum())
    return np.append(np.sort(scores), np.inf)[np.searchsorted(through, 1 - ALPHA)]


def test_torchcp_sorts_the_weights_by_value():
    scores, weights = [3.0, 1.0, 2.0], [1.0, 1.0, 8.0]
    # The heavy row has the middle score: half of the mass lies at it, whatever the test row weighs.
    assert weighted_conformal_quantile(scores, weights, [1.0], 0.5)[0] == 2.0
    assert weights_sorted_by_value(np.array(scores), np.array(weights), 1.0) == 3.0


def test_torchcp_weighted_coverage_is_not_the_one_asked_for():
    # Calibration texts x are uniform, new ones have the density 4 x^3; the score grows with x, so that
    # without weights too few sets hold the true label, and with weights away from their scores too many.
    rng = np.random.default_rng(0)
    covered = peer = unweighted = 0
    for _ in range(RUNS):
        x, new = rng.random(N), rng.random() ** 0.25
        scores = -np.log1p(-rng.random(N)) * (0.5 + x)
        score = -np.log1p(-rng.random()) * (0.5 + new)
        covered += score <= weighted_conformal_quantile(scores, x**3, [new**3], ALPHA)[0]
        peer += score <= weights_sorted_by_value(scores, x**3, new**3)
        unweighted += score <= weighted_conformal_quantile(scores, np.ones(N), [1.0], ALPHA)[0]
    low, _ = acceptance(1 - ALPHA)
    # The coverage is not above 1 - alpha by more than the greatest share of one row, about 4 / n.
    _, high = acceptance(1 - ALPHA + 4 / N)
    assert low <= covered <= high
    assert peer > high
    assert unweighted < low
