import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.domain.errors import InvalidInput
from finetune.domain.examples import Example, content_id
from finetune.domain.labels import Abstention, Label, LabelSet
from finetune.domain.prompts import (
    DECISION_HEAD,
    PromptFormat,
    answer_text,
    default_prompt,
    rationale_head,
    shorten_text,
)

LABELS = LabelSet("Cards", (Label("card", "Any\n question"), Label("lost")), Abstention("About else"))


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_an_empty_text_is_no_example(text: str) -> None:
    with pytest.raises(InvalidInput, match="the text is empty"):
        Example("1", text, "a")


def test_an_example_has_an_id_and_no_empty_label() -> None:
    with pytest.raises(InvalidInput, match="the id is empty"):
        Example("", "text", "a")
    with pytest.raises(InvalidInput, match="the label is empty"):
        Example("1", "text", "")
    assert hash(Example("1", "text", None, metadata={"a": [1]})) == hash(Example("1", "text", None))


@given(st.text(), st.text(), st.none() | st.text(), st.none() | st.text())
def test_content_ids_tell_contents_apart(a: str, b: str, label_a: str | None, label_b: str | None) -> None:
    assert (content_id(a, label_a) == content_id(b, label_b)) == ((a, label_a) == (b, label_b))


def test_content_ids_are_the_same_on_every_platform() -> None:
    assert content_id("Ünïcode {}", "a") == "7f10b308785f08fd"


@pytest.mark.parametrize("template", ["", "no slot", "{text} {text}"])
def test_a_template_has_one_slot(template: str) -> None:
    with pytest.raises(InvalidInput, match="exactly once"):
        PromptFormat("", template)


@given(st.text())
def test_any_text_goes_into_the_template_as_it_is(text: str) -> None:
    message = PromptFormat("s", "{x} <{text}> {0}").messages(text)[1]
    assert message == {"role": "user", "content": "{x} <" + text + "> {0}"}


def test_no_system_message_if_it_is_empty() -> None:
    assert [message["role"] for message in PromptFormat("", "{text}").messages("a")] == ["user"]
    assert [message["role"] for message in PromptFormat("s", "{text}").messages("a")] == ["system", "user"]


@pytest.mark.parametrize(
    ("list_labels", "descriptions", "lines"),
    [
        (True, True, ["Labels:", "- card: Any question", "- lost", "- abstain: About else"]),
        (True, False, ["Labels:", "- card", "- lost", "- abstain: undecidable"]),
        (False, True, ["- abstain: About else"]),
    ],
)
def test_default_prompt(list_labels: bool, descriptions: bool, lines: list[str]) -> None:
    answer = 'Answer: {"decision": "<label>", "abstain": true|false, "rationale": "<why>"}'
    assert default_prompt(LABELS, list_labels, descriptions).system == "\n".join(["Cards", *lines, answer])


def test_the_default_prompt_without_abstention_does_not_mention_it() -> None:
    system = default_prompt(LabelSet("", LABELS.labels)).system
    assert system.startswith("Labels:")
    assert "true" not in system


@given(st.text(), st.text())
def test_answers_are_json_with_the_keys_in_order(decision: str, rationale: str) -> None:
    answer = answer_text(decision, rationale)
    abstain = decision == "abstain"
    assert json.loads(answer) == {"decision": decision, "abstain": abstain, "rationale": rationale}
    assert list(json.loads(answer)) == ["decision", "abstain", "rationale"]
    assert answer.startswith(DECISION_HEAD)
    assert answer.startswith(rationale_head(decision))


def test_answers_keep_unicode_and_escape_quotes() -> None:
    assert answer_text('é"', "ü\n") == '{"decision": "é\\"", "abstain": false, "rationale": "ü\\n"}'


def test_prompt_fingerprints_differ() -> None:
    formats = [PromptFormat("a", "{text}"), PromptFormat("b", "{text}"), PromptFormat("a", "{text} ")]
    assert len({prompt.fingerprint() for prompt in formats}) == 3


@given(st.text(max_size=200), st.integers(0, 220))
def test_shortened_texts_keep_head_and_tail_and_never_grow(text: str, keep: int) -> None:
    short, removed = shorten_text(text, keep)
    assert removed == max(0, len(text) - keep)
    assert len(short) <= len(text)
    if removed:
        tail = keep // 4
        assert short.startswith(text[: keep - tail])
        assert short.endswith(text[len(text) - tail :])
        assert "…" in short
    else:
        assert short == text


def test_shorten_text_examples() -> None:
    assert shorten_text("x" * 2000, 400) == ("x" * 300 + " […1,600 characters left out…] " + "x" * 100, 1600)
    assert shorten_text("abcdef", 4) == ("abc…f", 2)
    assert shorten_text("abcdef", 0, "#") == ("#", 6)
    with pytest.raises(InvalidInput, match="negative"):
        shorten_text("a", -1)
