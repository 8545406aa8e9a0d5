"""Every map is the optimum that it claims to be: closed forms, gradients, other optimisers."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import brentq, minimize
from scipy.special import expit, log_softmax, logit

from finetune.domain.calibration.maps import (
    fit_beta,
    fit_dirichlet,
    fit_histogram,
    fit_isotonic,
    fit_matrix,
    fit_platt,
    fit_temperature,
    fit_vector,
    newton,
    softmax,
)
from finetune.domain.errors import InvalidInput


def draw(seed, n=400, k=4, temperature=1.0):
    """Logits z and labels from softmax(W z + b), with W close to 1 / temperature."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, size=(n, k))
    weights = (np.eye(k) + rng.normal(0, 0.1, size=(k, k))) / temperature
    scores = z @ weights.T + rng.normal(0, 0.5, size=k)
    return z, (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)


def mean_loss(scores, labels):
    return -log_softmax(scores, axis=1)[np.arange(len(labels)), labels].mean()


def pooled_spread(z):
    return np.sqrt(np.mean((z - z.mean(axis=0)) ** 2))


@pytest.mark.parametrize("scale", [1.0, 40.0, 100.0])
def test_temperature_is_the_zero_of_the_derivative(scale):
    # torchcp 1.2.1 returns 2.20 on data like these, after 22 s; the optimum is 2.5118.
    z, labels = draw(3, n=2000, k=10, temperature=2.5)

    def slope(beta):
        p = np.exp(log_softmax(beta * z, axis=1))
        return np.mean((p * z).sum(axis=1) - z[np.arange(len(z)), labels])

    exact = 1.0 / brentq(slope, 1e-3, 10.0, xtol=1e-15, rtol=1e-14)
    assert 2.3 < exact < 2.7
    assert fit_temperature(scale * z, labels).value == pytest.approx(scale * exact, rel=1e-9)


def vector_objective(theta, z, labels, temperature, shrinkage):
    w, b = np.split(theta, 2)
    prior = np.sum(((w - 1 / temperature) * pooled_spread(z)) ** 2) + np.sum(b**2)
    return mean_loss(z * w + b, labels) + shrinkage / (2 * len(z)) * prior


@pytest.mark.parametrize("shrinkage", [1e-3, 1.0, 100.0])
def test_vector_scaling_against_another_optimiser(shrinkage):
    z, labels = draw(1)
    found = fit_vector(z, labels, shrinkage=shrinkage)
    theta = np.concatenate([found.weights, found.intercepts])
    loss = partial(
        vector_objective,
        z=z,
        labels=labels,
        temperature=fit_temperature(z, labels).value,
        shrinkage=shrinkage,
    )
    other = minimize(loss, np.repeat([1.0, 0.0], 4), method="BFGS", options={"gtol": 1e-7})
    assert loss(theta) <= other.fun + 1e-14
    np.testing.assert_allclose(theta, other.x, atol=1e-4)
    for step in 1e-4 * np.eye(8):
        assert abs(loss(theta + step) - loss(theta - step)) / 2e-4 < 1e-8


@pytest.mark.parametrize(("off_diagonal", "intercept"), [(0.01, 0.02), (None, None), (5.0, 1e-6)])
def test_matrix_scaling_has_no_slope_left(off_diagonal, intercept):
    z, labels = draw(2)
    n, k = z.shape
    found = fit_matrix(z, labels, off_diagonal=off_diagonal, intercept=intercept)
    s, temperature = pooled_spread(z), fit_temperature(z, labels).value
    lam = 2 * k**2 * (k - 1) * s**2 / n if off_diagonal is None else off_diagonal
    mu = k / (2 * n) if intercept is None else intercept
    p = np.exp(log_softmax(z @ found.weights.T + found.intercepts, axis=1))
    p[np.arange(n), labels] -= 1.0
    off = found.weights * (1 - np.eye(k))
    diagonal = np.diag(np.diag(found.weights) - 1 / temperature)
    slope = p.T @ z / n + 2 * lam / (k * (k - 1)) * off + s**2 / n * diagonal
    assert abs(slope).max() < 1e-9
    assert abs(p.mean(axis=0) + 2 * mu / k * found.intercepts).max() < 1e-9


def test_dirichlet_is_matrix_scaling_of_log_probabilities():
    z, labels = draw(4)
    dirichlet, matrix = fit_dirichlet(z, labels), fit_matrix(log_softmax(z, axis=1), labels)
    np.testing.assert_allclose(dirichlet.weights, matrix.weights, atol=1e-9)
    np.testing.assert_allclose(dirichlet.apply(z + 3), matrix.apply(log_softmax(z, axis=1)), atol=1e-9)
    assert abs(fit_matrix(z, labels).weights - matrix.weights).max() > 1e-3


