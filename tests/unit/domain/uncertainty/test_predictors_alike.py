"""What all predictors have in common: names, refusals, and a state that only their methods change."""

import numpy as np
import pytest

from finetune.domain.conformal import (
    AdaptiveConformalPredictor,
    AdaptiveLevel,
    ClassConditionalPredictor,
    ClusteredPredictor,
    ConformalPredictor,
    CostControlledPredictor,
    ExchangeabilityMartingale,
    GroupConditionalPredictor,
    WeightedConformalPredictor,
)
from finetune.domain.errors import InvalidInput

N, K = 60, 3
LOGITS = np.random.default_rng(0).normal(size=(N, K))
LABELS = LOGITS.argmax(axis=1)
# What calibrate takes between the labels and alpha, and what it takes by name.
KINDS = {
    ConformalPredictor: ([], {}),
    ClassConditionalPredictor: ([], {}),
    GroupConditionalPredictor: ([np.arange(N) % 2], {}),
    ClusteredPredictor: ([], {"rng": np.random.default_rng(1)}),
    WeightedConformalPredictor: ([np.linspace(1.0, 2.0, N)], {}),
    CostControlledPredictor: ([np.array([3.0, 2.0, 1.0])], {}),
    AdaptiveConformalPredictor: ([], {}),
}
kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
def test_they_have_the_same_names(kind):
    more, named = KINDS[kind]
    predictor = kind("raps", inputs="logits", penalty=0.1, k_reg=2)
    assert (predictor.method, predictor.inputs, predictor.randomized) == ("raps", "logits", False)
    assert predictor.options == {"penalty": 0.1, "k_reg": 2}
    with pytest.raises(InvalidInput, match="calibrate first"):
        _ = predictor.alpha
    assert predictor.calibrate(LOGITS, LABELS, *more, alpha=0.2, **named) is predictor
    assert predictor.alpha == predictor.calibrate(LOGITS, LABELS, *more, 0.2, **named).alpha == 0.2
    assert "0.2" in predictor.statement or "0.8" in predictor.statement


@kinds
@pytest.mark.parametrize("randomized", [1, "no", None, np.ones(2)])
def test_randomized_is_a_bool(kind, randomized):
    with pytest.raises(InvalidInput, match="True or False"):
        kind("aps", randomized=randomized, rng=np.random.default_rng(0))


@kinds
@pytest.mark.parametrize("method", ["lac", "aps"])
def test_arrays_of_the_caller_are_neither_kept_nor_changed(kind, method):
    logits, labels, more = LOGITS.copy(), LABELS.copy(), [array.copy() for array in KINDS[kind][0]]
    named = {"rng": np.random.default_rng(2)} if KINDS[kind][1] else {}
    predictor = kind(method, inputs="logits").calibrate(logits, labels, *more, alpha=0.3, **named)
    for array, original in zip([logits, labels, *more], [LOGITS, LABELS, *KINDS[kind][0]], strict=True):
        np.testing.assert_array_equal(array, original)
    before = predictor.to_dict()
    for array in (logits, labels, *more):
        array[:] = 0
    assert predictor.to_dict() == before


def test_arrays_that_are_shown_are_read_only():
    costs = CostControlledPredictor(inputs="logits").calibrate(LOGITS, LABELS, [3.0, 2.0, 1.0], 0.3)
    weighted = WeightedConformalPredictor(inputs="logits").calibrate(LOGITS, LABELS, np.ones(N))
    shown = (
        costs.miss_cost,
        CostControlledPredictor.from_dict(costs.to_dict()).miss_cost,
        weighted.calibration.scores,
        weighted.calibration.weights,
        WeightedConformalPredictor.from_dict(weighted.to_dict()).calibration.scores,
    )
    for array in shown:
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0.0


@pytest.mark.parametrize(
    ("state", "names"),
    [
        (AdaptiveLevel(), ("alpha", "gamma", "start")),
        (ExchangeabilityMartingale(), ("betting", "delta", "jump")),
        (AdaptiveConformalPredictor(), ("history",)),
    ],
)
def test_what_a_promise_rests_on_cannot_be_set_afterwards(state, names):
    for name in names:
        with pytest.raises(AttributeError):
            setattr(state, name, 0.5)


def test_refused_costs_take_no_draws_from_the_generator():
    rng = np.random.default_rng(2)
    before = rng.bit_generator.state
    predictor = CostControlledPredictor("aps", inputs="logits", randomized=True, rng=rng)
    with pytest.raises(InvalidInput, match="miss_cost must have one entry"):
        predictor.calibrate(LOGITS, LABELS, [1.0, 2.0], 0.1)
    assert rng.bit_generator.state == before
