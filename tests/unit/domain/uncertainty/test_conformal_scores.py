"""Scores: their definitions, ties, depth, and that all ways to use one agree to the last bit."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.domain.conformal import METHODS, conformal_scores
from finetune.domain.conformal.scores import make_score
from finetune.domain.conformal.scores.base import Limits
from finetune.domain.errors import InvalidInput
from finetune.domain.probabilities import checked_rows
from finetune.domain.row_reader import INPUTS

RANDOMISABLE = ("aps", "raps", "saps")
FORMS = [(method, False) for method in METHODS] + [(method, True) for method in RANDOMISABLE]
OPTIONS = {"raps": {"penalty": 0.13, "k_reg": 2}, "saps": {"weight": 0.17}}
KINDS = ("smooth", "saturated", "ties", "one_hot", "masked", "neighbours")


def logits_of(kind, rng, n, k):
    if kind == "smooth":
        return rng.normal(0, 2, size=(n, k))
    if kind == "saturated":
        return rng.normal(0, 2, size=(n, k)) * rng.choice([40.0, 100.0, 500.0], size=(n, 1))
    if kind == "ties":
        return np.log(rng.integers(1, 4, size=(n, k)))
    if kind == "one_hot":
        with np.errstate(divide="ignore"):
            return np.log(np.eye(k)[rng.integers(0, k, n)])
    if kind == "neighbours":  # next to one another in floats: what rounds may fall where it must rise
        steps = 1 + rng.integers(0, 6, size=(n, k)) * 2.0**-52
        return np.where(np.arange(k) % 2, -rng.choice([0.3, 2.0, 900.0], size=(n, 1)), 1.0) * steps
    x = rng.normal(0, 2, size=(n, k)) * rng.choice([1.0, 300.0], size=(n, 1))
    x[rng.random((n, k)) < 0.3] = -np.inf
    x[:, 0] = 0.0
    return x


def rows_of(kind, inputs, dtype, rng, n, k):
    logits = logits_of(kind, rng, n, k)
    log_probs = logits - logits.max(axis=1, keepdims=True)
    log_probs -= np.log(np.exp(log_probs).sum(axis=1, keepdims=True))
    rows = {
        "logits": logits,
        "log_probabilities": np.minimum(log_probs, 0),
        "probabilities": np.exp(log_probs),
    }
    return checked_rows(rows[inputs].astype(dtype), inputs=inputs, name="rows")


def brute(method, p, u):
    """The papers, label by label, with groups of equal labels; the likeliest is least where u is None."""
    scores = np.empty_like(p)
    for row, label in itertools.product(range(len(p)), range(p.shape[1])):
        own, others = p[row, label], np.delete(p[row], label)
        above, level = p[row][p[row] > own].sum(), p[row][p[row] == own].sum()
        rank, best = (p[row] >= own).sum(), p[row].max()
        draw = 1.0 if u is None else u[row]
        mass = above + draw * level
        scores[row, label] = {
            "lac": 1 - own,
            "aps": mass,
            "raps": mass + 0.13 * max(rank - 2, 0),
            "saps": draw * best if own == best else best + (rank - 2 + draw) * 0.17,
            "margin": others.max() - own,
            "topk": rank,
        }[method]
        if u is None and own == best and method in ("aps", "raps", "saps", "topk"):
            scores[row, label] = 1.0 if method == "topk" else 0.0
    return scores


def as_published(method, scores):
    if method in ("lac", "aps", "margin"):
        return 1 - np.exp(-scores)
    return scores + 1 if method == "raps" else scores


@pytest.mark.parametrize(("method", "randomized"), FORMS)
@pytest.mark.parametrize("inputs", INPUTS)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_scores_are_those_of_the_papers_ties_and_zeros_included(method, randomized, inputs, seed):
    rng = np.random.default_rng(seed)
    p = rng.integers(0, 4, size=(8, 5)).astype(float)
    p[:, 0] += 1.0
    p /= p.sum(axis=1, keepdims=True)
    u = rng.random(8) if randomized else None
    with np.errstate(divide="ignore"):
        rows = p if inputs == "probabilities" else np.log(p)
    score = make_score(method, inputs=inputs, options=OPTIONS.get(method))
    expected = brute(method, p, u)
    np.testing.assert_allclose(as_published(method, score.matrix(rows, u)), expected, atol=1e-12)


@pytest.mark.parametrize("k", [2, 3, 20, 1000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_calibration_and_prediction_agree_to_the_last_bit(kind, inputs, dtype, k):
    rng = np.random.default_rng([k, len(kind)])
    n = 6000 // k + 20
    rows = rows_of(kind, inputs, dtype, rng, n, k)
    labels, order = rng.integers(0, k, n), rng.permutation(k)
    for method, randomized in FORMS:
        score, u = make_score(method, inputs=inputs), rng.random(n) if randomized else None
        if u is not None:
            u[::5], u[1::5] = 0.0, np.nextafter(1.0, 0.0)
        matrix = score.matrix(rows, u)
        assert not np.isnan(matrix).any()
        np.testing.assert_array_equal(score.of_labels(rows, labels, u), matrix[np.arange(n), labels])
        # Thresholds that are scores themselves: every label on the edge counts.
        own = matrix[np.arange(n), rng.integers(0, k, n)]
        own[:3] = np.inf, -np.inf, 0.0
        np.testing.assert_array_equal(score.sets(rows, own, u), matrix <= own[:, None])
        for other in (np.nextafter(own, -np.inf), rng.permutation(own)):
            np.testing.assert_array_equal(score.sets(rows, other, u), matrix <= other[:, None])
        for one in (np.inf, -np.inf, 0.0, matrix[0, 0], matrix[-1, 1]):
            np.testing.assert_array_equal(score.sets(rows, one, u), matrix <= one)
        each = matrix[rng.integers(0, n, k), np.arange(k)]
        each[0] = -np.inf
        np.testing.assert_array_equal(score.label_sets(rows, each, u), matrix <= each)
        # Nothing depends on the order of the columns, or on what else is in the batch.
        np.testing.assert_array_equal(score.matrix(rows[:, order].copy(), u), matrix[:, order])
        part = slice(7, 9)
        np.testing.assert_array_equal(score.matrix(rows[part], None if u is None else u[part]), matrix[part])


@pytest.mark.parametrize(("method", "randomized"), FORMS)
@pytest.mark.parametrize("k", [2, 5, 500])
def test_many_blocks_of_rows_give_what_single_rows_give(method, randomized, k):
    rng = np.random.default_rng(k)
    n = 200_000 // k
    rows = rows_of("smooth", "probabilities", np.float32, rng, n, k)
    labels, u = rng.integers(0, k, n), rng.random(n) if randomized else None
    score = make_score(method)
    scores, sets = score.of_labels(rows, labels, u), score.sets(rows, 0.7, u)
    for i in range(0, n, n // 30):
        one, draw = slice(i, i + 1), None if u is None else u[i : i + 1]
        assert score.of_labels(rows[one], labels[one], draw) == scores[i]
        np.testing.assert_array_equal(score.sets(rows[one], 0.7, draw)[0], sets[i])


@pytest.mark.parametrize(("method", "randomized"), FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_likelier_labels_are_never_stranger(method, randomized, kind):
    rng = np.random.default_rng(0)
    for inputs in INPUTS:
        rows = rows_of(kind, inputs, np.float64, rng, 50, 12)
        u = rng.random(50) if randomized else None
        matrix = make_score(method, inputs=inputs).matrix(rows, u)
        ordered = np.take_along_axis(matrix, np.argsort(rows, axis=1), axis=1)
        assert (ordered[:, 1:] <= ordered[:, :-1]).all()


@pytest.mark.parametrize("method", ["aps", "raps", "saps", "topk"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_likeliest_label_is_in_every_deterministic_set_that_calibration_can_ask_for(method, kind):
    rng = np.random.default_rng(1)
    rows = rows_of(kind, "probabilities", np.float64, rng, 100, 7)
    score = make_score(method)
    least = score.matrix(rows).min()
    likeliest = rows == rows.max(axis=1, keepdims=True)
    assert score.sets(rows, least)[likeliest].all()
    assert not score.sets(rows, np.nextafter(least, -np.inf)).any()


def test_rows_that_sum_to_more_than_one_by_rounding_have_no_score_below_the_least():
    k = 40_000
    p = np.full((1, k), 1 / k, dtype=np.float32) * np.float32(1.00009)
    p[0, 7] *= 1.01
    p[0, 8] *= 1.005
    rows = checked_rows(p, name="rows")
    for method, least in (("aps", 0.0), ("raps", -1.0)):
        score = make_score(method, options={"penalty": 0.0} if method == "raps" else None)
        matrix = score.matrix(rows)
        assert matrix.min() == matrix[0, 7] == least
        np.testing.assert_array_equal(score.sets(rows, least), matrix <= least)


def test_labels_are_told_apart_below_the_smallest_float():
    log_probs = np.array([[0.0, -800.0, -900.0, -2000.0]])

    def scores(method, u=None):
        return conformal_scores(log_probs, method, inputs="log_probabilities", u=u)

    np.testing.assert_allclose(scores("lac"), -log_probs)
    np.testing.assert_allclose(scores("aps"), [[0.0, 900.0, 2000.0, np.inf]])
    np.testing.assert_allclose(scores("aps", [0.5]), -log_probs + np.log(2))
    np.testing.assert_allclose(scores("margin"), [[-np.log(2), 800.0 - np.log(2), 800.0, 800.0]])


def test_golden_numbers():
    row = [[0.4, 0.3, 0.2, 0.1]]
    u = [0.25]
    np.testing.assert_allclose(np.exp(-conformal_scores(row, "lac")), row)
    np.testing.assert_allclose(1 - np.exp(-conformal_scores(row, "aps")), [[0, 0.7, 0.9, 1]])
    np.testing.assert_allclose(1 - np.exp(-conformal_scores(row, "aps", u=u)), [[0.1, 0.475, 0.75, 0.925]])
    raps = conformal_scores(row, "raps", penalty=0.1, k_reg=2)
    np.testing.assert_allclose(raps + 1, [[0, 0.7, 1.0, 1.2]], atol=1e-15)
    raps = conformal_scores(row, "raps", penalty=0.1, k_reg=2, u=u)
    np.testing.assert_allclose(raps + 1, [[0.1, 0.475, 0.85, 1.125]])  # the penalty is not multiplied by u
    np.testing.assert_allclose(conformal_scores(row, "saps", weight=0.1), [[0, 0.5, 0.6, 0.7]])
    np.testing.assert_allclose(conformal_scores(row, "saps", weight=0.1, u=u), [[0.1, 0.425, 0.525, 0.625]])
    np.testing.assert_allclose(1 - np.exp(-conformal_scores(row, "margin")), [[-0.1, 0.1, 0.2, 0.3]])
    np.testing.assert_allclose(conformal_scores(row, "topk"), [[1, 2, 3, 4]])
    assert not np.signbit(conformal_scores([[1.0, 0.0]], "lac")).any()  # no threshold reads -0.0


@pytest.mark.parametrize(("method", "randomized"), FORMS)
@pytest.mark.parametrize("kind", ["one_hot", "masked", "saturated"])
def test_a_zero_with_a_sign_is_a_zero(method, randomized, kind):
    rng = np.random.default_rng(4)
    rows = rows_of(kind, "probabilities", np.float32, rng, 300, 6)
    signed = np.where((rows == 0.0) & (rng.random(rows.shape) < 0.5), np.float32(-0.0), rows)
    assert np.signbit(signed).any()
    labels, u = rng.integers(0, 6, 300), rng.random(300) if randomized else None
    score = make_score(method, options=OPTIONS.get(method, {}))
    for of in (
        lambda rows: score.of_labels(rows, labels, u),
        lambda rows: score.matrix(rows, u),
        lambda rows: [score.quantile(rows, labels, rank, u) for rank in (1, 100, 299, 300)],
        lambda rows: score.sets(rows, float(np.median(score.matrix(rows, u))), u),
        lambda rows: score.sets(rows, math.inf, u),
    ):
        np.testing.assert_array_equal(of(signed), of(rows))


def test_raps_without_a_penalty_orders_as_aps():
    rng = np.random.default_rng(2)
    rows, u = rng.dirichlet(np.ones(6), size=50), rng.random(50)
    for draw in (None, u):
        aps, raps = conformal_scores(rows, "aps", u=draw), conformal_scores(rows, "raps", u=draw, penalty=0)
        np.testing.assert_allclose(-np.exp(-aps), raps, atol=1e-15)


@given(st.floats(min_value=-800.0, max_value=800.0) | st.sampled_from([math.inf, -math.inf, 0.0]))
def test_the_cut_is_the_least_float_whose_logarithm_is_within(threshold):
    cut = float(Limits.of(threshold).cut)
    with np.errstate(divide="ignore"):
        assert -np.log(cut) <= threshold
        if cut > 0:
            assert -np.log(np.nextafter(cut, 0.0)) > threshold


@given(st.floats(min_value=5e-324, max_value=2.0))
def test_a_threshold_lets_its_own_probability_in(p):
    with np.errstate(divide="ignore"):
        assert Limits.of(0.0 - np.log(p)).cut <= p


def test_extreme_options_give_no_nan():
    rng = np.random.default_rng(3)
    rows, u = rng.dirichlet(np.ones(6), size=20), rng.random(20)
    for method, options in [
        ("raps", {"penalty": 1e308, "k_reg": 0}),
        ("raps", {"penalty": 0.0, "k_reg": 2**53}),
        ("saps", {"weight": 1e308}),
        ("saps", {"weight": 0.0}),
    ]:
        score = make_score(method, options=options)
        for draw in (None, u):
            matrix = score.matrix(rows, draw)
            assert (matrix > -np.inf).all()
            for threshold in (0.0, 0.5, matrix[0, 0], np.inf):
                np.testing.assert_array_equal(score.sets(rows, threshold, draw), matrix <= threshold)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("raps", {"penalty": -0.1}),
        ("raps", {"penalty": math.nan}),
        ("raps", {"penalty": math.inf}),
        ("raps", {"penalty": "0.1"}),
        ("raps", {"penalty": True}),
        ("raps", {"k_reg": -1}),
        ("raps", {"k_reg": 1.5}),
        ("raps", {"k_reg": math.inf}),
        ("raps", {"k_reg": None}),
        ("saps", {"weight": -1}),
        ("saps", {"penalty": 0.1}),
        ("lac", {"weight": 0.1}),
        ("naive", {}),
        (None, {}),
    ],
)
def test_wrong_methods_and_options(method, options):
    with pytest.raises(InvalidInput):
        make_score(method, options=options)


def test_options_that_json_changed_are_read():
    assert make_score("raps", options={"k_reg": 2.0}).options == {"penalty": 0.01, "k_reg": 2}
    assert make_score("raps", options={"penalty": 1}).options["penalty"] == 1.0


@pytest.mark.parametrize(
    ("method", "u"),
    [("lac", [0.5]), ("aps", [1.0]), ("aps", [-0.1]), ("aps", [0.5, 0.5]), ("aps", [math.nan]), ("aps", "a")],
)
def test_wrong_draws(method, u):
    with pytest.raises(InvalidInput):
        conformal_scores([[0.5, 0.5]], method, u=u)


def test_numpy_settings_of_the_caller_do_not_reach_the_scores():
    rng = np.random.default_rng(4)
    with np.errstate(all="raise"):
        for kind, inputs in itertools.product(KINDS, INPUTS):
            with np.errstate(all="ignore"):
                rows = rows_of(kind, inputs, np.float64, rng, 10, 4)
            for method, randomized in FORMS:
                score, u = make_score(method, inputs=inputs), rng.random(10) if randomized else None
                matrix = score.matrix(rows, u)
                for threshold in (-np.inf, matrix[0, 1], np.inf):
                    score.sets(rows, threshold, u)
                    score.label_sets(rows, np.full(4, threshold), u)


@pytest.mark.parametrize(("method", "randomized"), FORMS)
def test_memory_beside_the_answer_is_less_than_a_quarter_of_the_rows(method, randomized):
    import tracemalloc

    rng = np.random.default_rng(5)
    rows = rows_of("smooth", "probabilities", np.float32, rng, 100_000, 40)
    u, labels = rng.random(len(rows)) if randomized else None, rng.integers(0, 40, len(rows))
    score = make_score(method)
    for call, answer in [
        (lambda: score.of_labels(rows, labels, u), 8 * len(rows)),
        (lambda: score.sets(rows, 0.7, u), rows.size),
        (lambda: score.label_sets(rows, np.full(40, 0.7), u), rows.size),
    ]:
        tracemalloc.start()
        call()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < answer + rows.nbytes / 4