@pytest.mark.parametrize("off_diagonal", [None, 1e-8, 1e-2, 1e4])
def test_built_and_applied_hessian_lead_to_the_same_optimum(off_diagonal, monkeypatch):
    z, labels = draw(5, n=600, k=8)
    built = fit_dirichlet(z, labels, off_diagonal=off_diagonal)
    monkeypatch.setattr(softmax, "_DENSE", 0)
    applied = fit_dirichlet(z, labels, off_diagonal=off_diagonal)
    np.testing.assert_allclose(applied.weights, built.weights, atol=1e-7)
    np.testing.assert_allclose(applied.intercepts, built.intercepts, atol=1e-7)


def test_conjugate_gradients_solve():
    rng = np.random.default_rng(0)
    matrix = np.cov(rng.normal(size=(20, 60))) + np.diag(np.geomspace(1e-3, 1e3, 20))
    vector = 1e-9 * rng.normal(size=20)  # close to the optimum, so that many digits are asked for
    solve = newton.solve_by_products(lambda v: matrix @ v, lambda v: v / np.diag(matrix))
    np.testing.assert_allclose(solve(vector), np.linalg.solve(matrix, vector), rtol=1e-3, atol=1e-13)
    np.testing.assert_array_equal(solve(np.zeros(20)), 0.0)


class Contradictory:
    """A loss that rises along its own descent direction, as rounding can make one."""

    def value(self, theta):
        return float(theta.sum())

    def expand(self, theta):
        return newton.Expansion(-np.ones(2), lambda gradient: gradient)


class Endless(Contradictory):
    """A loss without a minimum."""

    def value(self, theta):
        return -float(theta.sum())


@pytest.mark.parametrize("loss", [Contradictory(), Endless()])
def test_a_search_that_does_not_end_is_an_error(loss):
    with pytest.raises(InvalidInput, match="does not end"):
        newton.minimise(loss, np.zeros(2))


def test_platt_closed_form():
    # Two scores, so the curve goes through the targets of both: (N+ + 1) / (N+ + 2) and 1 / (N- + 2), mixed.
    rows = [[0.0, -2.0]] * 10 + [[0.0, 3.0]] * 10
    labels = [0] * 8 + [1] * 2 + [0] * 1 + [1] * 9
    low, high = 1 / 11, 12 / 13
    at = logit([0.8 * low + 0.2 * high, 0.1 * low + 0.9 * high])
    fitted = fit_platt(rows, labels)
    assert fitted.slopes[0] == pytest.approx((at[1] - at[0]) / 5, rel=1e-6)
    np.testing.assert_allclose(fitted.apply(rows)[[0, -1], 1], np.log(expit(at)), rtol=1e-7)
    bare = np.exp(fit_platt(rows, labels, smoothing=False).apply(rows)[:, 1])
    np.testing.assert_allclose(bare[[0, -1]], [0.2, 0.9], rtol=1e-6)


def test_beta_finds_its_own_curve():
    a, b, c = 0.6, 1.7, -0.3
    p = np.linspace(0.02, 0.98, 200)
    q = expit(a * np.log(p) - b * np.log1p(-p) + c)
    # Each row as often as q says: expected losses, so the optimum is the curve itself.
    hits = np.round(1e3 * q).astype(int)
    x = np.repeat(p, 10**3)
    labels = (np.arange(len(x)) % 10**3 < np.repeat(hits, 10**3)).astype(int)
    fitted = fit_beta(np.column_stack([1 - x, x]), labels, inputs="probabilities", smoothing=False)
    np.testing.assert_allclose([fitted.a[0], fitted.b[0], fitted.intercepts[0]], [a, b, c], atol=5e-3)


@pytest.mark.parametrize("seed", range(6))
def test_beta_is_the_optimum_under_its_constraint(seed):
    rng = np.random.default_rng(seed)
    p = rng.beta(0.7, 0.7, size=300)
    truth = [p**3, np.sqrt(p), 1 - p, 0.5 + 0.4 * np.sin(9 * p), 4 * p * (1 - p), 1 - 4 * p * (1 - p)][seed]
    labels = (rng.random(300) < truth).astype(int)

    def loss(theta):
        eta = theta[0] * np.log(p) - theta[1] * np.log1p(-p) + theta[2]
        return np.mean(np.logaddexp(0, eta) - labels * eta)

    fitted = fit_beta(np.column_stack([1 - p, p]), labels, inputs="probabilities", smoothing=False)
    found = np.array([fitted.a[0], fitted.b[0], fitted.intercepts[0]])
    other = minimize(
        loss, [1.0, 1.0, 0.0], method="L-BFGS-B", bounds=[(0, None), (0, None), (None, None)],
        options={"ftol": 1e-15, "gtol": 1e-9},
    )  # fmt: skip
    assert found[:2].min() >= 0
    assert loss(found) <= other.fun + 1e-8


