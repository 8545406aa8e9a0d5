"""Where a peer goes wrong and ours does not, as seen with the pinned releases.

Other defects stand beside the comparisons that they are exceptions to.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmarks.peers import mapie_classifier, torchcp, torchcp_predictor
from fairlearn.metrics import MetricFrame, false_positive_rate
from mapie.conformity_scores import APSConformityScore
from mapie.metrics.calibration import expected_calibration_error
from mapie.risk_control.methods import find_best_predict_param, get_r_hat_plus
from netcal.metrics import ECE
from problems import Problem, logits_problem, problem, softmax
from scipy import stats
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.functional.classification import binary_calibration_error

from finetune.domain.calibration import compute_ece
from finetune.domain.calibration.maps import fit_temperature
from finetune.domain.conformal import ConformalPredictor, CoverageLaw
from finetune.domain.errors import InfeasibleGuarantee, InvalidInput
from finetune.domain.risk import learn_then_test
from finetune.domain.statistics.intervals import wilson_interval

N = 3000
# Probability with which a correct program leaves an acceptance region.
CHANCE = 1e-6


def calibrated(seed: int, n_labels: int, scale: float) -> Problem:
    """Logits whose softmax is the law of the labels."""
    rng = np.random.default_rng([seed, n_labels])
    logits = scale * rng.normal(size=(2 * N, n_labels))
    labels = (softmax(logits).cumsum(axis=1) > rng.random((2 * N, 1))).argmax(axis=1)
    return Problem(logits, labels, N)


def coverage(sets, given: Problem) -> float:
    return float(np.asarray(sets)[np.arange(N), given.new[1]].mean())


def assert_covers(predictor: ConformalPredictor, given: Problem, *, exactly: bool = True) -> None:
    covered = coverage(predictor.predict(given.new[0]), given)
    band = CoverageLaw(N, predictor.rank).test_band(N, 1.0 - CHANCE)
    assert band.low <= covered
    assert covered <= band.high or not exactly


def mapie_aps_sets(probabilities: Problem, include_last_label):
    classifier = mapie_classifier(APSConformityScore(), probabilities.rows.shape[1], 0.9)
    classifier.conformalize(*probabilities.cal)
    return classifier.predict_set(probabilities.new[0], {"include_last_label": include_last_label})[1][
        :, :, 0
    ]


@pytest.mark.parametrize("factor", [40.0, 100.0])
def test_mapie_drops_labels_of_probability_zero(factor):
    given = calibrated(0, 20, 1.0)
    given = given._replace(rows=factor * given.rows)
    sets = mapie_aps_sets(given._replace(rows=softmax(given.rows)), "randomized")
    assert coverage(sets, given) < 0.7
    for method in ("aps", "lac"):
        assert_covers(ConformalPredictor(method, inputs="logits").calibrate(*given.cal), given)


def test_mapie_calibrates_at_random_whatever_it_predicts_with():
    given = calibrated(1, 5, 2.0)
    probabilities = given._replace(rows=softmax(given.rows))
    covered = [coverage(mapie_aps_sets(probabilities, last), given) for last in ("randomized", True, False)]
    assert abs(covered[0] - 0.9) < 0.03
    assert covered[1] > 0.93
    assert covered[2] < 0.85
    rng = np.random.default_rng(1)
    assert_covers(ConformalPredictor("aps").calibrate(*probabilities.cal), probabilities)
    randomised = ConformalPredictor("aps", randomized=True, rng=rng).calibrate(*probabilities.cal)
    assert_covers(randomised, probabilities)


def test_mapie_rejects_too_often_with_its_betting_bound():
    # The risk at lambda is 1 - lambda; a choice is wrong if that is above alpha.  Allowed: delta = 10 %.
    runs, n, alpha, delta = 80, 60, 0.2, 0.1
    lambdas = np.linspace(0.0, 1.0, 101)
    wrong = {"MAPIE": 0, "ours": 0}
    for seed in range(runs):
        losses = (np.random.default_rng(seed).random((n, 1)) < 1.0 - lambdas).astype(float)
        adjusted = get_r_hat_plus(losses, lambdas, "rcps", "wsr", delta, 0.25)[1]
        chosen = find_best_predict_param(lambdas, adjusted, np.array([alpha]))[0]
        wrong["MAPIE"] += 1.0 - chosen > alpha + 1e-9
        try:
            accepted = learn_then_test(losses[:, ::-1], alpha, delta, bound="wsr").accepted
        except InfeasibleGuarantee:
            continue
        wrong["ours"] += (1.0 - lambdas[::-1][list(accepted)] > alpha + 1e-9).any()
    limit = stats.binom(runs, delta).ppf(1.0 - CHANCE)
    assert wrong["ours"] <= limit < wrong["MAPIE"]


@pytest.mark.parametrize("alpha", [0.1, 0.2])
def test_torchcp_scores_the_likeliest_label_in_two_ways(alpha):
    # SAPS without random numbers: 0 in calibration, its probability in prediction.
    given = calibrated(2, 10, 6.0)
    given = given._replace(rows=softmax(given.rows))
    predictor = torchcp_predictor(torchcp().score.SAPS("identity", randomized=False))
    predictor.calculate_threshold(*map(torch.from_numpy, given.cal), alpha)
    assert coverage(predictor.predict_with_logits(torch.from_numpy(given.new[0])), given) < 0.5
    assert_covers(ConformalPredictor("saps").calibrate(*given.cal, alpha=alpha), given, exactly=False)


def test_torchcp_cannot_tell_the_labels_of_a_saturated_softmax_apart():
    given = calibrated(3, 20, 1.0)
    given = given._replace(rows=40.0 * given.rows)
    predictor = torchcp_predictor(torchcp().score.LAC("softmax"))
    predictor.calculate_threshold(*map(torch.from_numpy, given.cal), 0.1)
    assert predictor.predict_with_logits(torch.from_numpy(given.new[0])).numpy().all()
    ours = ConformalPredictor("lac", inputs="logits").calibrate(*given.cal)
    assert_covers(ours, given)
    assert ours.predict(given.new[0]).sum(axis=1).mean() < 15


def test_torchcp_gives_empty_sets_for_nan():
    given = logits_problem(4)
    rows = np.where(np.random.default_rng(4).random(given.rows.shape) < 0.3, np.nan, given.rows)
    predictor = torchcp_predictor(torchcp().score.APS("softmax", randomized=False))
    predictor.calculate_threshold(torch.from_numpy(rows[:300]), torch.from_numpy(given.cal[1]), 0.1)
    assert not predictor.predict_with_logits(torch.from_numpy(rows[300:])).any()
    with pytest.raises(InvalidInput, match=r"cal_probs\[0\]"):
        ConformalPredictor("aps", inputs="logits").calibrate(rows[:300], given.cal[1])


def test_torchcp_stops_before_the_best_temperature():
    torchcp()
    from torchcp.classification.trainer import TSTrainer

    logits, labels = logits_problem(5, n_cal=2000, n_labels=10, sharpness=2.5).cal

    class Given(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.anchor = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return x

    rows = TensorDataset(torch.from_numpy(logits).float(), torch.from_numpy(labels))
    theirs = TSTrainer(Given(), 1.0, verbose=False).train(DataLoader(rows, batch_size=500)).temperature.item()
    ours = fit_temperature(logits, labels).value
    assert theirs < 0.8 * ours

    def loss(temperature: float) -> float:
        scaled = torch.from_numpy(logits) / temperature
        return float(torch.nn.functional.cross_entropy(scaled, torch.from_numpy(labels)))

    assert loss(ours) < loss(theirs) - 0.01
    assert loss(ours) < min(loss(0.999 * ours), loss(1.001 * ours))


def test_torchmetrics_has_a_bin_for_confidence_one_alone():
    p, happened = [1.0, 0.95], [0, 1]
    theirs = float(binary_calibration_error(torch.tensor(p), torch.tensor(happened), 10))
    assert theirs == pytest.approx(0.525)
    assert compute_ece(p, happened, 10) == pytest.approx(0.475)


def test_netcal_wants_more_than_two_labels_to_occur():
    rows, labels = problem(6, n_labels=5).cal
    labels = np.where(labels > 1, 0, labels)
    with pytest.raises(RuntimeError):
        ECE(10).measure(rows, labels)
    hits = rows.argmax(axis=1) == labels
    assert compute_ece(rows, labels, 10) == pytest.approx(compute_ece(rows.max(axis=1), hits, 10))


def test_netcal_measures_the_second_of_two_labels():
    rows, labels = problem(9, n_labels=2).cal
    of_the_second, of_the_likeliest = compute_ece(rows[:, 1], labels, 10), compute_ece(rows, labels, 10)
    assert ECE(10).measure(rows, labels) == pytest.approx(of_the_second)
    assert abs(of_the_second - of_the_likeliest) > 1e-3


@pytest.mark.parametrize("n_bins", [8, 12])
def test_mapie_makes_one_bin_less_than_asked_for(n_bins):
    rows, labels = problem(8).cal
    hits = (rows.argmax(axis=1) == labels).astype(int)
    theirs = expected_calibration_error(hits, rows, num_bins=n_bins, split_strategy="uniform")
    assert theirs == pytest.approx(compute_ece(rows, labels, n_bins - 1))
    assert theirs != pytest.approx(compute_ece(rows, labels, n_bins))


def test_fairlearn_reports_the_best_rate_where_there_is_none():
    truth, predicted, groups = [1, 1, 0, 0], [1, 0, 1, 0], ["a", "a", "b", "b"]
    frame = MetricFrame(
        metrics=false_positive_rate, y_true=truth, y_pred=predicted, sensitive_features=groups
    )
    assert frame.by_group.to_dict() == {"a": 0.0, "b": 0.5}
    assert wilson_interval(0, 0) is None
