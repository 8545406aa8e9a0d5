import itertools
import json
import re
from collections import Counter, defaultdict

import pytest
from scipy import stats

from finetune.adapters.embedded.inventory import inventory, phrases
from finetune.adapters.embedded.messages import OUTCOMES, generate_messages, labels_document, to_row
from finetune.adapters.embedded.situation import FACTS, NOT_MENTIONED, posterior
from finetune.domain.errors import InvalidInput

ARTICLE = re.compile(r"\b(the|a|an) ")


@pytest.fixture(scope="module")
def messages():
    return generate_messages(20_000, seed=20_240_601)


def normalise(text):
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


def expand(template):
    """All texts that the choices of a phrase can give."""
    pending, done = [template], []
    while pending:
        text = pending.pop()
        match = re.search(r"\(([^()]*)\)", text)
        if match is None:
            done.append(re.sub(r"<([^<>/]+)/[^<>]+>", r"\1", text))
        else:
            pending += [text[: match.start()] + o + text[match.end() :] for o in match.group(1).split("|")]
    return done


def spoken():
    """(fact, value) -> the normalised texts of every phrase, without articles, with slots as words."""
    found = inventory()
    values = [("concern", name) for name in found.concerns]
    values += [("sign", f"{g}.{s}") for g, signs in found.facts["signs"].items() for s in signs]
    for fact in ("severity", "onset", "course", "history", "ask", "supply", "deadline", "also"):
        values += [(fact, value) for value in found.facts[fact]]
    forms = ("say", "short", "tail", "event", "eshort")
    table = {}
    for fact, value in values:
        # A sign has just `say` and `short`.
        usable = forms[:2] if fact == "sign" else forms
        texts = {t for form in usable for phrase in phrases(fact, value, form) for t in expand(phrase)}
        table[fact, value] = {normalise(ARTICLE.sub("", text)) for text in texts}
    return table


def test_phrases_of_different_fact_values_are_disjoint():
    owner = {}
    for value, texts in spoken().items():
        for text in texts:
            assert owner.setdefault(text, value) == value, text


def parts(text):
    words = text.split()
    return {" ".join(words[i:j]) for i, j in itertools.combinations(range(len(words) + 1), 2)}


def test_no_phrase_hides_inside_a_phrase_of_another_fact_value_or_of_style():
    table = spoken()
    owner = {text: value for value, texts in table.items() for text in texts}
    style = inventory().style
    neutral = [p for key in ("aside", "aside_written", "greeting", "closing") for p in style[key]]
    table[None] = {normalise(ARTICLE.sub("", text)) for phrase in neutral for text in expand(phrase)}
    for value, texts in table.items():
        if value is not None and posterior_is_outright(value):
            continue  # these concerns come without any other fact
        for text in texts:
            hidden = {part for part in parts(text) if owner.get(part, value) != value}
            assert not hidden, (value, text, hidden)


def posterior_is_outright(value):
    return value[0] == "concern" and "p" in inventory().concerns[value[1]].spec


def test_drug_names_belong_to_one_class():
    names = [name for spec in inventory().facts["drug"].values() for name in spec["names"]]
    assert len(names) == len(set(names)) >= 36


def test_same_text_means_same_posterior(messages):
    seen = {}
    for message in messages:
        known = seen.setdefault(normalise(message.text), message.posterior)
        assert known == message.posterior, message.text


def test_posteriors_are_distributions(messages):
    for message in messages:
        assert tuple(message.posterior) == OUTCOMES
        assert min(message.posterior.values()) >= 0.0
        assert abs(sum(message.posterior.values()) - 1.0) < 1e-9


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_labels_follow_the_posterior(messages, outcome):
    edges = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97)
    buckets = defaultdict(list)
    for message in messages:
        p = message.posterior[outcome]
        buckets[sum(p > edge for edge in edges)].append((p, message.label == outcome))
    statistic, freedom = 0.0, 0
    for rows in buckets.values():
        variance = sum(p * (1 - p) for p, _ in rows)
        if variance >= 5.0:
            statistic += (sum(hit for _, hit in rows) - sum(p for p, _ in rows)) ** 2 / variance
            freedom += 1
    assert freedom >= 3
    assert stats.chi2.sf(statistic, freedom) > 1e-3


