"""Weighted conformal quantiles and the predictor on top of them."""

import json
import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.domain.conformal.quantile import conformal_rank
from finetune.domain.conformal.split import ConformalPredictor
from finetune.domain.conformal.weighted import effective_sample_size, weighted_conformal_quantile
from finetune.domain.conformal.weighted_predictor import WeightedConformalPredictor
from finetune.domain.errors import CoverageWarning, InvalidInput

ALPHAS = [0.001, 0.01, 0.05, 0.1, 0.2, 0.25, 0.3, 1 / 3, 0.5, 0.7, 0.9, 0.99]


def draw(seed, n=200, k=4):
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.ones(k), size=n)
    labels = np.minimum((rows.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1), k - 1)
    return rows, labels, 2 * rows[:, 0]


def by_definition(scores, weights, test_weight, alpha):
    pairs = [(score, Fraction(weight)) for score, weight in zip(scores, weights, strict=True)]
    share = (1 - Fraction(str(alpha))) * (sum(w for _, w in pairs) + Fraction(test_weight))
    reached = [s for s in sorted(scores) if sum(w for score, w in pairs if score <= s) >= share]
    return reached[0] if reached else math.inf


@pytest.mark.parametrize("weight", [1.0, 0.1, 1 / 3, 1e-300, 7e307, 5e-324])
@pytest.mark.parametrize("sizes", [range(1, 300), pytest.param(range(300, 2001), marks=pytest.mark.slow)])
def test_equal_weights_give_the_score_of_the_conformal_rank_for_every_n(weight, sizes):
    for n in sizes:
        scores = np.arange(1.0, n + 1)
        for alpha in ALPHAS:
            rank = conformal_rank(n, alpha)
            found = weighted_conformal_quantile(scores, np.full(n, weight), [weight], alpha)
            assert found[0] == (rank if rank <= n else math.inf), (n, alpha)


def test_equal_weights_are_decided_where_float_sums_are_not():
    # A running sum in floats misses the k-th score somewhere, else the test above says little.
    wrong = 0
    for n in range(1, 400):
        through = np.cumsum(np.full(n, 0.1))
        for alpha in ALPHAS:
            place = np.searchsorted(through, (1 - alpha) * (through[-1] + 0.1))
            wrong += place != conformal_rank(n, alpha) - 1
    assert wrong > 10


numbers = st.one_of(
    st.sampled_from([0.0, 0.1, 0.2, 0.3, 1.0, 2.0, 3.0]),
    st.floats(0, np.finfo(float).max),
    st.floats(0, 1),
)


@given(
    st.lists(
        st.tuples(st.sampled_from([-math.inf, 0.0, 0.5, 1.0, 2.0, math.inf]), numbers),
        min_size=1,
        max_size=15,
    ),
    st.lists(numbers, min_size=1, max_size=5),
    st.one_of(st.sampled_from(ALPHAS), st.floats(1e-9, 1 - 1e-9)),
)
@settings(max_examples=200)
def test_quantile_equals_the_definition_in_fractions(pairs, test_weights, alpha):
    scores, weights = zip(*pairs, strict=True)
    if not any(weights):
        with pytest.raises(InvalidInput, match="all 0"):
            weighted_conformal_quantile(scores, weights, test_weights, alpha)
        return
    expected = [by_definition(scores, weights, new, alpha) for new in test_weights]
    np.testing.assert_array_equal(weighted_conformal_quantile(scores, weights, test_weights, alpha), expected)


def test_threshold_of_a_row_does_not_depend_on_its_batch():
    scores, weights = [1.0, 2.0, 3.0], [5e-324, 1e-323, 5e-324]
    alone = weighted_conformal_quantile(scores, weights, [5e-324], 0.5)
    assert weighted_conformal_quantile(scores, weights, [5e-324, 1e308], 0.5).tolist() == [*alone, math.inf]
    assert alone == 2.0


@given(st.integers(0, 10**6), st.integers(1, 50))
def test_order_of_the_calibration_rows_does_not_matter(seed, n):
    rng = np.random.default_rng(seed)
    scores, weights, order = rng.integers(0, 5, n) / 7, rng.random(n) + 0.01, rng.permutation(n)
    new = rng.random(20)
    np.testing.assert_array_equal(
        weighted_conformal_quantile(scores, weights, new, 0.2),
        weighted_conformal_quantile(scores[order], weights[order], new, 0.2),
    )


