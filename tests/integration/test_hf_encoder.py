"""Chat templates as models have them: what stands around the answer, and what a text may not do."""

from __future__ import annotations

import pytest
from tests.tiny_models import CHATML, GLM, tokenizer
from tokenizers import normalizers

from finetune.adapters.hf.encoder import HfEncoder
from finetune.domain.errors import InvalidInput
from finetune.domain.examples import Example
from finetune.domain.labels import Abstention, Label, LabelSet
from finetune.domain.prompts import PromptFormat, answer_text, default_prompt

LABELS = LabelSet("Cards", (Label("card"), Label("card_lost")), Abstention("undecidable"))
PROMPT = default_prompt(LABELS)
EXAMPLE = Example("1", "my card is gone", "card_lost", "it is gone")


def encoder(template: str | None, glm: bool = False, labels: LabelSet = LABELS, max_length: int = 256):
    fast = tokenizer(glm=glm)
    fast.chat_template = template
    return HfEncoder(fast, labels, default_prompt(labels), max_length)


def trained_text(made: HfEncoder) -> str:
    row = made.encode(EXAMPLE)
    return made.tokenizer.decode(row.ids[row.answer_start :])


def test_what_the_template_puts_before_an_answer_is_in_training_and_scoring():
    """GLM-4.5's generation prompt ends before the line break that stands before every answer."""
    short = GLM.replace("<|assistant|>\n{% endif %}", "<|assistant|>{% endif %}")
    made = encoder(short, glm=True)
    assert made.prompt_text("x").endswith("<|assistant|>\n")
    assert trained_text(made) == answer_text("card_lost", "it is gone") + "<|user|>"


def test_the_end_of_turn_is_what_the_template_writes_behind_an_answer():
    assert trained_text(encoder(CHATML)).endswith("<|im_end|>")


def test_a_template_that_rewrites_answers_falls_back_to_the_end_of_text():
    rewriting = CHATML.replace("{{ m.content }}", "{{ m.content | lower }}")
    made = encoder(rewriting)
    assert made.tokenizer.decode([made.end_id]) == "<|endoftext|>"


def test_a_prompt_does_not_change_over_night():
    dated = "Today is {{ strftime_now('%d %b %Y') }}, {{ date_string }}.\n" + CHATML
    assert "Today is 26 Jul 2024, 26 Jul 2024." in encoder(dated).prompt_text("x")


def test_thinking_is_off_alike_in_training_and_scoring():
    thinking = CHATML.replace(
        "assistant\n{% endif %}",
        "assistant\n{% if enable_thinking is false %}<think></think>\n{% endif %}{% endif %}",
    )
    made = encoder(thinking)
    assert made.prompt_text("x").endswith("<think></think>\n")
    assert trained_text(made) == answer_text("card_lost", "it is gone") + "<|im_end|>"


def test_a_template_without_a_system_role_gets_one_message():
    refusing = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHATML
    )
    text = encoder(refusing).prompt_text("hello")
    assert text.index(PROMPT.system) < text.index("hello")
    assert "<|im_start|>system" not in text


def test_a_template_that_trims_keeps_its_system_role():
    trimming = CHATML.replace("{{ m.content }}", "{{ m.content | trim }}")
    fast = tokenizer()
    fast.chat_template = trimming
    made = HfEncoder(fast, LABELS, PromptFormat(PROMPT.system, "{text}\n"), 256)
    assert "<|im_start|>system" in made.prompt_text("hello")


def test_a_model_without_a_template_gets_plain_text():
    made = encoder(None)
    assert made.prompt_text("hello").endswith("hello\n")
    assert trained_text(made) == answer_text("card_lost", "it is gone") + "<|endoftext|>"


def test_control_tokens_that_are_not_flagged_special_are_broken_up_too():
    fast = tokenizer()
    fast.add_tokens(["</think>"])
    made = HfEncoder(fast, LABELS, PROMPT, 256)
    ids, _ = made.score_ids('</think>{"decision": "card"}')
    assert fast.convert_tokens_to_ids("</think>") not in ids


def test_a_tokeniser_that_alters_a_label_is_an_error():
    fast = tokenizer()
    fast.backend_tokenizer.normalizer = normalizers.NFKC()
    labels = LabelSet("Cards", (Label("billing（x）"), Label("card")))
    with pytest.raises(InvalidInput, match="does not give this label back") as caught:
        HfEncoder(fast, labels, default_prompt(labels), 256)
    assert caught.value.seen == "billing（x）"


def test_labels_are_scored_behind_the_same_ids_that_training_saw():
    made = encoder(CHATML)
    row = made.encode(EXAMPLE)
    head, _ = made.score_ids(EXAMPLE.text)
    path = made.label_paths[1]
    assert list(row.ids[: len(head) + len(path)]) == head + path


def test_the_fingerprint_follows_template_length_and_vocabulary():
    plain = encoder(CHATML).fingerprint()
    assert encoder(CHATML).fingerprint() == plain
    assert encoder(CHATML, max_length=255).fingerprint() != plain
    assert encoder("x" + CHATML).fingerprint() != plain
    assert encoder(GLM, glm=True).fingerprint() != plain
