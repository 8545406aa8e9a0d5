"""Risk control, multiple tests, intervals and areas against MAPIE, statsmodels, scipy and others."""

from __future__ import annotations

import calibration as uncertainty_calibration
import numpy as np
import pytest
from mapie.risk_control.fwer_control import control_fwer
from mapie.risk_control.methods import (
    compute_hoeffding_bentkus_p_value,
    find_best_predict_param,
    get_r_hat_plus,
)
from scipy import stats
from scipy.special import rel_entr
from sklearn.metrics import roc_auc_score
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from finetune.domain.conformal.risk_control import conformal_risk_control
from finetune.domain.errors import InfeasibleGuarantee
from finetune.domain.risk import (
    binomial_p_value,
    hoeffding_bentkus_p_value,
    learn_then_test,
    risk_coverage_curve,
)
from finetune.domain.statistics.differences import newcombe_interval
from finetune.domain.statistics.intervals import clopper_pearson_interval, wilson_interval
from finetune.domain.statistics.multiplicity import adjusted_p_values, fixed_sequence, rejections

LEVELS = [0.01, 0.1, 0.35]


def falling_losses(seed: int, n: int, m: int = 60):
    """Losses of n rows over a grid, in [0, 1], none of which rises."""
    rng = np.random.default_rng([seed, n])
    grid = np.linspace(0.0, 1.0, m)
    return np.clip(rng.random((n, 1)) * 1.5 - grid, 0.0, 1.0), grid


@pytest.mark.parametrize("alpha", LEVELS)
@pytest.mark.parametrize("n", [30, 333])
def test_conformal_risk_control_is_that_of_mapie(n, alpha):
    losses, grid = falling_losses(0, n)
    risk, adjusted = get_r_hat_plus(losses, grid, "crc", None, None, 0.25)
    try:
        ours = conformal_risk_control(losses, grid, alpha)
    except InfeasibleGuarantee:
        assert adjusted.min() > alpha
        return
    assert ours.lambda_ == find_best_predict_param(grid, adjusted, np.array([alpha]))[0]
    place = int(np.flatnonzero(grid == ours.lambda_)[0])
    assert ours.adjusted_risk == pytest.approx(adjusted[place], abs=1e-14)
    assert ours.risk == pytest.approx(risk[place], abs=1e-14)


def test_mapie_returns_a_parameter_where_none_will_do():
    # With a warning that the risk cannot be controlled; ours raises, with the rows that would be needed.
    losses, grid = falling_losses(1, 5)
    adjusted = get_r_hat_plus(losses, grid, "crc", None, None, 0.25)[1]
    assert find_best_predict_param(grid, adjusted, np.array([0.1]))[0] == grid[-1]
    with pytest.raises(InfeasibleGuarantee) as caught:
        conformal_risk_control(losses, grid, 0.1)
    assert caught.value.needed == 9


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("n", [10, 250, 4999])
def test_hoeffding_bentkus_is_that_of_mapie(n, level):
    means = np.random.default_rng(n).random(40) * level * 1.5
    theirs = compute_hoeffding_bentkus_p_value(means, n, level)[:, 0]
    totals, trials = means * n, np.full(40, n)
    np.testing.assert_allclose(
        hoeffding_bentkus_p_value(totals, trials, level), np.minimum(theirs, 1), rtol=1e-9
    )


def test_mapie_loses_counts_that_it_divides_and_multiplies_again():
    # The ceiling of n (k / n) is k + 1 for these k, and so the p-value is that of one error more.
    n = 4999
    k = np.arange(n + 1)
    off = np.ceil(n * (k / n)) != k
    assert off.sum() == 277
    lost = k[off & (k < 0.08 * n)]
    theirs = compute_hoeffding_bentkus_p_value(lost / n, n, 0.1)[:, 0]
    hoeffding = np.exp(-n * (rel_entr(lost / n, 0.1) + rel_entr(1 - lost / n, 0.9)))
    exact = np.minimum(np.e * stats.binom.cdf(lost, n, 0.1), hoeffding)
    ours = hoeffding_bentkus_p_value(lost, np.full(len(lost), n), 0.1)
    np.testing.assert_allclose(ours, exact, rtol=1e-9)
    assert (theirs > 1.02 * ours).any()


