"""Calibration maps against scikit-learn, netcal, betacal, uncertainty-calibration and torch's derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from betacal import BetaCalibration
from netcal.binning import HistogramBinning
from netcal.scaling import TemperatureScaling
from problems import Problem, logits_problem, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from finetune.domain.calibration import compute_log_loss
from finetune.domain.calibration.maps import (
    fit_beta,
    fit_dirichlet,
    fit_histogram,
    fit_isotonic,
    fit_matrix,
    fit_platt,
    fit_temperature,
    fit_vector,
)

PROBLEMS = [(0, 200, 2), (1, 500, 3), (2, 1500, 10)]


@pytest.fixture(params=PROBLEMS, ids=str)
def given(request) -> Problem:
    seed, n, n_labels = request.param
    return logits_problem(seed, n_cal=n, n_new=300, n_labels=n_labels)


@pytest.fixture
def binary() -> Problem:
    return logits_problem(3, n_cal=800, n_new=300, n_labels=2)


class Scores(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose features are its decision function."""

    def __init__(self, n_labels: int = 2) -> None:
        self.n_labels = n_labels

    def fit(self, X, y):
        return self

    @property
    def classes_(self):
        return np.arange(self.n_labels)

    def decision_function(self, X):
        return X[:, 1] if self.n_labels == 2 else X

    def predict(self, X):
        return X.argmax(axis=1)

    def __sklearn_is_fitted__(self) -> bool:
        return True


def scikit_learn_map(method: str, scores, labels, n_labels: int) -> CalibratedClassifierCV:
    calibrated = CalibratedClassifierCV(FrozenEstimator(Scores(n_labels)), method=method, ensemble=False)
    return calibrated.fit(scores, labels)


def log_odds(logits):
    """Of each label against the rest; the first of two columns is not looked at."""
    log_p = np.log(softmax(logits))
    return log_p - np.log1p(-np.exp(log_p))


def test_temperature_is_that_of_scikit_learn(given):
    logits, labels = given.cal
    ours = fit_temperature(logits, labels)
    n_labels = logits.shape[1]
    # Of two columns it gets the second, d, and makes the logits (-d, d) of it.
    scores = (logits - logits[:, :1]) / 2.0 if n_labels == 2 else logits
    theirs = scikit_learn_map("temperature", scores, labels, n_labels).calibrated_classifiers_[0]
    assert ours.value == pytest.approx(1.0 / theirs.calibrators[0].beta_, rel=1e-3)


def test_temperature_of_netcal_does_not_lose_less(given):
    # Theirs gives T for the logarithms of the probabilities, one of them the reference.
    logits, labels = given.cal
    theirs = TemperatureScaling().fit(softmax(logits), labels).transform(softmax(logits))
    if theirs.ndim == 1:
        theirs = np.column_stack([1.0 - theirs, theirs])
    ours = fit_temperature(logits, labels).apply(logits)
    assert (
        compute_log_loss(ours, labels, inputs="log_probabilities") <= compute_log_loss(theirs, labels) + 1e-9
    )


def test_temperature_has_no_slope_left(given):
    logits, labels = map(torch.from_numpy, given.cal)
    beta = torch.tensor(1.0 / fit_temperature(*given.cal).value, dtype=torch.float64, requires_grad=True)
    torch.nn.functional.cross_entropy(beta * logits, labels).backward()
    assert abs(float(beta.grad)) < 1e-13


def test_platt_is_that_of_scikit_learn(given):
    # With Platt's targets, on both sides; for more than two labels, one against the rest, divided by the sum.
    n_labels = given.rows.shape[1]
    theirs = scikit_learn_map("sigmoid", log_odds(given.cal[0]), given.cal[1], n_labels)
    ours = np.exp(fit_platt(*given.cal).apply(given.new[0]))
    np.testing.assert_allclose(ours, theirs.predict_proba(log_odds(given.new[0])), atol=2e-4)


def test_platt_without_smoothing_is_logistic_regression(binary):
    scores = log_odds(binary.rows)[:, 1:]
    theirs = LogisticRegression(C=np.inf, tol=1e-10).fit(scores[:800], binary.cal[1])
    ours = np.exp(fit_platt(*binary.cal, smoothing=False).apply(binary.new[0]))
    np.testing.assert_allclose(ours, theirs.predict_proba(scores[800:]), atol=1e-5)


def test_isotonic_is_that_of_scikit_learn(binary):
    # Between two blocks, theirs is linear in the score it is given, and ours in the log-odds.
    scores = log_odds(binary.rows)[:, 1]
    theirs = IsotonicRegression(out_of_bounds="clip").fit(scores[:800], binary.cal[1])
    ours = np.exp(fit_isotonic(*binary.cal, smoothing=False).apply(binary.rows))[:, 1]
    np.testing.assert_allclose(ours, theirs.predict(scores), atol=1e-9)


def test_isotonic_of_many_labels_is_that_of_scikit_learn():
    given = logits_problem(4, n_cal=900, n_new=300, n_labels=4)
    theirs = scikit_learn_map("isotonic", log_odds(given.cal[0]), given.cal[1], 4)
    ours = np.exp(fit_isotonic(*given.cal, smoothing=False).apply(given.new[0]))
    np.testing.assert_allclose(ours, theirs.predict_proba(log_odds(given.new[0])), atol=1e-9)


