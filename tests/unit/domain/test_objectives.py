"""Objectives: values by hand, the gradients that their docstrings state, what becomes of undecidable rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import expit, log_softmax

from finetune.domain.errors import InvalidInput
from finetune.domain.objectives import (
    LOWEST,
    abstention_gate,
    abstention_loss,
    conformal_training_loss,
    cross_entropy_loss,
    expected_cost_loss,
    focal_loss,
    relative_costs,
    threshold_rank,
)
from finetune.domain.risk import bayes_actions

COSTS = np.array([[0.0, 4.0, 1.0], [2.0, 0.0, 1.0], [30.0, 3.0, 0.0]])


def costs_for(n_labels: int) -> np.ndarray:
    """Costs that differ from cell to cell, 0 on the diagonal."""
    costs = 1.0 + np.arange(n_labels**2, dtype=float).reshape(n_labels, n_labels)
    np.fill_diagonal(costs, 0.0)
    return costs


def with_costs(log_p, y):
    return expected_cost_loss(log_p, y, costs=costs_for(np.shape(log_p)[-1]))


OBJECTIVES: dict[str, Callable[..., np.ndarray]] = {
    "cross_entropy": cross_entropy_loss,
    "smoothed": partial(cross_entropy_loss, label_smoothing=0.2),
    "focal": focal_loss,
    "focal_below_one": partial(focal_loss, gamma=0.5),
    "abstention": abstention_loss,
    "expected_cost": with_costs,
    "conformal": conformal_training_loss,
}
everyone = pytest.mark.parametrize("losses", OBJECTIVES.values(), ids=OBJECTIVES)


# Values.


def test_cross_entropy_by_hand():
    rows = np.log([[0.5, 0.25, 0.25]])
    assert cross_entropy_loss(rows, [1]) == pytest.approx(np.log(4))
    smoothed = 0.7 * np.log(4) + 0.1 * (np.log(2) + 2 * np.log(4))
    assert cross_entropy_loss(rows, [1], label_smoothing=0.3) == pytest.approx(smoothed)


def test_focal_loss_by_hand():
    assert focal_loss(np.log([[0.75, 0.25]]), [1], gamma=3.0) == pytest.approx(0.75**3 * np.log(4))


def test_abstention_loss_by_hand():
    p = np.array([0.6, 0.3, 0.1])
    gate = 1.0 / (1.0 + np.exp(-(0.8 - 0.6) / 0.05))
    entropy = -(p * np.log(p)).sum()
    expected = (1.0 - gate + 0.25 * gate) * (-np.log(0.3) - 0.5 * gate * entropy / np.log(3))
    options = {"confidence_threshold": 0.8, "abstention_penalty": 0.25, "uncertainty_weight": 0.5}
    assert abstention_loss(np.log([p]), [1], **options) == pytest.approx(expected)


def test_a_sure_row_pays_its_cross_entropy_and_an_unsure_one_a_part_of_it():
    rows = np.log([[0.999, 0.001], [0.5, 0.5]])
    plain = cross_entropy_loss(rows, [1, 1])
    paid = abstention_loss(rows, [1, 1], uncertainty_weight=0.0)
    assert paid[0] == pytest.approx(plain[0], rel=0.01)
    assert paid[1] == pytest.approx(0.3 * plain[1], rel=0.05)


def test_expected_cost_by_hand():
    assert expected_cost_loss(np.log([[0.2, 0.3, 0.5]]), [2], costs=COSTS) == pytest.approx(
        (30.0 * 0.2 + 3.0 * 0.3) / (41.0 / 6.0)
    )


def test_the_unit_of_costs_makes_no_difference():
    rows = np.log([[0.2, 0.3, 0.5]])
    one, other = (expected_cost_loss(rows, [2], costs=unit * COSTS) for unit in (1.0, 1e-30))
    np.testing.assert_allclose(one, other)
    assert relative_costs(COSTS, 3)[~np.eye(3, dtype=bool)].mean() == pytest.approx(1.0)


def test_conformal_training_by_hand():
    p = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.6, 0.1, 0.3], [0.2, 0.7, 0.1]])
    # Rows 0 and 2 calibrate: too few for alpha = 0.1, so the lowest of log .7 and log .3 is the threshold.
    sets = expit((np.log(p[[1, 3]]) - np.log(0.3)) / 0.2)
    loss = (1.0 - sets[[0, 1], [1, 1]] + 0.5 * np.maximum(sets.sum(axis=1) - 1.0, 0.0)).mean()
    found = conformal_training_loss(np.log(p), [0, 1, 2, 1], temperature=0.2, size_weight=0.5)
    np.testing.assert_allclose(found, np.log(loss + 1e-8))
    assert found.shape == (4,)


def test_the_threshold_is_that_of_conformal_prediction_or_the_lowest():
    assert [threshold_rank(n, 0.1) for n in (1, 8, 9, 18, 19, 99)] == [1, 1, 1, 1, 2, 10]


def test_a_single_row_calibrates_and_is_measured():
    p = np.array([0.6, 0.3, 0.1])
    sets = expit((np.log(p) - np.log(0.3)) / 0.1)
    loss = np.log(0.5 + max(sets.sum() - 1.0, 0.0) + 1e-8)
    assert conformal_training_loss(np.log([p]), [1]) == pytest.approx(loss)


# Properties.


@st.composite
def problems(draw, most_rows=6, largest=40.0):
    n, n_labels = draw(st.integers(1, most_rows)), draw(st.integers(2, 5))
    number = st.floats(-largest, largest)
    logits = draw(st.lists(st.lists(number, min_size=n_labels, max_size=n_labels), min_size=n, max_size=n))
    labels = draw(st.lists(st.integers(0, n_labels - 1), min_size=n, max_size=n))
    return log_softmax(np.array(logits), axis=1), np.array(labels), draw(st.permutations(range(n_labels)))


@given(problems())
def test_the_names_of_labels_make_no_difference(problem):
    log_p, y, order = problem
    inverse = np.argsort(order)
    for name, losses in OBJECTIVES.items():
        if name == "expected_cost":
            costs = costs_for(log_p.shape[1])
            one = expected_cost_loss(log_p, y, costs=costs)
            other = expected_cost_loss(log_p[:, order], inverse[y], costs=costs[np.ix_(order, order)])
        else:
            one, other = losses(log_p, y), losses(log_p[:, order], inverse[y])
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12, err_msg=name)


@given(problems())
def test_a_row_does_not_depend_on_the_others_where_it_should_not(problem):
    log_p, y, _ = problem
    for name, losses in OBJECTIVES.items():
        together = losses(log_p, y)
        if name == "conformal":
            assert len(set(together.tolist())) == 1
        else:
            alone = np.concatenate([losses(log_p[i : i + 1], y[i : i + 1]) for i in range(len(y))])
            np.testing.assert_allclose(together, alone, rtol=1e-12, atol=1e-15, err_msg=name)


@everyone
@given(problem=problems(largest=1e300))
def test_saturated_rows_have_finite_losses(losses, problem):
    log_p, y, _ = problem
    assert np.isfinite(losses(log_p, y)).all()


@everyone
def test_labels_of_probability_zero_have_finite_losses(losses):
    rows = np.array([[0.0, -np.inf], [-np.inf, 0.0], [np.log(0.5), np.log(0.5)]])
    found = losses(rows, [1, 1, 0])
    assert np.isfinite(found).all()
    assert found[0] <= -LOWEST


def test_zero_times_log_zero_is_zero():
    rows = np.array([[0.0, -np.inf]])
    assert abstention_loss(rows, [0], gate=[1.0]) == 0.0
    assert with_costs(rows, [0]) == 0.0
    assert focal_loss(rows, [0]) == 0.0


def test_focal_without_gamma_and_abstention_without_a_price_are_cross_entropy():
    rows, y = log_softmax(np.random.default_rng(0).normal(size=(20, 4)), axis=1), np.arange(20) % 4
    plain = cross_entropy_loss(rows, y)
    np.testing.assert_allclose(focal_loss(rows, y, gamma=0.0), plain)
    np.testing.assert_allclose(
        abstention_loss(rows, y, abstention_penalty=1.0, uncertainty_weight=0.0), plain
    )


def test_single_precision_is_read_as_it_is():
    rows = log_softmax(np.random.default_rng(1).normal(size=(20, 4)), axis=1)
    y = np.arange(20) % 4
    for name, losses in OBJECTIVES.items():
        one, other = losses(rows, y), losses(rows.astype(np.float32), y)
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6, err_msg=name)


# Errors.

ROWS = np.log([[0.5, 0.5], [0.9, 0.1]])


@everyone
@pytest.mark.parametrize(
    ("rows", "labels"),
    [
        (ROWS, [0]),
        (ROWS, [0, 2]),
        (ROWS, [0.0, 1.0]),
        (ROWS, []),
        (np.exp(ROWS), [0, 1]),
        (ROWS[:, :1], [0, 0]),
        (ROWS[0], [0, 1]),
        (np.where([[True, False], [False, False]], np.nan, ROWS), [0, 1]),
    ],
    ids=["fewer", "unknown", "floats", "empty", "no logarithms", "one label", "flat", "nan"],
)
def test_what_are_no_labelled_rows_is_refused(losses, rows, labels):
    with pytest.raises(InvalidInput):
        losses(rows, labels)


@pytest.mark.parametrize(
    ("losses", "options"),
    [
        (cross_entropy_loss, {"label_smoothing": 1.0}),
        (cross_entropy_loss, {"label_smoothing": -0.1}),
        (focal_loss, {"gamma": -1.0}),
        (focal_loss, {"gamma": float("nan")}),
        (abstention_loss, {"confidence_threshold": 1.5}),
        (abstention_loss, {"abstention_penalty": -0.3}),
        (abstention_loss, {"uncertainty_weight": "much"}),
        (abstention_loss, {"gate": [0.5]}),
        (abstention_loss, {"gate": [0.5, 1.5]}),
        (expected_cost_loss, {"costs": np.zeros((2, 2))}),
        (expected_cost_loss, {"costs": [[0.0, -1.0], [1.0, 0.0]]}),
        (expected_cost_loss, {"costs": [[0.0, 1.0, 0.3], [1.0, 0.0, 0.3]]}),
        (expected_cost_loss, {"costs": np.ones((3, 3))}),
        (conformal_training_loss, {"alpha": 1.0}),
        (conformal_training_loss, {"temperature": 0.0}),
        (conformal_training_loss, {"size_weight": -1.0}),
        (conformal_training_loss, {"target_size": True}),
    ],
)
def test_options_out_of_their_range_are_refused(losses, options):
    with pytest.raises(InvalidInput):
        losses(ROWS, [0, 1], **options)


# Gradients, as the docstrings state them.


def onehot(labels, n_labels):
    return np.eye(n_labels)[labels]


def cross_entropy_gradient(log_p, y, label_smoothing=0.0):
    n_labels = log_p.shape[1]
    return np.exp(log_p) - (1.0 - label_smoothing) * onehot(y, n_labels) - label_smoothing / n_labels


def focal_gradient(log_p, y, gamma=2.0):
    p = np.exp(log_p)
    right = p[np.arange(len(y)), y]
    factor = (1 - right) ** gamma - gamma * right * (1 - right) ** (gamma - 1) * np.log(right)
    return factor[:, None] * (p - onehot(y, p.shape[1]))


def abstention_gradient(log_p, y):
    p, gate = np.exp(log_p), abstention_gate(log_p)[:, None]
    entropy = -(p * log_p).sum(axis=1, keepdims=True)
    to_uniform = 0.1 * gate * p * (log_p + entropy) / np.log(p.shape[1])
    return (1 - gate + gate * 0.3) * (p - onehot(y, p.shape[1]) + to_uniform)


def expected_cost_gradient(log_p, y):
    p = np.exp(log_p)
    costs = relative_costs(costs_for(p.shape[1]), p.shape[1])[y]
    return p * (costs - (costs * p).sum(axis=1, keepdims=True))


def conformal_gradient(log_p, y):
    """Of the mean of the losses: the entries of the vector are all the same."""
    n, n_labels = log_p.shape
    calibrating = np.arange(0, n, 2)
    scores = log_p[calibrating, y[calibrating]]
    at = calibrating[np.argsort(scores)[threshold_rank(len(scores), 0.1) - 1]]
    measured = np.arange(1, n, 2) if n > 1 else np.arange(1)
    sets = expit((log_p[measured] - log_p[at, y[at]]) / 0.1)
    slope = (sets.sum(axis=1, keepdims=True) > 1.0) - onehot(y[measured], n_labels)
    scale = np.exp(conformal_training_loss(log_p, y)[0])
    by_row = slope * sets * (1 - sets) / (0.1 * len(measured) * scale)
    g = np.zeros_like(log_p)
    g[measured] = by_row
    g[at, y[at]] -= by_row.sum()
    return n * (g - np.exp(log_p) * g.sum(axis=1, keepdims=True))


GRADIENTS = {
    "cross_entropy": cross_entropy_gradient,
    "smoothed": partial(cross_entropy_gradient, label_smoothing=0.2),
    "focal": focal_gradient,
    "focal_below_one": partial(focal_gradient, gamma=0.5),
    "abstention": abstention_gradient,
    "expected_cost": expected_cost_gradient,
    "conformal": conformal_gradient,
}


def numeric_gradient(losses: Callable[[np.ndarray], np.ndarray], logits: np.ndarray) -> np.ndarray:
    """Central differences of the sum of the losses."""
    step = 1e-5
    found = np.zeros_like(logits)
    for place in np.ndindex(*logits.shape):
        up, down = logits.copy(), logits.copy()
        up[place] += step
        down[place] -= step
        found[place] = (losses(up).sum() - losses(down).sum()) / (2 * step)
    return found


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize(("n", "n_labels", "spread"), [(1, 2, 0.1), (2, 3, 1.0), (7, 4, 2.0), (40, 3, 1.0)])
def test_gradients_are_those_stated(name, n, n_labels, spread):
    rng = np.random.default_rng([n, n_labels])
    logits = spread * rng.normal(size=(n, n_labels))
    y = rng.integers(n_labels, size=n)
    frozen = {}
    if name == "abstention":
        frozen["gate"] = abstention_gate(log_softmax(logits, axis=1))
    found = numeric_gradient(lambda z: OBJECTIVES[name](log_softmax(z, axis=1), y, **frozen), logits)
    stated = GRADIENTS[name](log_softmax(logits, axis=1), y)
    np.testing.assert_allclose(found, stated, rtol=1e-5, atol=1e-6 * n)
    assert np.abs(stated).max() > 1e-3


# Undecidable examples: the label is drawn from a posterior.


def mean_gradient(name: str, p: float, posterior: float) -> float:
    """The mean of the stated gradient over the label, for the logit of the first of two labels."""
    log_p = np.log([[p, 1 - p], [p, 1 - p]])
    by_label = GRADIENTS[name](log_p, np.array([0, 1]))[:, 0]
    return float(posterior * by_label[0] + (1 - posterior) * by_label[1])


def resting_point(name: str, posterior: float) -> float:
    return float(brentq(lambda p: mean_gradient(name, p, posterior), 0.5, 1 - 1e-9))


@pytest.mark.parametrize(
    ("name", "posterior", "rests"),
    [
        ("cross_entropy", 0.6, 0.6),
        ("cross_entropy", 0.99, 0.99),
        ("smoothed", 0.6, 0.58),
        ("focal", 0.6, 0.538),
        ("focal", 0.9, 0.694),
        ("focal", 0.99, 0.846),
        ("abstention", 0.6, 0.589),
        ("abstention", 0.8, 0.796),
        ("abstention", 0.9, 0.8995),
    ],
)
def test_undecidable_examples_rest_where_the_docstrings_say(name, posterior, rests):
    assert resting_point(name, posterior) == pytest.approx(rests, abs=6e-4)


@given(st.floats(0.5, 0.999), st.floats(0.001, 0.999))
def test_the_abstention_objective_has_one_resting_point(posterior, p):
    """The mean gradient points to it from everywhere."""
    rests = resting_point("abstention", posterior) if posterior > 0.5 else 0.5
    if abs(p - rests) > 1e-4:
        assert np.sign(mean_gradient("abstention", p, posterior)) == np.sign(p - rests)


@pytest.mark.parametrize("n_labels", [2, 3, 6, 12, 77, 1000])
def test_the_entropy_term_moves_the_likeliest_label_little_however_many_there_are(n_labels):
    """The more evenly the others share, the more it moves."""
    top = np.linspace(1 / n_labels, 0.999, 400)
    rows = np.log(np.column_stack([top, *[(1 - top) / (n_labels - 1)] * (n_labels - 1)]))
    entropy = -(np.exp(rows) * rows).sum(axis=1)
    moved = 0.1 * abstention_gate(rows) * top * (np.log(top) + entropy) / np.log(n_labels)
    assert moved.min() > -1e-12
    assert 0.014 < moved.max() < 0.025


def test_without_the_entropy_term_the_resting_point_is_the_posterior_itself():
    posterior = np.array([0.5, 0.3, 0.2])
    log_p = np.log(np.tile(posterior, (3, 1)))
    for penalty in (0.1, 0.3, 1.0):
        gate = abstention_gate(log_p)[0]
        weight = 1 - gate + gate * penalty
        mean = (posterior[:, None] * weight * (np.exp(log_p) - np.eye(3))).sum(axis=0)
        np.testing.assert_allclose(mean, 0.0, atol=1e-15)


def test_expected_cost_goes_to_the_cheapest_decision_not_to_the_posterior():
    posterior, n_labels = np.array([0.2, 0.42, 0.38]), 3
    logits = np.zeros(n_labels)
    for _ in range(5000):
        log_p = np.tile(log_softmax(logits), (n_labels, 1))
        logits -= 0.5 * posterior @ expected_cost_gradient(log_p, np.arange(n_labels))
    best = bayes_actions(np.log(posterior[None]), costs_for(n_labels)).actions[0]
    assert best != posterior.argmax()
    assert np.exp(log_softmax(logits))[best] > 0.99


@pytest.mark.parametrize(("size_weight", "to_uniform"), [(1.0, True), (0.1, False)])
def test_conformal_training_has_no_resting_point_at_the_posterior(size_weight, to_uniform):
    """Rows all alike with posterior (.6, .4), in either half."""
    y = np.repeat([0, 1], [12, 8])

    def loss(logit):
        log_p = np.tile(log_softmax([logit, 0.0]), (20, 1))
        return conformal_training_loss(log_p, y, size_weight=size_weight)[0]

    for logit in (0.1, 0.2, np.log(1.5)):
        slope = loss(logit + 1e-5) - loss(logit - 1e-5)
        assert (slope > 0) == to_uniform
