"""Learn then test: decisions, evidence, infeasibility and records."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.domain.errors import FinetuneError, InfeasibleGuarantee, InvalidInput
from finetune.domain.risk import (
    LearnThenTest,
    binomial_p_value,
    hoeffding_bentkus_p_value,
    learn_then_test,
    learn_then_test_counts,
    wsr_p_value,
)
from finetune.domain.statistics import fallback_sequence, fixed_sequence, rejections

METHODS = ("fixed_sequence", "fallback", "holm", "bonferroni")
BOUNDS = ("binomial", "hoeffding_bentkus", "wsr")


def draw(seed, n=400, risks=(0.01, 0.03, 0.06, 0.15)):
    return (np.random.default_rng(seed).random((n, len(risks))) < risks).astype(int)


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("method", METHODS)
def test_accepted_are_those_that_the_procedure_rejects(method, bound):
    losses, delta = draw(1), 0.1
    found = learn_then_test(losses, 0.1, delta, method=method, bound=bound)
    k, n = losses.sum(axis=0), np.full(4, 400)
    share = delta if method == "fixed_sequence" else delta / 4
    p = {
        "binomial": lambda: binomial_p_value(k, n, 0.1),
        "hoeffding_bentkus": lambda: hoeffding_bentkus_p_value(k, n, 0.1),
        "wsr": lambda: np.array([wsr_p_value(column, 0.1, share) for column in losses.T]),
    }[bound]()
    np.testing.assert_allclose(found.p_values, p)
    rejected = {
        "fixed_sequence": lambda: fixed_sequence(p, delta).rejected,
        "fallback": lambda: fallback_sequence(p, np.full(4, 0.25), delta).rejected,
        "holm": lambda: rejections(p, delta, "holm"),
        "bonferroni": lambda: rejections(p, delta, "bonferroni"),
    }[method]()
    assert found.accepted == tuple(np.flatnonzero(rejected)) != ()
    assert all(found.p_values[j] <= found.levels[j] * (1 + 1e-9) for j in found.accepted)
    assert sum(found.levels[j] for j in found.accepted if method == "bonferroni") <= delta
    assert found.mean_losses == (tuple(losses.mean(axis=0)),)


def test_losses_and_their_counts_say_the_same():
    losses = draw(2)
    one = learn_then_test(losses, 0.1, 0.1, bound="binomial", method="holm")
    other = learn_then_test_counts(losses.sum(axis=0), np.full(4, 400), 0.1, 0.1, method="holm")
    assert one == other
    assert learn_then_test(losses.astype(float), 0.1, 0.1, bound="binomial", method="holm") == one
    assert learn_then_test(losses.astype(np.float32), 0.1, 0.1, bound="binomial", method="holm") == one


def test_several_risks_take_the_greatest_p_value():
    losses = np.stack([draw(3), draw(4, risks=(0.1, 0.02, 0.02, 0.02))])
    found = learn_then_test(losses, [0.1, 0.05], 0.1, method="holm", bound="binomial")
    each = [
        learn_then_test(rows, level, 0.1, method="holm", bound="binomial").p_values
        for rows, level in zip(losses, (0.1, 0.05), strict=True)
    ]
    assert found.p_values == tuple(np.maximum(*each))
    assert 0 not in found.accepted  # its first risk is low, its second is not
    counts = learn_then_test_counts(losses.sum(axis=1), np.full((2, 4), 400), [0.1, 0.05], 0.1, method="holm")
    assert counts == found
    assert "at most 0.1 and 0.05" in found.statement


def test_fallback_weights_are_where_the_search_starts():
    losses = draw(5, risks=(0.3, 0.01, 0.02, 0.3))
    with pytest.raises(InfeasibleGuarantee):
        learn_then_test(losses, 0.1, 0.1)
    found = learn_then_test(losses, 0.1, 0.1, method="fallback", weights=[0, 1, 0, 0])
    assert found.accepted == (1, 2)
    assert found.levels == (0.0, 0.1, 0.1, 0.1)


def test_holm_has_no_level_for_what_comes_after_its_first_failure():
    found = learn_then_test_counts([0, 30, 14, 1], [200] * 4, 0.1, 0.1, method="holm")
    assert found.accepted == (0, 3)
    assert found.levels == pytest.approx((0.1 / 4, 0.0, 0.1 / 2, 0.1 / 3))


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize(("method", "share"), [("fixed_sequence", 1), ("fallback", 1 / 3), ("holm", 1 / 3)])
def test_needed_rows_do_and_one_fewer_does_not(bound, method, share):
    arguments = {"risk_level": 0.1, "delta": 0.05, "method": method, "bound": bound}
    with pytest.raises(InfeasibleGuarantee) as caught:
        learn_then_test(np.zeros((2, 3)), **arguments)
    needed = caught.value.needed
    assert str(needed) in caught.value.remedy
    assert learn_then_test(np.zeros((needed, 3)), **arguments).accepted == (0, 1, 2)
    with pytest.raises(InfeasibleGuarantee):
        learn_then_test(np.zeros((needed - 1, 3)), **arguments)


def test_the_strictest_of_several_levels_sets_the_rows_needed():
    with pytest.raises(InfeasibleGuarantee) as caught:
        learn_then_test(np.zeros((2, 2, 1)), [0.5, 0.01], 0.1, bound="binomial")
    assert caught.value.needed == 230


def test_candidates_that_no_row_counts_for_are_not_estimable():
    found = learn_then_test_counts([0, 0], [0, 100], 0.1, 0.1, method="holm")
    assert found.mean_losses == ((None, 0.0),)
    assert found.p_values[0] == 1.0
    assert found.accepted == (1,)


@given(st.integers(0, 10**6), st.sampled_from(METHODS), st.sampled_from(BOUNDS), st.integers(1, 2))
@settings(max_examples=60, deadline=None)
def test_records_round_trip(seed, method, bound, risks):
    losses = np.stack([draw(seed + i) for i in range(risks)])
    try:
        found = learn_then_test(losses, [0.1] * risks, 0.1, method=method, bound=bound)
    except InfeasibleGuarantee:
        return
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert LearnThenTest.from_dict(record) == found
    assert ("the order of the calibration cases" in found.statement) == (bound == "wsr")
    for part in ("confidence 0.9", "400 calibration cases", f"{len(found.accepted)} accepted of 4"):
        assert part in found.statement


@pytest.mark.parametrize(
    "change",
    [
        {"accepted": []},
        {"accepted": [1, 0]},
        {"accepted": [9]},
        {"accepted": [3]},
        {"levels": [0.1]},
        {"mean_losses": []},
        {"delta": 2.0},
        {"method": "guess"},
        {"version": 2},
        {"extra": 1},
        {"p_values": [float("nan")] * 4},
    ],
)
def test_records_that_contradict_themselves(change):
    record = learn_then_test(draw(6), 0.1, 0.1).to_dict()
    with pytest.raises(InvalidInput):
        LearnThenTest.from_dict({**record, **change})


@given(
    st.sampled_from(
        [[[0.5, np.nan]], [[2.0]], [[-0.1]], [0.1], [], [[]], [[["a"]]], "x", None, [[1, 0], [1]]]
    ),
    st.sampled_from(METHODS),
    st.sampled_from(BOUNDS),
)
@settings(deadline=None)
def test_bad_losses_raise_our_errors(losses, method, bound):
    with pytest.raises(FinetuneError):
        learn_then_test(losses, 0.1, 0.1, method=method, bound=bound)


@pytest.mark.parametrize(
    "call",
    [
        lambda: learn_then_test(draw(0), 1.0, 0.1),
        lambda: learn_then_test(draw(0), 0.1, 0),
        lambda: learn_then_test(draw(0), [0.1, 0.1], 0.1),
        lambda: learn_then_test(draw(0), "0.1", 0.1),
        lambda: learn_then_test(draw(0), 0.1, 0.1, method="hochberg"),
        lambda: learn_then_test(draw(0), 0.1, 0.1, bound="hoeffding"),
        lambda: learn_then_test(draw(0), 0.1, 0.1, weights=[1, 0, 0, 0]),
        lambda: learn_then_test(draw(0), 0.1, 0.1, method="fallback", weights=[1, 0]),
        lambda: learn_then_test(draw(0), 0.1, 0.1, method="fallback", weights=[0, 0, 0, 0]),
        lambda: learn_then_test(draw(0), 0.1, 0.1, method="fallback", weights=[1, 1, 0, 0]),
        lambda: learn_then_test(draw(0) / 2, 0.1, 0.1, bound="binomial"),
        lambda: learn_then_test_counts([1], [2], 0.1, 0.1, bound="wsr"),
        lambda: learn_then_test_counts([3], [2], 0.1, 0.1),
        lambda: learn_then_test_counts([1.0], [2], 0.1, 0.1, bound="hoeffding_bentkus"),
        lambda: learn_then_test_counts([1, 1], [2], 0.1, 0.1),
        lambda: learn_then_test_counts([], [], 0.1, 0.1),
        lambda: learn_then_test_counts([[[1]]], [[[2]]], 0.1, 0.1),
    ],
)
def test_bad_arguments(call):
    with pytest.raises(InvalidInput):
        call()
