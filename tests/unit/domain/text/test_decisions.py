import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from finetune.domain.decisions import REASONS, DecisionRecord, Guarantee, ModelReference, abstention_reasons
from finetune.domain.errors import InvalidInput

FIELDS: dict[str, Any] = {
    "id": "7",
    "decision": "a",
    "abstain": False,
    "abstain_reason": "none",
    "confidence": 0.75,
    "probabilities": {"a": 0.75, "b": 0.25},
    "prediction_set": ("a",),
    "model": ModelReference(base="glm"),
}
ABSTAINED = {"decision": "abstain", "abstain": True, "abstain_reason": "low_confidence"}
FAILED = {
    **ABSTAINED,
    "abstain_reason": "error",
    "probabilities": {},
    "confidence": 0,
    "prediction_set": None,
}

text = st.text(st.characters(exclude_categories=("Cs",)))
finite = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def records(draw: st.DrawFn) -> DecisionRecord:
    names = draw(st.lists(text.filter(lambda name: name != "abstain"), min_size=1, max_size=5, unique=True))
    weights = np.array(draw(st.lists(st.integers(1, 100), min_size=len(names), max_size=len(names))))
    reason = draw(st.sampled_from(REASONS))
    share = st.floats(0, 1, exclude_min=True, exclude_max=True)
    guarantee = st.builds(
        Guarantee, kind=text, alpha=share, delta=st.none() | share, n_calibration=st.integers(0, 10**6),
        statement=text, certificate=st.none() | text,
    )  # fmt: skip
    return DecisionRecord(
        id=draw(text),
        decision="abstain" if reason != "none" else draw(st.sampled_from(names)),
        abstain=reason != "none",
        abstain_reason=reason,
        confidence=draw(st.floats(0, 1)),
        probabilities=dict(zip(names, (weights / weights.sum()).tolist(), strict=True)),
        label_mass=draw(st.none() | st.floats(allow_infinity=False, allow_nan=False)),
        prediction_set=draw(st.none() | st.lists(st.sampled_from(names), unique=True).map(tuple)),
        expected_cost=draw(st.none() | finite),
        rationale=draw(st.none() | text),
        guarantee=draw(st.none() | guarantee),
        model=ModelReference(base=draw(text), adapter=draw(st.none() | text)),
    )


@given(records())
def test_records_survive_one_line_of_json(record: DecisionRecord) -> None:
    line = record.to_json()
    assert line.splitlines() == [line]
    assert line.encode()
    assert DecisionRecord.from_json(line) == record
    assert list(json.loads(line)) == list(DecisionRecord.model_fields)


