"""Conformal rank, quantile, coverage law, scores and the split predictor."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.domain.conformal import (
    METHODS,
    ConformalPredictor,
    CoverageLaw,
    conformal_quantile,
    conformal_rank,
    fewest_rows,
)
from finetune.domain.conformal.quantile import select
from finetune.domain.errors import InvalidInput

RANDOMISABLE = ("aps", "raps", "saps")
FORMS = [(method, False) for method in METHODS] + [(method, True) for method in RANDOMISABLE]


def draw(seed, n=100, k=5, scale=1.0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, size=(n, k))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.minimum((p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1), k - 1)
    return logits * scale, labels


def softmax(logits):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def test_rank_equals_the_fraction_for_every_n_up_to_5000():
    n = np.arange(1, 5001)
    for thousandths in (1, 3, 10, 25, 50, 77, 100, 123, 150, 200, 250, 300, 333, 400, 500, 700, 900, 999):
        exact = -(-(n + 1) * (1000 - thousandths) // 1000)  # ceil, in whole numbers
        alpha = thousandths / 1000
        assert [conformal_rank(size, alpha) for size in n.tolist()] == exact.tolist()


@given(st.integers(1, 9999))
def test_fewest_rows_are_the_first_that_have_a_threshold(ten_thousandths):
    alpha = ten_thousandths / 10_000
    n = fewest_rows(alpha)
    assert conformal_rank(n, alpha) <= n
    assert n == 1 or conformal_rank(n - 1, alpha) > n - 1


@given(st.integers(1, 10**7), st.integers(1, 9999))
@settings(deadline=None)
def test_rank_is_exact(n, ten_thousandths):
    alpha = ten_thousandths / 10_000
    assert conformal_rank(n, alpha) == math.ceil((n + 1) * (1 - Fraction(ten_thousandths, 10_000)))


def test_rank_is_exact_where_float_arithmetic_is_not():
    cells = [(n, a / 100) for n in range(1, 1000) for a in range(1, 100, 3)]
    wrong = sum(math.ceil((n + 1) * (1 - a)) != conformal_rank(n, a) for n, a in cells)
    assert wrong > 0
    assert all(conformal_rank(n, a) == -(-(n + 1) * (100 - round(100 * a)) // 100) for n, a in cells)


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=50), st.floats(0.001, 0.999))
@settings(deadline=None)
def test_quantile_is_the_score_of_that_rank(scores, alpha):
    rank = conformal_rank(len(scores), alpha)
    expected = math.inf if rank > len(scores) else sorted(scores)[rank - 1]
    assert conformal_quantile(scores, alpha) == expected


@settings(deadline=None)
@given(
    n=st.integers(1, 20_000) | st.sampled_from([4095, 4096, 4097]),
    kind=st.sampled_from(["continuous", "ties", "rising", "falling", "misleading sample", "infinite"]),
    dtype=st.sampled_from([np.int32, np.float64]),
    share=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_selected_value_is_the_one_at_its_place(n, kind, dtype, share, seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(-(2**31), 2**31, size=n).astype(dtype)
    if kind == "ties":
        values = rng.integers(0, 3, size=n).astype(dtype)
    elif kind in ("rising", "falling"):
        values.sort()
        values = values[:: 1 if kind == "rising" else -1].copy()
    elif kind == "misleading sample":
        values[:: int(n ** (1 / 3))] = values.min()
    elif kind == "infinite" and dtype == np.float64:
        values[rng.random(n) < 0.3] = math.inf
        values[rng.random(n) < 0.3] = -math.inf
    place = min(int(share * n), n - 1)
    assert select(values.copy(), place) == np.sort(values)[place]


@pytest.mark.parametrize(("n", "expected"), [(9, (9, 10)), (15, (15, 16)), (30, (28, 31)), (100, (91, 101))])
def test_expected_coverage(n, expected):
    assert CoverageLaw(n, conformal_rank(n, 0.1)).expected == expected[0] / expected[1]


def test_the_plus_one_matters():
    # np.quantile(scores, 0.9) of 19 scores covers 0.86 on average.
    assert CoverageLaw(19, conformal_rank(19, 0.1)).expected == 0.9


@pytest.mark.parametrize(
    ("epsilon", "n"), [(0.1, 22), (0.05, 102), (0.01, 2491), (0.005, 9812), (0.001, 244390)]
)
def test_published_calibration_sizes(epsilon, n):
    def inside(n):
        low, high, _ = CoverageLaw(n, conformal_rank(n, 0.1)).interval(0.9)
        return 0.9 - epsilon <= low and high <= 0.9 + epsilon

    assert inside(n)
    assert not inside(n - 1)


@given(st.integers(1, 300), st.floats(0.01, 0.99), st.integers(1, 200), st.sampled_from([0.5, 0.9, 0.99]))
@settings(max_examples=40, deadline=None)
def test_law_equals_scipy(n, alpha, n_test, level):
    from scipy.stats import beta, betabinom

    rank = conformal_rank(n, alpha)
    law = CoverageLaw(n, rank)
    ends = [(1 - level) / 2, (1 + level) / 2]
    if rank > n:
        assert law.interval(level)[:2] == law.test_band(n_test, level)[:2] == (1.0, 1.0)
        assert law.expected == 1.0
        return
    np.testing.assert_allclose(law.interval(level)[:2], beta(rank, n + 1 - rank).ppf(ends), rtol=1e-7)
    mass = betabinom(n_test, rank, n + 1 - rank).pmf(np.arange(n_test + 1)).cumsum()
    if np.abs(mass[:, None] - ends).min() > 1e-9:
        expected = np.searchsorted(mass, ends) / n_test
        np.testing.assert_array_equal(law.test_band(n_test, level)[:2], expected)


def test_band_of_many_test_rows_is_the_law_itself():
    law = CoverageLaw(100, 91)
    np.testing.assert_allclose(law.test_band(10**6)[:2], law.interval()[:2], atol=1e-4)


@pytest.mark.parametrize("law", [(5, 7), (-1, 1), (0, 1), (5, 0), (5, 2.0), ("5", 2), (None, None)])
def test_impossible_law(law):
    with pytest.raises(InvalidInput):
        CoverageLaw(*law).interval()
    with pytest.raises(InvalidInput):
        CoverageLaw(*law).test_band(10)
    with pytest.raises(InvalidInput):
        _ = CoverageLaw(*law).expected


def test_deterministic_aps_never_empties_the_set_of_a_sure_row():
    rng = np.random.default_rng(5)
    probs = rng.dirichlet(np.full(6, 0.2), size=4000)
    labels = (probs.cumsum(axis=1) > rng.random((4000, 1))).argmax(axis=1)
    predictor = ConformalPredictor("aps").calibrate(probs[:2000], labels[:2000], alpha=0.1)
    sets = predictor.predict(probs[2000:])
    assert sets.any(axis=1).all()
    assert sets[np.arange(2000), labels[2000:]].mean() > 0.88


@pytest.mark.parametrize("method", METHODS)
@given(seed=st.integers(0, 10**6), alphas=st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99)))
@settings(max_examples=30, deadline=None)
def test_sets_are_nested_in_alpha(method, seed, alphas):
    logits, labels = draw(seed)
    small, large = (
        ConformalPredictor(method, inputs="logits").calibrate(logits, labels, alpha).predict(logits)
        for alpha in sorted(alphas, reverse=True)
    )
    assert not (small & ~large).any()


@pytest.mark.parametrize("method", METHODS)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_sets_move_with_the_labels(method, seed):
    logits, labels = draw(seed)
    p = softmax(logits)
    order = np.random.default_rng(seed).permutation(5)
    one = ConformalPredictor(method).calibrate(p, labels).predict(p)
    other = ConformalPredictor(method).calibrate(p[:, order], np.argsort(order)[labels]).predict(p[:, order])
    # The row that sets the threshold may round to either side of it.
    assert (one[:, order] != other).sum() <= 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [19, 100])
def test_the_rank_is_what_is_covered_in_calibration(method, n):
    """What packages get wrong that score, round or break ties differently in prediction."""
    logits, labels = draw(n, n=n)
    predictor = ConformalPredictor(method, inputs="logits").calibrate(logits, labels, alpha=0.1)
    scores = predictor._scorer.score.of_labels(logits, labels)
    covered = predictor.predict(logits)[np.arange(n), labels]
    np.testing.assert_array_equal(covered, scores <= predictor.threshold)  # one rule, to the last bit
    # No label too many, none too few; the likeliest labels, and equal ranks, tie.
    tied = (scores == predictor.threshold).sum() - 1
    assert predictor.rank <= covered.sum() <= predictor.rank + tied
    assert tied == 0 or method == "topk"


def test_one_row_at_a_time_gives_the_sets_of_the_batch():
    logits, labels = draw(3, n=300, k=50)
    predictor = ConformalPredictor("aps", inputs="logits").calibrate(logits, labels)
    alone = np.vstack([predictor.predict(row[None]) for row in logits])
    np.testing.assert_array_equal(alone, predictor.predict(logits))
    assert predictor.predict(logits[:3]).sum(axis=1).max() > 3  # not capped at the batch size


@pytest.mark.parametrize("method", METHODS)
def test_sets_survive_blocks_and_memory_order(method):
    logits, labels = draw(4, n=20_000, k=20)
    predictor = ConformalPredictor(method, inputs="logits").calibrate(logits, labels)
    sets = predictor.predict(logits)
    np.testing.assert_array_equal(predictor.predict(np.asfortranarray(logits)), sets)
    np.testing.assert_array_equal(np.vstack([predictor.predict(half) for half in np.split(logits, 2)]), sets)


@pytest.mark.parametrize(("method", "randomized"), FORMS)
@pytest.mark.parametrize("scale", [40.0, 100.0])
def test_saturated_logits_keep_their_coverage_and_do_not_give_everything(method, scale, randomized):
    logits, labels = draw(8, n=8000, k=20, scale=scale)
    predictor = ConformalPredictor(
        method, inputs="logits", randomized=randomized, rng=np.random.default_rng(0)
    ).calibrate(logits[:4000], labels[:4000], alpha=0.1)
    sets = predictor.predict(logits[4000:])
    coverage = sets[np.arange(4000), labels[4000:]].mean()
    low, high, _ = predictor.law.test_band(4000, 0.9999)
    assert low <= coverage
    if method in ("lac", "aps"):  # the others tell saturated labels apart less well, or not at all
        assert coverage <= high
        assert sets.sum(axis=1).mean() < 12


@pytest.mark.parametrize("method", METHODS)
def test_probabilities_that_rounded_to_zero_are_not_dropped(method):
    logits, labels = draw(9, n=4000, k=20, scale=500.0)
    p = softmax(logits)
    assert (p[np.arange(4000), labels] == 0).mean() > 0.1
    predictor = ConformalPredictor(method).calibrate(p[:2000], labels[:2000], alpha=0.1)
    sets = predictor.predict(p[2000:])
    assert sets[np.arange(2000), labels[2000:]].mean() > 0.87
    if method in ("lac", "aps"):  # the score of such a label is +inf
        assert predictor.covers_everything
        assert sets.all()
        assert "the model excludes true labels" in predictor.statement


def test_too_few_rows_give_everything_and_say_so():
    logits, labels = draw(1, n=8)
    predictor = ConformalPredictor(inputs="logits").calibrate(logits, labels, alpha=0.1)
    assert predictor.covers_everything
    assert predictor.threshold == math.inf
    assert predictor.rank == 9
    assert predictor.law.expected == 1.0
    assert predictor.predict(logits).all()
    assert "8 calibration cases are too few" in predictor.statement


def test_statement():
    logits, labels = draw(1, n=99)
    statement = ConformalPredictor(inputs="logits").calibrate(logits, labels, alpha=0.1).statement
    for part in (
        "at least 0.9,",
        "99 calibration cases",
        "does not hold for each label",
        "0.8467 and 0.9442",
    ):
        assert part in statement


def test_misuse():
    logits, labels = draw(2)
    with pytest.raises(InvalidInput, match="calibrate first"):
        ConformalPredictor().predict(softmax(logits))
    with pytest.raises(InvalidInput, match="calibrate first"):
        _ = ConformalPredictor().statement
    with pytest.raises(InvalidInput, match="5 labels"):
        ConformalPredictor(inputs="logits").calibrate(logits, labels).predict(logits[:, :4])
    with pytest.raises(InvalidInput, match="generator"):
        ConformalPredictor("aps", randomized=True)
    with pytest.raises(InvalidInput, match="no randomised form"):
        ConformalPredictor("lac", randomized=True, rng=np.random.default_rng(0))
    with pytest.raises(InvalidInput, match="its options are penalty, k_reg"):
        ConformalPredictor("raps", weight=0.1)
    with pytest.raises(InvalidInput, match="takes none"):
        ConformalPredictor("aps", penalty=0.1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("inputs", ["logits", "probabilities"])
@pytest.mark.parametrize("n", [5, 200])
def test_json_round_trip_reproduces_the_sets(method, inputs, n):
    logits, labels = draw(11, n=n)
    rows = logits if inputs == "logits" else softmax(logits).astype(np.float32)
    predictor = ConformalPredictor(method, inputs=inputs).calibrate(rows, labels, alpha=0.1)
    text = json.dumps(predictor.to_dict(), allow_nan=False)
    again = ConformalPredictor.from_dict(json.loads(text))
    np.testing.assert_array_equal(again.predict(rows), predictor.predict(rows))
    assert again.statement == predictor.statement
    assert again.to_dict() == predictor.to_dict()


def test_options_travel_with_the_record():
    logits, labels = draw(11)
    predictor = ConformalPredictor("raps", inputs="logits", penalty=0.3, k_reg=2).calibrate(logits, labels)
    again = ConformalPredictor.from_dict(json.loads(json.dumps(predictor.to_dict())))
    assert again.options == {"penalty": 0.3, "k_reg": 2}
    np.testing.assert_array_equal(again.predict(logits), predictor.predict(logits))
    plain = ConformalPredictor("raps", inputs="logits").calibrate(logits, labels)
    assert (plain.predict(logits) != again.predict(logits)).any()


@pytest.mark.parametrize("method", ["lac", "aps"])
def test_records_of_before_there_were_options_are_read(method):
    logits, labels = draw(11)
    record = ConformalPredictor(method, inputs="logits").calibrate(logits, labels).to_dict()
    del record["options"]
    assert ConformalPredictor.from_dict(record).options == {}


@pytest.mark.parametrize(
    "change",
    [
        {"rank": 3},
        {"version": 2},
        {"threshold": None},
        {"threshold": math.nan},
        {"method": "naive"},
        {"n_labels": 1},
        {"alpha": 9.0},
        {"more": 1},
        {"options": {"penalty": 0.1}},
        {"options": None},
    ],
)
def test_damaged_records_are_refused(change):
    logits, labels = draw(12)
    record = ConformalPredictor(inputs="logits").calibrate(logits, labels).to_dict()
    with pytest.raises(InvalidInput):
        ConformalPredictor.from_dict({**record, **change})


def test_a_record_of_too_few_rows_has_no_threshold():
    logits, labels = draw(12, n=8)
    record = ConformalPredictor(inputs="logits").calibrate(logits, labels).to_dict()
    assert record["threshold"] == "+inf"
    with pytest.raises(InvalidInput, match="contradicts itself"):
        ConformalPredictor.from_dict({**record, "threshold": 0.3})


def test_a_randomised_record_needs_a_generator_again():
    logits, labels = draw(13)
    rng = np.random.default_rng(0)
    record = (
        ConformalPredictor("aps", inputs="logits", randomized=True, rng=rng)
        .calibrate(logits, labels)
        .to_dict()
    )
    with pytest.raises(InvalidInput, match="generator"):
        ConformalPredictor.from_dict(record)
    assert ConformalPredictor.from_dict(record, rng=rng).randomized
