"""Measures of calibration against the packages that have them too, and scikit-learn's scores."""

from __future__ import annotations

import calibration as uncertainty_calibration
import numpy as np
import pytest
import relplot
import torch
from mapie.metrics.calibration import expected_calibration_error
from netcal.metrics import ACE, ECE, MCE
from problems import binary_problem, problem
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss
from torchmetrics.classification import MulticlassCalibrationError, MulticlassConfusionMatrix
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from finetune.domain.accumulators import ConfusionAccumulator, ReliabilityAccumulator
from finetune.domain.calibration import (
    compute_ace,
    compute_brier_score,
    compute_classwise_ece,
    compute_debiased_error,
    compute_ece,
    compute_log_loss,
    compute_mce,
    compute_rmsce,
    compute_smooth_ece,
    decompose_brier,
    reliability_bins,
)

PROBLEMS = [(0, 50, 3), (1, 500, 5), (2, 5000, 20), (3, 700, 100)]
BINS = [1, 10, 15]


@pytest.fixture(params=PROBLEMS, ids=str)
def rows_and_labels(request):
    seed, n, n_labels = request.param
    rows, labels = problem(seed, n_cal=n, n_new=0, n_labels=n_labels).cal
    labels[:n_labels] = np.arange(min(n, n_labels))  # netcal wants every label to occur
    return rows, labels


@pytest.fixture(params=[0, 1, 2])
def events(request):
    return binary_problem(request.param, n=300 * (request.param + 1))


@pytest.mark.parametrize("n_bins", BINS)
@pytest.mark.parametrize(("norm", "ours"), [("l1", compute_ece), ("max", compute_mce), ("l2", compute_rmsce)])
def test_binned_errors_are_those_of_torchmetrics(rows_and_labels, norm, ours, n_bins):
    # Theirs are added up in single precision.
    rows, labels = rows_and_labels
    tensors = torch.from_numpy(rows), torch.from_numpy(labels)
    theirs = float(multiclass_calibration_error(*tensors, rows.shape[1], n_bins, norm))
    assert ours(rows, labels, n_bins) == pytest.approx(theirs, abs=2e-6)


@pytest.mark.parametrize("n_bins", BINS)
@pytest.mark.parametrize(("norm", "ours"), [("l1", compute_ece), ("max", compute_mce), ("l2", compute_rmsce)])
def test_errors_of_one_event_are_those_of_torchmetrics(events, norm, ours, n_bins):
    p, happened = events
    theirs = float(binary_calibration_error(*map(torch.from_numpy, events), n_bins, norm))
    assert ours(p, happened, n_bins) == pytest.approx(theirs, abs=2e-6)


@pytest.mark.parametrize("n_bins", BINS)
@pytest.mark.parametrize(("measure", "ours"), [(ECE, compute_ece), (MCE, compute_mce)])
def test_binned_errors_are_those_of_netcal(rows_and_labels, measure, ours, n_bins):
    assert ours(*rows_and_labels, n_bins) == pytest.approx(
        measure(n_bins).measure(*rows_and_labels), abs=1e-12
    )


def test_errors_of_one_event_are_those_of_netcal(events):
    assert compute_ece(*events, 15) == pytest.approx(ECE(15).measure(*events), abs=1e-12)


def test_ace_of_netcal_is_another_quantity(events):
    # The mean gap over bins of equal *width*, few rows or many: Nixon et al. (2019) have bins of equal mass.
    bins = reliability_bins(*events, 15)
    assert ACE(15).measure(*events) == pytest.approx(bins.gaps.mean(), abs=1e-12)
    assert compute_ace(*events, 15) == pytest.approx(
        ECE(15, equal_intervals=False).measure(*events), abs=1e-12
    )


@pytest.mark.parametrize("n", [150, 600])
def test_equal_mass_is_that_of_netcal_and_uncertainty_calibration(n):
    # The number of bins divides that of rows; where it does not, each places the ends in its own way.
    rows, labels = problem(4, n_cal=n, n_new=0, n_labels=4).cal
    ours = reliability_bins(rows, labels, 15, binning="mass").ece
    assert ours == pytest.approx(uncertainty_calibration.get_ece_em(rows, labels, num_bins=15), abs=1e-12)
    assert ours == pytest.approx(ECE(15, equal_intervals=False).measure(rows, labels), abs=1e-12)


@pytest.mark.parametrize("n_bins", BINS)
def test_ece_is_that_of_uncertainty_calibration(rows_and_labels, n_bins):
    theirs = uncertainty_calibration.get_ece(*rows_and_labels, num_bins=n_bins)
    assert compute_ece(*rows_and_labels, n_bins) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("n_bins", BINS)