@pytest.mark.parametrize("group", ["channel", "language", "sex", "age_band"])
def test_labels_do_not_depend_on_groups_given_the_facts(messages, group):
    for value in {message.groups[group] for message in messages}:
        rows = [message for message in messages if message.groups[group] == value]
        for outcome in OUTCOMES:
            expected = sum(m.posterior[outcome] for m in rows)
            variance = sum(m.posterior[outcome] * (1 - m.posterior[outcome]) for m in rows)
            z = (sum(m.label == outcome for m in rows) - expected) / variance**0.5
            assert abs(z) < 4.0, (value, outcome)


def test_bayes_accuracy_and_priors(messages):
    assert 0.88 <= sum(max(m.posterior.values()) for m in messages) / len(messages) <= 0.91
    share = {name: count / len(messages) for name, count in Counter(m.label for m in messages).items()}
    aims = dict(zip(OUTCOMES, (0.10, 0.20, 0.27, 0.16, 0.15, 0.12), strict=True))
    assert all(abs(share[name] - aim) < 0.025 for name, aim in aims.items()), share


def test_abstain_posteriors_of_out_of_scope_and_undecidable_messages(messages):
    for message in messages:
        kind = inventory().concerns[message.facts["concern"]].kind
        if kind == "scope":
            assert message.posterior["abstain"] >= 0.96
        elif kind == "unclear":
            assert 0.6 <= message.posterior["abstain"] <= 0.7


def test_lengths_and_number_of_concerns(messages):
    lengths = [len(message.text.split()) for message in messages]
    assert min(lengths) >= 5
    assert max(lengths) <= 90
    assert 23 <= sum(lengths) / len(lengths) <= 31
    assert len({message.facts["concern"] for message in messages}) == len(inventory().concerns) >= 150


def test_texts_are_distinct_and_seldom_alike(messages):
    texts = [normalise(message.text) for message in messages[:1500]]
    assert len(set(texts)) >= 0.99 * len(texts)
    grams = [{text[i : i + 5] for i in range(len(text) - 4)} for text in texts]
    alike = set()
    for (i, one), (j, other) in itertools.combinations(enumerate(grams), 2):
        small, large = sorted((len(one), len(other)))
        if small >= 0.85 * large and len(one & other) >= 0.85 * len(one | other):
            alike |= {i, j}
    assert len(alike) < 0.03 * len(texts)


def test_no_slot_is_left_open(messages):
    assert not [m.text for m in messages if re.search(r"[<>|()\[\]]|  ", m.text)]


def test_patient_other_than_the_writer_is_named(messages):
    person = {"child": "son|daughter|boy|girl", "baby": "boy|girl|son|daughter|month", "parent": "mo|dad|fa",
              "partner": "wife|girl|hus|boy"}  # fmt: skip
    others = [m for m in messages if m.facts["who"] in person and m.groups["channel"] == "phone_transcript"]
    assert len(others) > 500
    for message in others:
        assert re.search(rf"(?i)\b(my|our)\b[\w -]*({person[message.facts['who']]})", message.text), (
            message.text
        )


def test_rationales_are_short_sentences_that_name_no_outcome(messages):
    for message in messages:
        assert len(message.rationale.split()) <= 15
        assert message.rationale.endswith(".")
        assert not any(name in message.rationale.lower() for name in OUTCOMES), message.rationale


def test_stream_is_deterministic_and_prefix_stable():
    assert generate_messages(40, seed=3)[:15] == generate_messages(15, seed=3)
    assert generate_messages(15, seed=3) != generate_messages(15, seed=4)


def test_negative_count_is_refused():
    with pytest.raises(InvalidInput, match="negative"):
        generate_messages(-1, seed=0)


def test_worse_signs_raise_the_emergency_probability():
    base = dict.fromkeys(FACTS, NOT_MENTIONED) | {"concern": "chest_pressure", "who": "self"}
    signs = ("chest.talks_fine", NOT_MENTIONED, "chest.sweating")
    risk = [posterior(base | {"sign": sign})["emergency"] for sign in signs]
    assert risk[0] < risk[1] < risk[2]
    assert risk[2] > 0.95


def test_row_is_json_with_groups():
    row = to_row(generate_messages(1, seed=5)[0], 12)
    assert json.loads(json.dumps(row)) == row
    assert row["id"] == "message-000012"
    assert {"text", "label", "rationale", "age_band", "sex", "channel", "language", "posterior"} < set(row)


def test_labels_document_names_every_outcome():
    document = labels_document()
    assert [*(row["name"] for row in document["labels"]), "abstain"] == list(OUTCOMES)
    assert document["costs"]["pairs"]["emergency"]["routine"] == 20.0
    assert document["costs"]["abstain"] == 0.3