@given(st.integers(0, 10**6), st.integers(-30, 30))
def test_a_common_factor_does_not_matter(seed, power):
    rng = np.random.default_rng(seed)
    scores, weights, new = rng.random(30), rng.random(30), rng.random(20)
    np.testing.assert_array_equal(
        weighted_conformal_quantile(scores, weights, new, 0.1),
        weighted_conformal_quantile(scores, weights * 2.0**power, new * 2.0**power, 0.1),
    )


def test_threshold_rises_with_the_weight_and_falls_with_alpha():
    rng = np.random.default_rng(0)
    scores, weights, new = rng.random(300), rng.random(300), np.linspace(0, 100, 1001)
    of = [weighted_conformal_quantile(scores, weights, new, alpha) for alpha in (0.01, 0.1, 0.3, 0.8)]
    for thresholds in of:
        assert (thresholds[1:] >= thresholds[:-1]).all()
    for strict, loose in pairwise(of):
        assert (loose <= strict).all()
    assert np.isinf(of[0]).any()
    assert np.isfinite(of[3]).all()


@pytest.mark.parametrize(
    ("scores", "weights", "new"),
    [
        ([1.0], [1.0, 1.0], [1.0]),
        ([1.0], [-1.0], [1.0]),
        ([1.0], [math.nan], [1.0]),
        ([1.0], [math.inf], [1.0]),
        ([1.0], [0.0], [1.0]),
        ([1.0], [1.0], [-1.0]),
        ([1.0], [1.0], [math.inf]),
        ([1.0], [1.0], []),
        ([1.0], [1.0], 1.0),
        ([math.nan], [1.0], [1.0]),
        ([], [], [1.0]),
        (None, [1.0], [1.0]),
    ],
)
def test_bad_weights(scores, weights, new):
    with pytest.raises(InvalidInput):
        weighted_conformal_quantile(scores, weights, new, 0.1)


@given(st.lists(st.floats(0, 1e300), min_size=1, max_size=30))
def test_effective_sample_size(weights):
    if not any(weights):
        with pytest.raises(InvalidInput):
            effective_sample_size(weights)
        return
    size = effective_sample_size(weights)
    assert 1 - 1e-9 <= size <= np.count_nonzero(weights) + 1e-9


@pytest.mark.parametrize(("method", "randomized"), [("lac", False), ("aps", False), ("aps", True)])
def test_equal_weights_give_the_sets_of_the_split_predictor(method, randomized):
    rows, labels, _ = draw(0)
    split = ConformalPredictor(method, randomized=randomized, rng=np.random.default_rng(1))
    weighted = WeightedConformalPredictor(method, randomized=randomized, rng=np.random.default_rng(1))
    split.calibrate(rows, labels, alpha=0.1)
    weighted.calibrate(rows, labels, np.full(200, 0.3), alpha=0.1)
    np.testing.assert_array_equal(weighted.predict(rows, np.full(200, 0.3)), split.predict(rows))
    assert weighted.effective_sample_size == pytest.approx(200)


def test_sets_come_from_the_threshold_of_their_row():
    rows, labels, ratio = draw(1)
    predictor = WeightedConformalPredictor().calibrate(rows, labels, ratio, alpha=0.1)
    sets = predictor.predict(rows, ratio)
    one_by_one = [predictor.predict(rows[i : i + 1], ratio[i : i + 1])[0] for i in range(200)]
    np.testing.assert_array_equal(sets, one_by_one)
    scores = -np.log(rows)
    np.testing.assert_array_equal(sets, scores <= predictor.thresholds(ratio)[:, None])
    of_rows = scores[np.arange(200), labels]
    np.testing.assert_array_equal(
        predictor.thresholds(ratio), weighted_conformal_quantile(of_rows, ratio, ratio, 0.1)
    )