def test_isotonic_against_the_max_min_formula():
    rng = np.random.default_rng(0)
    score = np.round(rng.normal(size=60), 1)  # ties
    labels = (rng.random(60) < expit(score)).astype(int)
    rows = np.column_stack([np.zeros(60), score])
    found = np.exp(fit_isotonic(rows, labels, smoothing=False).apply(rows)[:, 1])
    values = np.unique(score)
    for value, p in zip(score, found, strict=True):
        # Robertson, Wright, Dykstra (1988), th. 1.4.4.
        best = max(
            min(labels[(score >= low) & (score <= high)].mean() for high in values[values >= value])
            for low in values[values <= value]
        )
        assert p == pytest.approx(best, abs=1e-12)


def test_isotonic_is_linear_in_the_log_odds_between_blocks():
    rows = [[0.0, -1.0], [0.0, 1.0]]
    fitted = fit_isotonic(rows, [0, 1])
    p = np.exp(fitted.apply([[0.0, x] for x in (-9.0, -1.0, 0.5, 1.0, 9.0)])[:, 1])
    np.testing.assert_allclose(p, [1 / 3, 1 / 3, 1 / 3 + 0.75 / 3, 2 / 3, 2 / 3])


def test_histogram_of_equal_mass():
    p = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9])
    labels = np.array([0, 0, 0, 1, 0, 1, 1, 1])
    rows = np.column_stack([1 - p, p])
    fitted = fit_histogram(rows, labels, inputs="probabilities", n_bins=2, prior_weight=2.0)
    assert len(fitted.edges[0]) == 1
    expected = np.repeat([(1 + 1) / (4 + 2), (3 + 1) / (4 + 2)], 4)  # Laplace
    np.testing.assert_allclose(np.exp(fitted.apply(rows, inputs="probabilities")[:, 1]), expected)


def test_histogram_of_equal_width_has_the_bins_of_the_calibration_error():
    # (a, b]: 0.3 lies in the bin of 0.25, however it was rounded on its way.
    p = np.array([0.25, 0.3, 0.31, 0.1 + 0.2])
    rows = np.column_stack([1 - p, p])
    labels = [1, 1, 0, 1]
    fitted = fit_histogram(rows, labels, inputs="probabilities", n_bins=10, binning="width")
    found = np.exp(fitted.apply(rows, inputs="probabilities")[:, 1])
    np.testing.assert_allclose(found, [3.5 / 4, 3.5 / 4, 0.5 / 2, 3.5 / 4])
    empty = fitted.apply([[0.05, 0.95]], inputs="probabilities")
    np.testing.assert_allclose(np.exp(empty), [[0.5, 0.5]])


def test_one_vs_rest_divides_by_the_sum():
    z, labels = draw(8, k=3)
    q = np.empty(z.shape)
    for label in range(3):
        p = np.exp(log_softmax(z, axis=1))[:, label]
        two = np.column_stack([1 - p, p])
        one = fit_platt(two, (labels == label).astype(int), inputs="probabilities")
        q[:, label] = np.exp(one.apply(two, inputs="probabilities")[:, 1])
    expected = q / q.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(fit_platt(z, labels).apply(z)), expected, rtol=1e-6)


@pytest.mark.parametrize("fit", [fit_temperature, fit_vector, fit_matrix, fit_dirichlet])
def test_nested_maps_fit_at_least_as_well_as_no_map(fit):
    losses = []
    for seed in range(5):
        z, labels = draw(seed, n=30, k=3, temperature=0.5)
        losses.append(mean_loss(fit(z, labels).apply(z), labels) - mean_loss(z, labels))
    assert max(losses) <= 1e-12


@pytest.mark.parametrize("fit", [fit_platt, fit_beta, fit_isotonic])
def test_unsmoothed_binary_maps_fit_at_least_as_well_as_no_map(fit):
    for seed in range(5):
        z, labels = draw(seed, n=60, k=2, temperature=0.5)
        fitted = fit(z, labels, smoothing=False)
        assert mean_loss(fitted.apply(z), labels) <= mean_loss(z, labels) + 1e-8


def test_larger_families_fit_better():
    z, labels = draw(9)
    losses = [
        mean_loss(fitted.apply(z), labels)
        for fitted in (
            fit_temperature(z, labels),
            fit_vector(z, labels, shrinkage=1e-6),
            fit_matrix(z, labels, off_diagonal=1e-6, intercept=1e-9),
        )
    ]
    assert all(larger < smaller for smaller, larger in pairwise(losses))