def test_unscored_records_have_no_probabilities() -> None:
    assert DecisionRecord(**{**FIELDS, **FAILED}).probabilities == {}
    assert DecisionRecord(**{**FIELDS, **FAILED, "abstain_reason": "too_long"}).abstain


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"abstain": True}, "abstain is True and the decision is 'a'"),
        ({"decision": "abstain"}, "abstain is False and the decision is 'abstain'"),
        ({"abstain_reason": "empty_set"}, "abstain is False and the reason is 'empty_set'"),
        ({**ABSTAINED, "abstain_reason": "none"}, "abstain is True and the reason is 'none'"),
        ({"abstain_reason": "tired"}, "abstain_reason"),
        ({"abstain": "no"}, "abstain"),
        ({"confidence": 1.01}, "confidence"),
        ({"confidence": float("nan")}, "confidence"),
        ({"expected_cost": float("inf")}, "expected_cost"),
        ({"label_mass": float("-inf")}, "label_mass"),
        ({"probabilities": {"a": float("nan"), "b": 0.25}}, "probabilities"),
        ({"probabilities": {"a": -0.25, "b": 1.25}}, "probabilities"),
        ({"probabilities": {"a": 0.75, "b": 0.250002}}, "sum to 1.000002"),
        ({"probabilities": {}}, "no probabilities although the reason is 'none'"),
        ({**FAILED, "confidence": 0.5}, "a confidence without probabilities"),
        ({"decision": "c"}, "'c' has no probability"),
        ({"prediction_set": ("a", "c")}, r"\['c'\], which have no probability"),
        ({"prediction_set": ("a", "a")}, "twice"),
        ({"version": 2}, "version"),
        ({"extra": 1}, "extra"),
    ],
)
def test_contradictory_records(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DecisionRecord(**{**FIELDS, **changes})


def test_a_bad_line_names_place_and_key() -> None:
    good = DecisionRecord(**FIELDS).to_json()
    with pytest.raises(InvalidInput, match=r"out.jsonl:3: not a decision record: confidence: "):
        DecisionRecord.from_json(good.replace('"confidence": 0.75', '"confidence": NaN'), where="out.jsonl:3")
    with pytest.raises(InvalidInput, match="not a decision record"):
        DecisionRecord.from_json(good[:-5])


def reasons(**changes: Any) -> list[str]:
    arguments: dict[str, Any] = {
        "probabilities": [[0.6, 0.3, 0.1]],
        "prediction_sets": None,
        "actions": [0],
        "confident": [True],
        "abstain_index": None,
    }
    return list(abstention_reasons(**{**arguments, **changes}))


AMBIGUOUS = {"prediction_sets": [[True, True, False]], "abstain_on_ambiguous_set": True}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "none"),
        ({"confident": [False]}, "low_confidence"),
        ({"prediction_sets": [[True, True, False]]}, "none"),
        ({**AMBIGUOUS, "confident": [False]}, "ambiguous_set"),
        ({"prediction_sets": [[False] * 3], "confident": [False]}, "empty_set"),
        ({"prediction_sets": [[False] * 3], "actions": [3]}, "expected_cost"),
        ({"actions": [2], "abstain_index": 2}, "expected_cost"),
        ({"actions": [0], "abstain_index": 0}, "model_abstained"),
        ({"probabilities": [[0.5, 0.5]], "actions": [1], "abstain_index": 1}, "model_abstained"),
        ({"prediction_sets": [[True, False, True]], "abstain_index": 2}, "model_abstained"),
        ({"prediction_sets": [[True, False, True]], "abstain_index": 2, "actions": [2]}, "model_abstained"),
    ],
)
def test_the_first_reason_that_applies(changes: dict[str, Any], reason: str) -> None:
    assert reasons(**changes) == [reason]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probabilities": [[0.6, 0.3, 0.2]]}, r"probabilities\[0\]"),
        ({"probabilities": [[np.nan, 0.3, 0.2]]}, r"probabilities\[0\]"),
        ({"probabilities": [[np.inf, 0.3, 0.2]]}, r"probabilities\[0\]"),
        ({"probabilities": [[1.2, -0.2, 0.0]]}, r"probabilities\[0\]"),
        ({"probabilities": [1.0]}, "shape"),
        ({"probabilities": np.zeros((0, 3)), "actions": [], "confident": []}, "no rows"),
        ({"actions": [4]}, r"not in \[0, 4\)"),
        ({"actions": [3], "abstain_index": 0}, r"not in \[0, 3\)"),
        ({"actions": [-1]}, r"not in \[0, 4\)"),
        ({"actions": [0, 0]}, "actions"),
        ({"actions": [0.0]}, "actions"),
        ({"confident": [2]}, "confident"),
        ({"prediction_sets": [[1, 1, 0]]}, "prediction_sets"),
        ({"prediction_sets": [[True, True]]}, "prediction_sets"),
        ({"abstain_index": 3}, "abstain_index"),
        ({"abstain_on_ambiguous_set": True}, "without sets"),
    ],
)
def test_bad_arguments(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        reasons(**changes)


def test_single_precision() -> None:
    assert reasons(probabilities=np.array([[0.7, 0.2, 0.1]], dtype=np.float32)) == ["none"]


@given(st.integers(1, 6), st.integers(2, 5), st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
def test_rows_are_judged_one_by_one(n: int, K: int, seed: int, outcome: bool, ambiguous: bool) -> None:
    rng = np.random.default_rng(seed)
    arguments: dict[str, Any] = {
        "probabilities": rng.dirichlet(np.ones(K), n),
        "prediction_sets": rng.random((n, K)) < 0.5,
        "actions": rng.integers(0, K if outcome else K + 1, n),
        "confident": rng.random(n) < 0.5,
    }
    rest: dict[str, Any] = {
        "abstain_index": K - 1 if outcome else None,
        "abstain_on_ambiguous_set": ambiguous,
    }
    together = abstention_reasons(**arguments, **rest)
    alone = [
        abstention_reasons(**{name: values[row : row + 1] for name, values in arguments.items()}, **rest)[0]
        for row in range(n)
    ]
    assert together == alone