def test_debiased_error_is_that_of_uncertainty_calibration(rows_and_labels, n_bins):
    # Theirs lets rows that are alone in their bin count as rows without a gap; ours leaves them out.
    rows, labels = rows_and_labels
    pairs = list(zip(rows.max(axis=1), rows.argmax(axis=1) == labels, strict=True))
    edges = uncertainty_calibration.get_equal_prob_bins(rows.max(axis=1), num_bins=n_bins)
    theirs = uncertainty_calibration.utils.unbiased_square_ce(uncertainty_calibration.utils.bin(pairs, edges))
    ours = compute_debiased_error(rows, labels, n_bins)
    share = 1.0 - ours.rows_left_out / len(rows)
    assert ours.squared * share == pytest.approx(theirs, abs=1e-12)


def test_class_wise_error_is_that_of_uncertainty_calibration_and_mapie(rows_and_labels):
    rows, labels = rows_and_labels
    theirs = uncertainty_calibration.get_ece(rows, labels, num_bins=10, mode="marginal")
    assert compute_classwise_ece(rows, labels, 10) == pytest.approx(theirs, abs=1e-12)
    hits = (rows.argmax(axis=1) == labels).astype(int)
    theirs = expected_calibration_error(
        hits, rows, num_bins=11, split_strategy="uniform", classwise=True, class_labels=labels
    )
    assert compute_classwise_ece(rows, labels, 10) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("n", [100, 1000, 20000])
def test_smooth_error_is_that_of_relplot_but_for_its_grid(n):
    # Theirs takes the bandwidth from ten halvings and the integral from 200 points.
    p, happened = binary_problem(5, n)
    theirs = relplot.smECE(p, happened)
    assert compute_smooth_ece(p, happened) == pytest.approx(theirs, abs=2e-3)


def test_smoothing_at_a_given_bandwidth_is_that_of_relplot():
    # The mean gap at a bandwidth falls as the bandwidth grows, and equals it at the smooth error.
    p, happened = binary_problem(6, 4000)
    error = compute_smooth_ece(p, happened)
    assert relplot.smECE_sigma(p, happened, sigma=error) == pytest.approx(error, rel=0.01)


def test_scores_are_those_of_scikit_learn(rows_and_labels):
    rows, labels = rows_and_labels
    known = np.arange(rows.shape[1])
    assert compute_log_loss(rows, labels) == pytest.approx(log_loss(labels, rows, labels=known), rel=1e-12)
    theirs = brier_score_loss(labels, rows, labels=known, scale_by_half=False)
    assert compute_brier_score(rows, labels) == pytest.approx(theirs, rel=1e-12)


def test_scores_of_one_event_are_those_of_scikit_learn(events):
    assert compute_brier_score(*events) == pytest.approx(brier_score_loss(events[1], events[0]), rel=1e-12)


def test_log_loss_of_an_excluded_label_is_infinite_and_clipped_by_scikit_learn():
    rows, labels = np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([1, 0])
    assert compute_log_loss(rows, labels) == np.inf
    assert log_loss(labels, rows) < 20.0


def test_bins_are_those_of_scikit_learn(events):
    p, happened = events
    accuracy, confidence = calibration_curve(happened, p, n_bins=10)
    bins = reliability_bins(p, happened, 10)
    filled = bins.counts > 0
    np.testing.assert_allclose(bins.hits[filled] / bins.counts[filled], accuracy, rtol=1e-12)
    np.testing.assert_allclose(bins.confidence_sums[filled] / bins.counts[filled], confidence, rtol=1e-12)


def test_parts_of_the_brier_score_add_up_to_that_of_scikit_learn(rows_and_labels):
    rows, labels = rows_and_labels
    theirs = brier_score_loss(labels, rows, labels=np.arange(rows.shape[1]), scale_by_half=False)
    assert decompose_brier(rows, labels, 10).score == pytest.approx(theirs, rel=1e-10)


def test_what_comes_in_parts_is_what_torchmetrics_adds_up():
    rows, labels = problem(9, n_cal=1000, n_new=0, n_labels=5).cal
    errors, confusion = MulticlassCalibrationError(5, 10), MulticlassConfusionMatrix(5)
    workers = [(ReliabilityAccumulator(10), ConfusionAccumulator(5)) for _ in range(3)]
    for i, part in enumerate(np.array_split(np.random.default_rng(9).permutation(1000), 10)):
        for metric in (errors, confusion):
            metric.update(torch.from_numpy(rows[part]), torch.from_numpy(labels[part]))
        workers[i % 3][0].update(rows[part], labels[part])
        workers[i % 3][1].update(rows[part].argmax(axis=1), labels[part])
    bins, counts = (a.merge(b).merge(c).result() for a, b, c in zip(*reversed(workers), strict=True))
    assert bins.ece == pytest.approx(float(errors.compute()), abs=2e-6)
    assert np.array_equal(counts.matrix, confusion.compute().numpy())


def test_single_precision_moves_errors_by_its_rounding_only(rows_and_labels):
    rows, labels = rows_and_labels
    single = rows.astype(np.float32)
    for ours in (compute_mce, compute_ece, compute_rmsce):
        theirs = ours(single.astype(float) / single.astype(float).sum(axis=1, keepdims=True), labels, 10)
        assert ours(single, labels, 10) == pytest.approx(theirs, abs=1e-6)
