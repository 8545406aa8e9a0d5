"""Weighted sets under covariate shift: the rule written plainly, and TorchCP's weights sorted by value."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmarks.peers import torchcp, torchcp_predictor
from problems import softmax
from scipy import stats
from torch.utils.data import DataLoader, TensorDataset

from finetune.domain.conformal import ConformalPredictor, conformal_scores
from finetune.domain.conformal.weighted import weighted_conformal_quantile
from finetune.domain.conformal.weighted_predictor import WeightedConformalPredictor

N_LABELS = 4


class Columns(torch.nn.Module):
    """A model, or an encoder, that picks columns of its input."""

    def __init__(self, *columns: int | None) -> None:
        super().__init__()
        self.columns = slice(*columns)
        self.anchor = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, x):
        return x[:, self.columns]


class Domains(torch.nn.Module):
    """A domain classifier that knows the weight: the ratio of its two probabilities."""

    def forward(self, w):
        return torch.cat([1.0 / (1.0 + w), w / (1.0 + w)], dim=1)


def shifted(seed: int, n: int, *, new: bool):
    """Probabilities, labels and weights 2 x: new rows have more of the hard cases, where x is near 1."""
    rng = np.random.default_rng([seed, new])
    x = np.sqrt(rng.random(n)) if new else rng.random(n)
    rows = softmax(rng.normal(size=(n, N_LABELS)) * (4.0 - 3.5 * x[:, None]))
    labels = (rows.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return rows, labels, 2.0 * x


def torchcp_coverage(cal, new, alpha: float) -> float:
    def loader(rows, labels, weights):
        x = torch.from_numpy(np.column_stack([np.log(rows), weights]))
        return DataLoader(TensorDataset(x, torch.from_numpy(labels)), batch_size=len(rows))

    predictor = torchcp_predictor(
        torchcp().score.LAC(),
        "WeightedPredictor",
        model=Columns(None, N_LABELS),
        image_encoder=Columns(N_LABELS, None),
        domain_classifier=Domains(),
    )
    predictor.calibrate(loader(*cal), alpha)
    return predictor.evaluate(loader(*new))["coverage_rate"]


@pytest.mark.parametrize("alpha", [0.1, 0.2])
def test_weights_of_torchcp_part_from_their_scores_and_cover_too_much(alpha):
    cal, new = shifted(0, 4000, new=False), shifted(0, 3000, new=True)
    predictor = WeightedConformalPredictor("lac").calibrate(*cal, alpha=alpha)
    covered = predictor.predict(new[0], new[2])[np.arange(3000), new[1]].sum()
    # About the law of as many rows as the effective sample size; 1e-6 on either side.
    n = int(predictor.effective_sample_size)
    law = stats.betabinom(3000, (n + 1) * (1 - alpha), (n + 1) * alpha)
    assert law.ppf(1e-6) <= covered <= law.ppf(1 - 1e-6)
    assert 3000 * torchcp_coverage(cal, new, alpha) > law.ppf(1 - 1e-6)


def test_with_equal_weights_torchcp_and_ours_are_split_prediction():
    cal, new = shifted(1, 500, new=False), shifted(1, 2000, new=True)
    cal, new = (*cal[:2], np.ones(500)), (*new[:2], np.ones(2000))
    sets = WeightedConformalPredictor("lac").calibrate(*cal, alpha=0.1).predict(new[0], new[2])
    assert np.array_equal(sets, ConformalPredictor("lac").calibrate(*cal[:2], alpha=0.1).predict(new[0]))
    ours = sets[np.arange(2000), new[1]].mean()
    assert torchcp_coverage(cal, new, 0.1) == pytest.approx(ours, abs=1e-3)


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("n", [1, 10, 200])
def test_quantile_is_that_of_the_definition(n, alpha):
    # Tibshirani et al. (2019), lemma 3: the level 1 - alpha quantile of the weighted scores and of +inf.
    rng = np.random.default_rng([2, n])
    scores, weights, test_weights = (
        rng.integers(0, 30, size=n) / 4.0,
        rng.gamma(1.0, size=n),
        rng.gamma(1.0, size=20),
    )
    for ours, test_weight in zip(
        weighted_conformal_quantile(scores, weights, test_weights, alpha), test_weights, strict=True
    ):
        share = weights / (weights.sum() + test_weight)
        enough = [s for s in np.sort(scores) if share[scores <= s].sum() >= 1.0 - alpha]
        assert ours == (enough[0] if enough else np.inf)


def test_scores_are_those_of_the_split_predictor():
    cal, new = shifted(3, 300, new=False), shifted(3, 100, new=True)
    predictor = WeightedConformalPredictor("aps").calibrate(*cal, alpha=0.1)
    scores = conformal_scores(cal[0], "aps")[np.arange(300), cal[1]]
    thresholds = weighted_conformal_quantile(scores, cal[2], new[2], 0.1)
    assert np.array_equal(
        predictor.predict(new[0], new[2]), conformal_scores(new[0], "aps") <= thresholds[:, None]
    )
