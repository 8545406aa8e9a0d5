"""Cost matrices and the action of least expected cost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.domain.errors import InvalidInput
from finetune.domain.risk import bayes_actions, cost_matrix, cost_scored_actions


def test_square_without_abstention():
    assert cost_matrix(("a", "b"), default=2.0).tolist() == [[0.0, 2.0], [2.0, 0.0]]


def test_an_extra_column_where_abstention_is_no_outcome():
    costs = cost_matrix(("a", "b"), abstain=0.3, pairs={"a": {"b": 9.0, "abstain": 0.1}})
    assert costs.tolist() == [[0.0, 9.0, 0.1], [1.0, 0.0, 0.3]]


@pytest.mark.parametrize(
    ("outcomes", "name"), [(("a", "abstain", "b"), None), (("a", "other", "b"), "other")]
)
def test_square_where_abstention_is_an_outcome(outcomes, name):
    costs = cost_matrix(outcomes, abstain=0.3, abstain_outcome=name)
    assert costs.tolist() == [[0.0, 0.3, 1.0], [1.0, 0.0, 1.0], [1.0, 0.3, 0.0]]


@pytest.mark.parametrize(
    "arguments",
    [
        {"outcomes": ("a",)},
        {"outcomes": ("a", "a")},
        {"default": -1.0},
        {"default": np.inf},
        {"abstain": np.nan},
        {"default": True},
        {"pairs": {"a": {"b": "much"}}},
        {"pairs": {"a": {"a": 1.0}}},
        {"pairs": {"a": {"abstain": 1.0}}},
        {"abstain_outcome": "c"},
        {"abstain_outcome": "c", "abstain": 0.1},
        {"outcomes": 5},
        {"outcomes": "ab"},
        {"outcomes": ("a", 1)},
        {"outcomes": (["a"], ["b"])},
        {"pairs": [1]},
        {"pairs": {"a": 3}},
        {"default": 1e101},
        {"pairs": {"a": {"b": 1e308}}},
    ],
)
def test_bad_costs(arguments):
    with pytest.raises(InvalidInput):
        cost_matrix(**{"outcomes": ("a", "b"), **arguments})


def test_unknown_names_bring_the_close_match():
    with pytest.raises(InvalidInput, match="did you mean 'emergency'") as caught:
        cost_matrix(("emergency", "routine"), pairs={"emergancy": {"routine": 1.0}})
    assert caught.value.where == "pairs.emergancy.routine"


@pytest.mark.parametrize(
    "costs", [[[0, 1]], [[0, -1], [1, 0]], [[0, np.nan], [1, 0]], [["a", "b"], ["c", "d"]], [[0], [1]]]
)
def test_bad_matrices(costs):
    with pytest.raises(InvalidInput):
        bayes_actions(np.log([[0.5, 0.5]]), costs)


def test_costs_of_any_size_accepted_keep_sums_finite_and_greater_ones_are_named():
    with pytest.raises(InvalidInput, match=r"costs\[0, 1\]: a cost must be a number from 0 to 1e\+100"):
        bayes_actions(np.log([[0.5, 0.5]]), [[0.0, 1.1e100], [1.0, 0.0]])
    with pytest.raises(InvalidInput, match=r"pairs.a.b: a cost must be a number from 0 to 1e\+100"):
        cost_matrix(("a", "b"), pairs={"a": {"b": 1e101}})
    assert np.isfinite(bayes_actions(np.log([[0.5, 0.5]]), np.full((2, 2), 1e100)).expected_cost).all()
    single = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)
    assert bayes_actions(np.log([[0.25, 0.75]]), single).expected_cost.tolist() == [0.25]


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), np.int64(2), 2, 0.5])
def test_costs_may_be_numpy_numbers(number):
    costs = cost_matrix(("a", "b"), default=number, abstain=number, pairs={"a": {"b": number}})
    assert costs.tolist() == [[0.0, float(number), float(number)], [float(number), 0.0, float(number)]]


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_action_costs_least_and_moves_with_the_labels(seed):
    rng = np.random.default_rng(seed)
    p, costs = rng.dirichlet(np.ones(4), size=30), rng.random((4, 5))
    actions, expected = bayes_actions(np.log(p), costs)
    np.testing.assert_allclose(expected, (p @ costs).min(axis=1))
    order = rng.permutation(4)
    moved, _ = bayes_actions(np.log(p[:, order]), costs[order])
    np.testing.assert_array_equal(moved, actions)


def test_zero_one_costs_are_the_likeliest_label_and_chows_rule():
    p = np.random.default_rng(0).dirichlet(np.ones(3), size=200)
    costs = cost_matrix(("a", "b", "c"), abstain=0.3)
    actions = bayes_actions(np.log(p), costs).actions
    np.testing.assert_array_equal(actions, np.where(p.max(axis=1) < 0.7, 3, p.argmax(axis=1)))


@pytest.mark.parametrize("n", [1, 2, 3, 17, 1000])
def test_ties_go_to_the_lower_index_for_any_number_of_rows(n):
    thirds = np.full((n, 3), np.log(1 / 3))
    assert (bayes_actions(thirds, cost_matrix(("a", "b", "c"), default=0.1)).actions == 0).all()


@pytest.mark.parametrize("k", [2, 3, 5, 20, 150])
@pytest.mark.parametrize("abstain", [None, 0.3])
def test_a_row_costs_the_same_whatever_else_is_in_its_batch(k, abstain):
    # A threshold that is the score of a calibration row decides in the last digit.
    rng = np.random.default_rng(k)
    rows = np.log(rng.dirichlet(np.ones(k), size=60))
    names = [f"label {i}" for i in range(k)]
    costs = cost_matrix(names, default=1.7, abstain=abstain, pairs={names[0]: {names[1]: 9.1}})
    for method in (bayes_actions, cost_scored_actions):
        together = method(rows, costs)
        apart = [method(rows[i : i + 1], costs) for i in range(len(rows))]
        for column in range(2):
            np.testing.assert_array_equal(np.concatenate([one[column] for one in apart]), together[column])