def test_isotonic_with_ties_is_that_of_scikit_learn():
    rng = np.random.default_rng(5)
    p = rng.integers(1, 8, size=400) / 8.0
    happened = (rng.random(400) < p).astype(int)
    rows = np.column_stack([1.0 - p, p])
    theirs = IsotonicRegression(out_of_bounds="clip").fit(p, happened).predict(p)
    fitted = fit_isotonic(rows, happened, inputs="probabilities", smoothing=False)
    np.testing.assert_allclose(np.exp(fitted.apply(rows, inputs="probabilities"))[:, 1], theirs, atol=1e-9)


@pytest.mark.parametrize("tilt", [0.0, 3.0, -3.0])
def test_beta_is_that_of_betacal(tilt):
    # A tilt makes one of the two slopes negative without the constraint.
    rng = np.random.default_rng(6)
    p = rng.beta(1.0, 1.0, size=2000).clip(0.001, 0.999)
    chance = 1.0 / (1.0 + np.exp(-np.log(p / (1.0 - p)) - tilt * (p - 0.5)))
    happened = (rng.random(2000) < chance).astype(int)
    rows = np.column_stack([1.0 - p, p])
    theirs = BetaCalibration("abm").fit(p[:, None], happened).predict(p[:, None])
    fitted = fit_beta(rows, happened, inputs="probabilities", smoothing=False)
    ours = np.exp(fitted.apply(rows, inputs="probabilities"))[:, 1]
    np.testing.assert_allclose(ours, theirs, atol=2e-4)
    pairs = [compute_log_loss(np.column_stack([1.0 - q, q]), happened) for q in (ours, theirs)]
    assert pairs[0] <= pairs[1] + 1e-12


@pytest.mark.parametrize("n_bins", [5, 10])
def test_histogram_is_that_of_netcal(binary, n_bins):
    # Next to no prior; bins without a calibration row are another matter: 1 / K here, their middle there.
    p = softmax(binary.rows)[:, 1]
    theirs = HistogramBinning(n_bins).fit(p[:800], binary.cal[1]).transform(p[800:])
    fitted = fit_histogram(*binary.cal, n_bins=n_bins, binning="width", prior_weight=1e-12)
    assert np.unique((p[:800] * n_bins).astype(int)).size == n_bins
    np.testing.assert_allclose(np.exp(fitted.apply(binary.new[0]))[:, 1], theirs, atol=1e-9)


def test_vector_scaling_has_no_slope_left(given):
    # The objective of the docstring, written again; it is convex.
    logits, labels = map(torch.from_numpy, given.cal)
    fitted = fit_vector(*given.cal)
    unit = given.cal[0].std(axis=0)
    start = 1.0 / fit_temperature(*given.cal).value
    spread = float(np.sqrt((unit**2).mean()))
    w, b = (
        torch.tensor(np.asarray(part), requires_grad=True) for part in (fitted.weights, fitted.intercepts)
    )
    loss = torch.nn.functional.cross_entropy(w * logits + b, labels, reduction="sum")
    (loss + 0.5 * (((w - start) * spread) ** 2 + b**2).sum()).backward()
    assert float(torch.maximum(w.grad.abs().max(), b.grad.abs().max())) < 1e-5


@pytest.mark.parametrize(("fit", "inputs"), [(fit_matrix, "logits"), (fit_dirichlet, "probabilities")])
def test_matrix_and_dirichlet_scaling_have_no_slope_left(given, fit, inputs):
    n, k = given.cal[0].shape
    rows = given.cal[0] if inputs == "logits" else softmax(given.cal[0])
    scores = rows if inputs == "logits" else np.log(rows)
    fitted = fit(rows, given.cal[1], inputs=inputs, off_diagonal=0.02, intercept=0.03)
    start = 1.0 / fit_temperature(scores, given.cal[1]).value
    spread = float(np.sqrt((scores.std(axis=0) ** 2).mean()))
    w, b = (
        torch.tensor(np.asarray(part), requires_grad=True) for part in (fitted.weights, fitted.intercepts)
    )
    loss = torch.nn.functional.cross_entropy(
        torch.from_numpy(scores) @ w.T + b, torch.from_numpy(given.cal[1])
    )
    off_diagonal = (w**2).sum() - (torch.diagonal(w) ** 2).sum()
    penalty = 0.02 / (k * (k - 1)) * off_diagonal + 0.03 / k * (b**2).sum()
    penalty = penalty + (((torch.diagonal(w) - start) * spread) ** 2).sum() / (2 * n)
    (loss + penalty).backward()
    assert float(torch.maximum(w.grad.abs().max(), b.grad.abs().max())) < 1e-7


def test_matrix_scaling_is_nearly_logistic_regression():
    given = logits_problem(7, n_cal=5000, n_new=1000, n_labels=4)
    theirs = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(*given.cal)
    ours = np.exp(fit_matrix(*given.cal, off_diagonal=1e-9, intercept=1e-9).apply(given.new[0]))
    np.testing.assert_allclose(ours, theirs.predict_proba(given.new[0]), atol=5e-3)
