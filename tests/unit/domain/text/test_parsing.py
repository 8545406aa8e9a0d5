import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from finetune.domain.labels import ABSTAIN, Abstention, Label, LabelSet, fold
from finetune.domain.parsing import parse_answer
from finetune.domain.prompts import answer_text, rationale_head

LABELS = LabelSet(
    "Cards",
    (Label("card"), Label("card_lost", aliases=("missing",)), Label("911"), Label('say "hi"')),
    Abstention(aliases=("unclear",)),
)
PLAIN = LabelSet("Cards", (Label("card"), Label("lost")))
GOOD = '{"decision": "card_lost", "abstain": false, "rationale": "It is gone"}'

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(LABELS.outcomes),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["decision", "label", "abstain", "rationale", "x"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)
pieces = st.sampled_from(
    ["{", "}", "[", "]", '"', "'", "\\", ":", ",", "=", " ", "\n", "```", "decision", "abstain", "card",
     "true", "null", "\ud800", "é", '"decision": "card"', "//"]
)  # fmt: skip


def check(text: str, labels: LabelSet) -> None:
    parsed = parse_answer(text, labels)
    assert (parsed.decision is None) == (parsed.error is not None)
    assert parsed.decision in (None, ABSTAIN, *labels.outcomes)
    assert parsed.abstain == (parsed.decision in (None, ABSTAIN))
    assert (parsed.rationale or "").encode() is not None
    if parsed.valid:
        assert set(json.loads(text)) == {"decision", "abstain", "rationale"}


@given(st.text(st.characters()) | st.lists(pieces, max_size=40).map("".join))
@example("{" * 5000)
@example('{"decision":' * 5000)
@example('[{"label": ["' * 500)
def test_any_text_can_be_read(text: str) -> None:
    check(text, LABELS)
    check(text, PLAIN)


@given(json_values, st.booleans())
def test_any_json_can_be_read(value: object, ascii_only: bool) -> None:
    check(json.dumps(value, ensure_ascii=ascii_only), LABELS)


@given(st.sampled_from(LABELS.outcomes), st.text(st.characters(exclude_categories=("Cs",))))
def test_what_is_written_is_read_back_as_valid(outcome: str, rationale: str) -> None:
    parsed = parse_answer(answer_text(outcome, rationale), LABELS)
    assert parsed.valid
    assert (parsed.decision, parsed.abstain, parsed.rationale) == (outcome, outcome == ABSTAIN, rationale)


name = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)


@given(
    st.lists(name.filter(lambda n: n == n.strip() and fold(n) != ABSTAIN), min_size=2, unique_by=fold),
    st.text(),
)
def test_labels_may_hold_anything(names: list[str], prose: str) -> None:
    labels = LabelSet("t", tuple(map(Label, names)))
    for label in names:
        assert parse_answer(answer_text(label, ""), labels).valid
        pretty = json.dumps({"decision": label, "abstain": False, "rationale": ""}, indent=2)
        parsed = parse_answer(pretty + "\n" + prose, labels)
        assert parsed.decision == label
        if "{" not in label:
            assert parse_answer(f" {label} ", labels).decision == label


@given(
    st.sampled_from(["card", "card_lost", "911"]),
    st.text(st.characters(exclude_categories=("Cs",))),
    st.data(),
)
def test_a_cut_answer_is_read_if_and_only_if_its_decision_is_whole(
    label: str, rationale: str, data: st.DataObject
) -> None:
    whole = answer_text(label, rationale)
    end = data.draw(st.integers(0, len(whole) - 1))
    parsed = parse_answer(whole[:end], LABELS)
    decided = len('{"decision": "' + label + '"')
    assert parsed.decision == (label if end >= decided else None)
    assert not parsed.valid


