import json
from dataclasses import replace

import pytest
from tests.unit.application.world import make_world

from finetune.application.certificate import read_certificate
from finetune.application.decision_rule import certified_rule
from finetune.application.ports import ModelIdentity
from finetune.domain.errors import IntegrityError

WORLD = make_world()
CERTIFICATE = WORLD.calibrate()
LABELS = WORLD.labels.label_set()
IDENTITY = ModelIdentity(**CERTIFICATE.model.model_dump(exclude={"kind"}))


def test_what_was_certified_is_accepted():
    CERTIFICATE.check(IDENTITY, LABELS)


def test_names_for_people_do_not_matter():
    CERTIFICATE.check(replace(IDENTITY, base="/elsewhere/base", adapter="renamed"), LABELS)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("base_hash", "base model"),
        ("adapter_hash", "adapter"),
        ("prompt_hash", "prompt"),
        ("encoder_hash", "tokeniser or maximum length"),
        ("precision", "numerical precision"),
    ],
)
def test_another_part_is_refused_by_name_and_with_a_remedy(key, name):
    with pytest.raises(IntegrityError, match=f"for another {name}") as caught:
        CERTIFICATE.check(replace(IDENTITY, **{key: "0" * 64}), LABELS)
    assert "finetune calibrate" in caught.value.remedy


def test_another_pruning_is_refused_with_the_value_that_fits():
    with pytest.raises(IntegrityError, match=r"another prediction\.prune \(seen: 0\.0\)") as caught:
        CERTIFICATE.check(replace(IDENTITY, prune=0.0), LABELS)
    assert "set it to 1e-06" in caught.value.remedy
    assert "finetune calibrate" in caught.value.remedy
    with pytest.raises(IntegrityError, match=r"another adapter and another prediction\.prune") as caught:
        CERTIFICATE.check(replace(IDENTITY, prune=0.0, adapter_hash="y"), LABELS)
    assert caught.value.remedy == "run `finetune calibrate` again"


def test_a_certificate_from_before_pruning_fits_scores_that_leave_out_nothing():
    document = CERTIFICATE.document()
    del document["model"]["prune"]
    older = read_certificate(document, "x")
    older.check(replace(IDENTITY, prune=0.0), LABELS)
    with pytest.raises(IntegrityError, match=r"prediction\.prune"):
        older.check(IDENTITY, LABELS)


def test_another_label_set_is_refused():
    described = replace(LABELS, labels=(replace(LABELS.labels[0], description="new"), *LABELS.labels[1:]))
    with pytest.raises(IntegrityError, match="another label set"):
        CERTIFICATE.check(IDENTITY, described)


def test_everything_that_differs_is_named():
    with pytest.raises(IntegrityError, match="base model and another adapter"):
        CERTIFICATE.check(replace(IDENTITY, base_hash="x", adapter_hash="y"), LABELS)


def test_it_survives_json_and_its_hash_follows_its_content():
    document = json.loads(json.dumps(CERTIFICATE.document(), allow_nan=False))
    assert read_certificate(document, "x") == CERTIFICATE
    assert read_certificate(document, "x").hash == CERTIFICATE.hash
    document["selective"]["level"] = 0.2
    assert read_certificate(document, "x").hash != CERTIFICATE.hash


@pytest.mark.parametrize(
    "change",
    [{"version": 1}, {"surprise": 1}, {"outcomes": None}, {"map": {"kind": "temperature"}}],
)
def test_a_damaged_certificate_is_refused(change):
    with pytest.raises(IntegrityError, match="no certificate of version 2"):
        read_certificate(CERTIFICATE.document() | change, "run/calibration.json")


def test_it_says_what_is_promised_and_what_is_not():
    assert "at most 10 %" in CERTIFICATE.selective.statement
    assert "at least 90 %" in CERTIFICATE.conformal.statement
    limits = " ".join(CERTIFICATE.not_promised)
    for word in (
        "each label",
        "one message",
        "another source",
        "calibration rows did",
        "nearly equal count once",
    ):
        assert word in limits


def test_answers_and_abstentions_rest_on_different_promises():
    answer, abstention = (CERTIFICATE.guarantee(answered=answered) for answered in (True, False))
    assert (answer.kind, answer.alpha, answer.delta) == ("selective_risk", 0.1, 0.1)
    assert (abstention.kind, abstention.alpha, abstention.delta) == ("split_conformal", 0.1, None)
    assert answer.certificate == abstention.certificate == CERTIFICATE.hash


def test_an_abstention_does_not_claim_the_coverage_of_all_messages_for_itself():
    statement = CERTIFICATE.guarantee(answered=False).statement
    assert "all messages, answered or handed over" in statement
    assert "handed-over messages alone the share is usually lower" in statement


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("conformal", {"rank": 3}),
        ("conformal", {"n": 0}),
        ("conformal", {"threshold": None}),
        ("conformal", {"method": "other"}),
        ("map", {"parameters": {"kind": "temperature", "version": 1, "value": -1.0, "at_limit": False}}),
        ("costs", {"pairs": {"billing": {"unknown": 1.0}}}),
    ],
)
def test_a_certificate_that_contradicts_itself_is_refused(part, change):
    document = CERTIFICATE.document()
    document[part] |= change
    with pytest.raises(IntegrityError, match="contradicts itself") as caught:
        certified_rule(read_certificate(document, "x"))
    assert "finetune calibrate" in caught.value.remedy
