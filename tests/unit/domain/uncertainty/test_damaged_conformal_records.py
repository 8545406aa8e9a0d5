"""A record that was changed by hand or by accident is read as it is or refused, by our error."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.domain.conformal.adaptive import AdaptiveConformalPredictor
from finetune.domain.conformal.clustered import ClusteredPredictor
from finetune.domain.conformal.martingale import ExchangeabilityMartingale
from finetune.domain.conformal.miss_cost import CostControlledPredictor
from finetune.domain.conformal.mondrian import ClassConditionalPredictor, GroupConditionalPredictor
from finetune.domain.conformal.online import AdaptiveLevel
from finetune.domain.conformal.p_values import OnlinePValues
from finetune.domain.conformal.risk_control import RiskControl, conformal_risk_control
from finetune.domain.conformal.split import ConformalPredictor
from finetune.domain.conformal.weighted_predictor import WeightedConformalPredictor
from finetune.domain.errors import InvalidInput

ROWS = np.random.default_rng(0).dirichlet(np.ones(3), size=20)
LABELS = ROWS.argmax(axis=1)


def with_rng(kind):
    return lambda data: kind.from_dict(data, rng=np.random.default_rng(0))


def waiting():
    predictor = AdaptiveConformalPredictor("raps", k_reg=2).calibrate(ROWS, LABELS)
    predictor.predict(ROWS[0])
    return predictor


def watched():
    martingale = ExchangeabilityMartingale()
    martingale.update_many([0.01] * 20)
    return martingale


CASES = {
    "split": (ConformalPredictor("raps").calibrate(ROWS, LABELS), with_rng(ConformalPredictor)),
    "class": (
        ClassConditionalPredictor().calibrate(ROWS, LABELS, 0.3),
        with_rng(ClassConditionalPredictor),
    ),
    "group": (
        GroupConditionalPredictor().calibrate(ROWS, LABELS, ["a", "b"] * 10),
        with_rng(GroupConditionalPredictor),
    ),
    "clustered": (
        ClusteredPredictor(clustering_fraction=0.5).calibrate(
            ROWS, LABELS, 0.5, rng=np.random.default_rng(0)
        ),
        with_rng(ClusteredPredictor),
    ),
    "adaptive": (waiting(), with_rng(AdaptiveConformalPredictor)),
    "not waiting": (
        AdaptiveConformalPredictor().calibrate(ROWS, LABELS),
        with_rng(AdaptiveConformalPredictor),
    ),
    "martingale": (watched(), ExchangeabilityMartingale.from_dict),
    "cost": (
        CostControlledPredictor("saps").calibrate(ROWS, LABELS, [1.0, 2.0, 0.0], 0.5),
        with_rng(CostControlledPredictor),
    ),
    "level": (AdaptiveLevel(), AdaptiveLevel.from_dict),
    "stream": (OnlinePValues(np.random.default_rng(0)), with_rng(OnlinePValues)),
    "control": (conformal_risk_control([[0.0]] * 20, [1.0], 0.1), RiskControl.from_dict),
    "weighted": (
        WeightedConformalPredictor().calibrate(ROWS, LABELS, np.ones(20)),
        with_rng(WeightedConformalPredictor),
    ),
}

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, 1, -1, 10**400, 2**53, 1e308, 5e-324, "+inf", "-inf", "aps", "logits", "growing"])
    | st.floats()
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("case", CASES)
@given(st.data())
def test_a_changed_record_is_read_or_refused(case, data):
    fitted, read = CASES[case]
    record = fitted.to_dict()
    assert read(record).to_dict() == record
    target = record
    key = data.draw(st.sampled_from(sorted(target)))
    while isinstance(target[key], dict) and target[key] and data.draw(st.booleans()):
        target = target[key]
        key = data.draw(st.sampled_from(sorted(target)))
    if data.draw(st.booleans()):
        target[key] = data.draw(anything)
    else:
        del target[key]
    try:
        again = read(record)
    except InvalidInput:
        return
    assert read(json.loads(json.dumps(again.to_dict(), allow_nan=False))).to_dict() == again.to_dict()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("other", [None, [], "text", {}, {"kind": "other"}])
def test_what_is_no_record_is_refused(case, other):
    with pytest.raises(InvalidInput):
        CASES[case][1](other)