def test_a_row_that_is_too_heavy_gets_everything_with_a_warning():
    rows, labels, ratio = draw(2)
    predictor = WeightedConformalPredictor().calibrate(rows, labels, ratio, alpha=0.1)
    most = predictor.greatest_weight
    assert most == pytest.approx(ratio.sum() / 9)
    assert np.isfinite(predictor.thresholds([most * (1 - 1e-9)])).all()
    with pytest.warns(CoverageWarning, match="1 of 2 sets hold all labels"):
        sets = predictor.predict(rows[:2], [most * (1 + 1e-9), 0.0])
    assert sets[0].all()
    assert not sets[1].all()


@pytest.mark.parametrize("n_excluded", [0, 5, 10, 50])
def test_greatest_weight_where_the_model_excludes_true_labels(n_excluded):
    rows, labels, ratio = draw(2)
    rows[:n_excluded], labels[:n_excluded] = [1.0, 0.0, 0.0, 0.0], 1  # their score is +inf
    predictor = WeightedConformalPredictor().calibrate(rows, labels, ratio, alpha=0.1)
    most = predictor.greatest_weight
    assert (most > 0.0) == (n_excluded < 50)
    assert np.isposinf(predictor.thresholds([most * (1 + 1e-9), most + 1e-9, most + 1.0])).all()
    if most > 0.0:
        assert np.isfinite(predictor.thresholds([most * (1 - 1e-9), 0.0])).all()
    else:
        with pytest.warns(CoverageWarning, match="2 of 2 sets hold all labels: .* weights above 0;"):
            assert predictor.predict(rows[:2], [1e-9, 1.0]).all()


def test_statement_of_the_weighted_predictor():
    rows, labels, ratio = draw(3)
    predictor = WeightedConformalPredictor().calibrate(rows, labels, ratio, alpha=0.1)
    assert "at least 0.9, provided that the weights say exactly" in predictor.statement
    assert "the 200 calibration cases" in predictor.statement
    assert f"{predictor.effective_sample_size:.1f} cases of equal weight" in predictor.statement


def test_weighted_predictor_survives_a_restart():
    rows, labels, ratio = draw(4)
    labels[0] = rows[0].argmin()
    rng = np.random.default_rng(0)
    predictor = WeightedConformalPredictor("aps", randomized=True, rng=rng)
    rows[0] = np.eye(4)[rows[0].argmax()]  # a score of +inf or close
    predictor.calibrate(rows, labels, ratio, alpha=0.1)
    record = json.loads(json.dumps(predictor.to_dict(), allow_nan=False))
    again = WeightedConformalPredictor.from_dict(record, rng=np.random.default_rng(7))
    rng.bit_generator.state = np.random.default_rng(7).bit_generator.state
    assert again.to_dict() == record
    assert again.statement == predictor.statement
    np.testing.assert_array_equal(again.predict(rows, ratio), predictor.predict(rows, ratio))


@pytest.mark.parametrize(
    "change",
    [
        {"scores": [0.0]},
        {"scores": []},
        {"weights": [0.0] * 200},
        {"alpha": 1.0},
        {"n_labels": 1},
        {"method": "x"},
    ],
)
def test_bad_records_of_the_weighted_predictor(change):
    rows, labels, ratio = draw(5)
    record = WeightedConformalPredictor().calibrate(rows, labels, ratio).to_dict()
    with pytest.raises(InvalidInput):
        WeightedConformalPredictor.from_dict(record | change)


def test_misuse_of_the_weighted_predictor():
    rows, labels, ratio = draw(6)
    predictor = WeightedConformalPredictor()
    for call in (lambda: predictor.predict(rows, ratio), lambda: predictor.statement):
        with pytest.raises(InvalidInput, match="not calibrated"):
            call()
    predictor.calibrate(rows, labels, ratio)
    for bad_rows, bad_weights in [
        (rows, ratio[:3]),
        (rows[:3], ratio),
        (rows[:, :3] / rows[:, :3].sum(axis=1, keepdims=True), ratio),
        (rows, -ratio),
        (rows, None),
    ]:
        with pytest.raises(InvalidInput):
            predictor.predict(bad_rows, bad_weights)
    with pytest.raises(InvalidInput):
        predictor.calibrate(rows, labels, ratio[:3])
    with pytest.raises(InvalidInput):
        predictor.calibrate(rows, labels, ratio, alpha=0)
