import json
from itertools import islice

import pytest

from finetune.adapters.embedded.corpus import extractions, unlabelled_documents
from finetune.adapters.embedded.messages import OUTCOMES, generate_messages


@pytest.fixture(scope="module")
def documents():
    return list(islice(unlabelled_documents(11), 6000))


def test_stream_is_deterministic():
    assert list(islice(unlabelled_documents(2), 30)) == list(islice(unlabelled_documents(2), 30))
    assert list(islice(unlabelled_documents(2), 30)) != list(islice(unlabelled_documents(3), 30))


def test_no_document_knows_the_answer_format(documents):
    assert not [d for d in documents if '"decision"' in d or '"abstain"' in d]


def test_json_documents_parse_and_no_value_is_an_outcome(documents):
    objects = [json.loads(d) for d in documents if d.startswith("{")]
    assert len(objects) > 500
    values = [value for made in objects for value in made.values()]
    assert not set(OUTCOMES) & {value.lower() for value in values if isinstance(value, str)}
    assert {True, False} <= {value for value in values if isinstance(value, bool)}
    assert len({key for made in objects for key in made}) >= 35


def test_summaries_name_no_outcome(documents):
    summaries = [d.rpartition("Summary: ")[2].lower() for d in documents if d.startswith("Message: ")]
    assert len(summaries) > 500
    assert not [s for s in summaries if any(name in s for name in OUTCOMES)]


def test_other_messages_than_those_of_the_same_seed(documents):
    drawn = {message.text for message in generate_messages(3000, seed=11) if len(message.text.split()) > 12}
    assert not drawn & set(documents)


def test_documents_are_varied_and_filled_in(documents):
    assert all(documents)
    assert len(set(documents)) > 0.97 * len(documents)
    assert not [d for d in documents if "<" in d or "|" in d]


def test_extractions_name_facts_and_no_outcome():
    for request, text, answer in islice(extractions(3), 2000):
        facts = json.loads(answer)
        assert list(facts) == list(json.loads(request))
        assert text
        assert not {str(value).casefold() for value in facts.values()} & set(OUTCOMES)


def test_extractions_share_no_message_with_the_labelled_set():
    labelled = {message.text for message in generate_messages(3000, 3)}
    assert not labelled & {row.text for row in islice(extractions(3), 3000) if len(row.text) > 60}
