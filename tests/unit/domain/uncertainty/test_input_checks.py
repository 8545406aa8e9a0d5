"""Whatever is wrong with an input, the error is ours, and it shows the first bad row."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.domain.calibration import (
    Temperature,
    compute_brier_score,
    compute_ece,
    compute_log_loss,
    compute_mce,
    error_intervals,
    fit_temperature,
    null_band,
)
from finetune.domain.checks import as_count, as_flags, as_labels, as_level, as_vector
from finetune.domain.conformal import ConformalPredictor, conformal_quantile
from finetune.domain.errors import InvalidInput
from finetune.domain.probabilities import as_log_probabilities, as_rows
from finetune.domain.risk import RiskControlledPredictor, risk_coverage_curve, selective_threshold
from finetune.domain.statistics import bootstrap_interval, bootstrap_mean_interval

GOOD = [[0.2, 0.8], [0.5, 0.5]]
BAD_ROWS = [
    [[0.2, 0.8], [np.nan, 0.5]],
    [[0.2, 0.8], [-0.1, 1.1]],
    [[0.2, 0.8], [0.5, 0.6]],
    [[0.2, 0.8], [np.inf, 0.5]],
    [[0.2, 0.8], [0.5]],
    [[1.0], [1.0]],
    [[[0.2, 0.8]], [[0.5, 0.5]]],
    [],
    np.empty((0, 3)),
    [["a", "b"], ["c", "d"]],
    [[True, False], [False, True]],
    [[0.5 + 0j, 0.5], [0.5, 0.5]],
    None,
    0.5,
]
BAD_LABELS = [[0, 2], [0, -1], [0.0, 1.0], [True, False], [0], [0, 1, 1], [[0, 1]], [], ["a", "b"], None]
TAKES_ROWS = [
    compute_ece,
    compute_mce,
    compute_brier_score,
    compute_log_loss,
    lambda p, y: ConformalPredictor().calibrate(p, y, alpha=0.5),
    lambda p, y: RiskControlledPredictor().calibrate(p, y),
]


@pytest.mark.parametrize("function", TAKES_ROWS)
@pytest.mark.parametrize("rows", BAD_ROWS)
def test_bad_rows_are_refused(function, rows):
    with pytest.raises(InvalidInput):
        function(rows, [0, 1])


@pytest.mark.parametrize("function", [*TAKES_ROWS, fit_temperature])
@pytest.mark.parametrize("labels", BAD_LABELS)
def test_bad_labels_are_refused(function, labels):
    with pytest.raises(InvalidInput):
        function(GOOD, labels)


def test_the_error_shows_the_first_bad_row_its_value_and_the_remedy():
    with pytest.raises(InvalidInput) as caught:
        as_rows([[0.5, 0.5], [0.5, 0.7], [np.nan, 1.0]], name="cal_probs")
    assert caught.value.where == "cal_probs[2]"  # NaN is looked for first: sums need numbers
    assert caught.value.remedy
    with pytest.raises(InvalidInput) as caught:
        as_rows([[0.5, 0.5], [0.5, 0.7], [0.9, 0.9]], name="cal_probs")
    assert (caught.value.where, caught.value.seen) == ("cal_probs[1]", [0.5, 0.7])


def test_thirty_percent_nan_logits_are_an_error_not_empty_sets():
    logits = np.random.default_rng(0).normal(size=(100, 5))
    predictor = ConformalPredictor(inputs="logits").calibrate(logits, logits.argmax(axis=1))
    logits[::3] = np.nan
    with pytest.raises(InvalidInput, match=r"test_probs\[0\]"):
        predictor.predict(logits)


@pytest.mark.parametrize(
    ("dtype", "inside", "outside"), [("f2", 5e-3, 0.1), ("f4", 5e-5, 1e-3), ("f8", 5e-7, 1e-5)]
)
def test_rows_may_be_off_one_by_the_error_of_their_type(dtype, inside, outside):
    rows = as_rows(np.array([[0.5, 0.5 + inside]], dtype=dtype))
    assert rows.dtype == np.float64
    assert rows.sum() == pytest.approx(1.0, abs=1e-12)
    with pytest.raises(InvalidInput, match="not 1"):
        as_rows(np.array([[0.5, 0.5 + outside]], dtype=dtype))


@pytest.mark.parametrize("inputs", ["probabilities", "log_probabilities"])
def test_a_row_becomes_the_same_whatever_else_is_in_its_batch(inputs):
    off = np.array([[0.3, 0.7 + 5e-13], [0.3, 0.7 + 5e-7]])  # the first is not scaled, the second is
    rows = off if inputs == "probabilities" else np.log(off)
    together = as_rows(rows, inputs=inputs)
    np.testing.assert_array_equal(together[:1], as_rows(rows[:1], inputs=inputs))
    np.testing.assert_array_equal(together[:1], rows[:1])
    assert (together[1] != rows[1]).any()


def test_what_was_accepted_in_low_precision_is_accepted_again_afterwards():
    rows = np.random.default_rng(1).dirichlet(np.ones(50), size=20).astype(np.float16)
    log_probs = as_log_probabilities(rows)
    as_rows(log_probs, inputs="log_probabilities")
    low = np.log(rows, where=rows > 0, out=np.full(rows.shape, -np.inf, np.float16)).astype(np.float16)
    as_rows(as_log_probabilities(low, inputs="log_probabilities"), inputs="log_probabilities")


@given(st.lists(st.floats(allow_nan=False, max_value=1e308), min_size=2, max_size=6))
@settings(deadline=None)
def test_any_logits_below_infinity_become_probabilities_or_an_error(row):
    if np.isneginf(row).all():
        with pytest.raises(InvalidInput):
            as_log_probabilities([row], inputs="logits")
    else:
        assert np.exp(as_log_probabilities([row], inputs="logits")).sum() == pytest.approx(1.0)


@given(
    st.lists(st.floats(), min_size=2, max_size=4),
    st.sampled_from(["probabilities", "log_probabilities", "logits"]),
)
@settings(deadline=None)
def test_any_row_is_a_distribution_or_our_error(row, inputs):
    try:
        probabilities = np.exp(as_log_probabilities([row], inputs=inputs))
    except InvalidInput:
        return
    assert probabilities.sum() == pytest.approx(1.0)
    assert (probabilities >= 0).all()


def test_numpy_settings_of_the_caller_do_not_leak_in():
    with np.errstate(all="raise"):
        rows = [[0.0, 1.0], [1.0, 0.0]]
        ConformalPredictor("aps").calibrate(rows, [0, 0], alpha=0.5).predict(rows)
        assert compute_log_loss(rows, [0, 0]) == np.inf
        Temperature(0.01).apply([[1e300, -1e300], [0.0, -np.inf]])
        fit_temperature([[800.0, -800.0, -np.inf], [3.0, 1.0, 0.0]], [0, 1])


@pytest.mark.parametrize("value", [0, 1, 0.0, 1.0, -0.1, 10, np.nan, True, "0.1", None])
def test_levels(value):
    with pytest.raises(InvalidInput):
        as_level(value, name="alpha")


def test_a_level_means_the_decimal_it_is_written_as():
    assert as_level(np.float32(0.1), name="alpha") == 0.1


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3", None])
def test_counts(value):
    with pytest.raises(InvalidInput):
        as_count(value, name="n")


def test_small_checks():
    assert as_labels(np.array([0, 1], np.uint8), n_rows=2, n_labels=2).dtype == np.int64
    assert as_flags([0, 1], n_rows=2, name="errors").tolist() == [False, True]
    for bad in ([np.nan], [], [[0.1]], ["x"]):
        with pytest.raises(InvalidInput):
            as_vector(bad, name="scores")
    with pytest.raises(InvalidInput):
        as_vector([0.5, 1.5], name="p", low=0.0, high=1.0)
    with pytest.raises(InvalidInput):
        as_flags([0, 2], n_rows=2, name="errors")
    with pytest.raises(InvalidInput, match="one entry for each of the 2 rows"):
        as_flags([True], n_rows=2, name="errors")
    with pytest.raises(InvalidInput, match="shape"):
        as_flags([[True, False]], n_rows=1, name="errors")
    with pytest.raises(InvalidInput):
        conformal_quantile([0.1, np.nan], 0.5)
    with pytest.raises(InvalidInput):
        risk_coverage_curve([0.1, 0.2], [0, 1, 1])
    with pytest.raises(InvalidInput):
        selective_threshold([0.1, np.nan], [0, 1], 0.1, 0.1)
    with pytest.raises(InvalidInput):
        null_band([0.5, 1.5], np.random.default_rng(0))


@pytest.mark.parametrize(
    "call",
    [
        lambda rng: ConformalPredictor("aps", randomized=True, rng=rng),
        lambda rng: null_band([0.5, 0.6], rng),
        lambda rng: bootstrap_interval(lambda rows: 0.0, 2, rng),
        lambda rng: bootstrap_mean_interval([0.5, 0.6], rng),
        lambda rng: error_intervals([0.5, 0.6], [0, 1], rng),
    ],
)
@pytest.mark.parametrize("rng", [3, None, np.random])
def test_what_is_no_generator_is_refused(call, rng):
    with pytest.raises(InvalidInput, match="default_rng"):
        call(rng)


@pytest.mark.parametrize("function", [compute_ece, compute_mce, compute_brier_score])
def test_probabilities_of_one_event_take_booleans_and_rounding_above_one(function):
    expected = function([0.2, 1.0], [0, 1])
    assert function([0.2, 1.0], [False, True]) == expected
    assert function(np.array([0.2, 1.0000001], np.float32), [0, 1]) == pytest.approx(expected, abs=1e-7)
    for bad in ([0.2, 1.001], [0.2, -1e-9], [0.2, np.nan]):
        with pytest.raises(InvalidInput):
            function(np.array(bad, np.float32), [0, 1])


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(InvalidInput, match="'aps', 'lac'"):
        ConformalPredictor("naive")
    with pytest.raises(InvalidInput, match="'logits'"):
        ConformalPredictor(inputs="scores")


@pytest.mark.parametrize("data", [{}, {"kind": "temperature", "version": 2, "value": 1.0, "at_limit": False}])
def test_records_of_another_kind_or_version_are_refused(data):
    with pytest.raises(InvalidInput):
        Temperature.from_dict(json.loads(json.dumps(data)))