@pytest.mark.parametrize(
    "text",
    [
        f"```json\n{GOOD}\n```",
        f"Sure! Here it is: {GOOD} I hope this helps.",
        f"Let me think {{really}}. {GOOD}",
        f'{{"decision": "<label>", "abstain": false, "rationale": ""}} {GOOD}',
        f"{{ he said {GOOD}",
        f"[{GOOD}]",
        f'{{"result": {GOOD}}}',
        f"\ufeff{GOOD}",
        "{'decision': 'card_lost', 'abstain': False, 'rationale': 'It\\'s gone'}",
        "{'decision': 'card_lost', 'rationale': 'the patient's card'}",
        '{"decision": "card_lost", "abstain": false, "rationale": "x",}',
        '{"decision": "card_lost" "abstain": false "rationale": "x"}',
        '{"decision": "card_lost", // really\n "abstain": false}',
        "{decision: card_lost, abstain: false}",
        '{"decision" = "card_lost"}',
        '{"decision": "card_lost", "abstain": false, "rationale": "says "gone", twice"}',
        '{"decision": "card_lost", "abstain": false, "rationale": "two\nlines"}',
        '{"decision": "card_lost", "abstain": fal',
        '{"decision": "card_lost"',
        '{"Decision": "Card Lost", "Abstain": false, "Rationale": ""}',
        '{"label": "missing"}',
        '{"category": " CARD-LOST "}',
        '{"decision": ["card_lost"]}',
        '{"decision": {"label": "card_lost"}}',
        '{"decision": "card_lost", "decision": "card_lost", "abstain": false}',
        '{"abstain": false, "rationale": "x", "answer": "card_lost"}',
        '{"decision": "card_lost", "abstain": null, "rationale": ""}',
        '{"decision": "card_lost", "abstain": "false", "rationale": ""}',
        '{"decision": "card_lost", "abstain": 0, "rationale": ""}',
        '{"decision": "card_lost", "abstain": false, "rationale": null}',
        '{"decision": "card_lost", "abstain": false, "rationale": "", "confidence": 0.9}',
        '{"decision": "card_lost", "abstain": false, "rationale": "\\ud800"}',
        '{"decision": "Card_lost", "abstain": false, "rationale": ""}',
        "card_lost",
        ' "Card lost". ',
        "**Missing**",
        "```\ncard_lost\n```",
        "Label: card_lost",
    ],
)  # fmt: skip
def test_faults_that_are_overlooked_and_named(text: str) -> None:
    parsed = parse_answer(text, LABELS)
    assert (parsed.decision, parsed.abstain, parsed.error) == ("card_lost", False, None)
    assert parsed.repairs
    assert not parsed.valid


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ('{"decision": "abstain", "abstain": true, "rationale": ""}', True),
        ('{"decision": "abstain", "abstain": false, "rationale": ""}', False),
        ('{"decision": "card", "abstain": true, "rationale": ""}', False),
        ('{"decision": "card", "abstain": "yes", "rationale": ""}', False),
        ('{"decision": "card", "abstain": "perhaps", "rationale": ""}', False),
        ('{"decision": "card", "abstain": {}, "rationale": ""}', False),
        ('{"decision": "card", "abstain": tr', False),
        ('{"decision": null, "abstain": true, "rationale": ""}', False),
        ('{"decision": "banana", "abstain": true}', False),
        ("{'abstain': True}", False),
        ('{"decision": "unclear", "abstain": true, "rationale": ""}', False),
        ("Abstain", False),
    ],
)
def test_abstentions(text: str, valid: bool) -> None:
    parsed = parse_answer(text, LABELS)
    assert (parsed.decision, parsed.abstain, parsed.error, parsed.valid) == (ABSTAIN, True, None, valid)


def test_an_abstention_needs_no_outcome_but_is_then_not_valid() -> None:
    parsed = parse_answer(answer_text("abstain", "who knows"), PLAIN)
    assert (parsed.decision, parsed.rationale) == (ABSTAIN, "who knows")
    assert parsed.repairs == ("abstention is no outcome of the label set",)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "the answer is empty"),
        (" ``` ", "the answer is empty"),
        ("I cannot say.", "there is no decision: 'I cannot say' is no label of the label set"),
        (
            '{"decision": "card_lots"}',
            "'card_lots' is no label of the label set; did the model mean 'card_lost'?",
        ),
        ('{"decision": "banana"}', "'banana' is no label of the label set"),
        ('{"decision": 12}', "'12' is no label of the label set"),
        ('{"decision": null}', "the decision is null"),
        ('{"decision": None}', "the decision is null"),
        ('{"decision": []}', "the decision is a list or object with 0 values, not one label"),
        ('{"decision": ["card", "911"]}', "the decision is a list or object with 2 values, not one label"),
        ('{"decision": "card", "decision": "911"}', "the decision is given 2 times"),
        ('{"decision": "card', "the decision is cut off at 'card'"),
        ("{decision: card", "the decision is cut off at 'card'"),
        (
            '{"decision": "banana", "rationale": "not {\'decision\': \'card\'}"}',
            "'banana' is no label of the label set",
        ),
        ('{"decision": "banana", "other": {"label": "card"}}', "'banana' is no label of the label set"),
        ("either 911 or 912", "there is no decision: 'either 911 or 912' is no label of the label set"),
    ],
)
def test_answers_without_a_decision(text: str, error: str) -> None:
    parsed = parse_answer(text, LABELS)
    assert (parsed.decision, parsed.abstain, parsed.error, parsed.valid) == (None, True, error, False)


def test_numbers_and_escapes_are_resolved_like_text() -> None:
    assert parse_answer('{"decision": 911}', LABELS).decision == "911"
    assert parse_answer("{'decision': 'say \\u0022hi\\u0022'}", LABELS).decision == 'say "hi"'
    assert (
        parse_answer("{'decision': 'card', 'rationale': '\\ud83d\\ude00\\n\\ud800'}", LABELS).rationale
        == "😀\n\ufffd"
    )


def test_a_head_alone_is_read_as_cut() -> None:
    parsed = parse_answer(rationale_head("card"), LABELS)
    assert (parsed.decision, parsed.rationale) == ("card", "")
    assert parsed.repairs == ("the object is cut off",)


@pytest.mark.parametrize(
    "unit",
    [
        "{",
        "[",
        "{[",
        '{"',
        '{"label":',
        '{"label":1}',
        "{ {}",
        "{a ",
        '"',
        '{"decision":"x',
        "answer:",
        "{\\",
        '{" ',
    ],
)
def test_time_is_linear(unit: str) -> None:
    started = time.process_time()
    check(unit * (250_000 // len(unit)), LABELS)
    assert time.process_time() - started < 5  # quadratic would be minutes