@pytest.mark.parametrize("level", LEVELS)
def test_binomial_p_values_are_those_of_scipy(level):
    n = np.repeat([1, 20, 1000, 100_000], 30)
    k = np.floor(n * np.tile(np.linspace(0.0, 1.0, 30), 4)).astype(int)
    np.testing.assert_allclose(binomial_p_value(k, n, level), stats.binom.cdf(k, n, level), rtol=1e-9)


ADJUSTMENTS = [
    ("bonferroni", "bonferroni"),
    ("sidak", "sidak"),
    ("holm", "holm"),
    ("hochberg", "simes-hochberg"),
    ("benjamini_hochberg", "fdr_bh"),
    ("benjamini_yekutieli", "fdr_by"),
]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("ours", "theirs"), ADJUSTMENTS)
def test_adjusted_p_values_are_those_of_statsmodels(ours, theirs, seed):
    rng = np.random.default_rng(seed)
    p = rng.random(25) ** 3
    p[rng.integers(25, size=5)] = p[0]
    np.testing.assert_allclose(adjusted_p_values(p, ours), multipletests(p, method=theirs)[1], rtol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_rejections_are_those_of_mapie(seed):
    p = np.random.default_rng(seed).random(30) ** 4
    for ours, theirs in (("holm", "bonferroni_holm"), ("bonferroni", "bonferroni")):
        assert np.flatnonzero(rejections(p, 0.1, ours)).tolist() == control_fwer(p, 0.1, theirs).tolist()
    in_order = np.sort(p)
    ours = np.flatnonzero(fixed_sequence(in_order, 0.1).rejected).tolist()
    assert ours == control_fwer(in_order, 0.1, "fixed_sequence").tolist()


@pytest.mark.parametrize(("method", "theirs"), [("holm", "bonferroni_holm"), ("bonferroni", "bonferroni")])
def test_learn_then_test_accepts_what_mapie_accepts(method, theirs):
    losses, _ = falling_losses(2, 400, m=25)
    p = compute_hoeffding_bentkus_p_value(losses.mean(axis=0), 400, 0.2)[:, 0]
    accepted = control_fwer(p, 0.1, theirs)
    ours = learn_then_test(losses, 0.2, 0.1, method=method, bound="hoeffding_bentkus")
    assert list(ours.accepted) == accepted.tolist()
    assert 0 < len(accepted) < 25


@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
@pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 50), (3, 7), (50, 50), (120, 1000), (99_999, 100_000)])
def test_intervals_are_those_of_statsmodels_and_scipy(k, n, level):
    wilson = proportion_confint(k, n, 1.0 - level, "wilson")
    assert wilson_interval(k, n, level)[:2] == pytest.approx(wilson, abs=1e-12)
    exact = proportion_confint(k, n, 1.0 - level, "beta")
    assert clopper_pearson_interval(k, n, level)[:2] == pytest.approx(exact, abs=1e-12)
    scipy_exact = stats.binomtest(k, n).proportion_ci(level, "exact")
    assert clopper_pearson_interval(k, n, level)[:2] == pytest.approx(tuple(scipy_exact), abs=1e-9)


@pytest.mark.parametrize("counts", [(5, 20, 9, 31), (0, 12, 3, 15), (40, 40, 30, 45)])
def test_newcombe_interval_is_that_of_statsmodels(counts):
    theirs = confint_proportions_2indep(*counts, method="newcomb", compare="diff", alpha=0.05)
    assert newcombe_interval(*counts)[:2] == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_areas_of_the_risk_coverage_curve(seed):
    rng = np.random.default_rng(seed)
    confidence = rng.random(400)
    wrong = rng.random(400) < 0.6 * (1.0 - confidence)
    curve = risk_coverage_curve(confidence, wrong)
    mean_accuracy = uncertainty_calibration.utils.get_selective_stats(confidence, ~wrong)[0]
    assert curve.aurc == pytest.approx(1.0 - mean_accuracy, abs=1e-12)
    prefix = np.cumsum(wrong[np.argsort(-confidence)]) / np.arange(1, 401)
    assert curve.aurc == pytest.approx(prefix.mean(), abs=1e-12)
    rate = wrong.mean()
    assert curve.e_aurc == pytest.approx(prefix.mean() - rate - (1 - rate) * np.log1p(-rate), abs=1e-12)
    # Traub et al. (2024), eq. 7, by way of scikit-learn's area under the ROC curve.
    area = roc_auc_score(~wrong, confidence)
    assert curve.augrc == pytest.approx(rate * (1 - rate) * (1 - area) + rate**2 / 2, abs=1e-12)
