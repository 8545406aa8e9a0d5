"""Unlabelled text to pre-train a tiny language model and its tokenizer on.

The base shall know the language of the messages and the syntax of JSON, and nothing of the task: no
document pairs a message with a label, holds the key of the answer format, or has an outcome as a JSON value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from finetune.adapters.embedded.inventory import Draws, choose, fill, inventory, lines, read
from finetune.adapters.embedded.messages import Message, message_stream
from finetune.adapters.embedded.situation import NOT_MENTIONED

# Moves the messages of the corpus away from those that a user draws with the same seed.
_OFFSET = 7_919_000_003
# Without "also", which has the name of an outcome among its values, and codes that no one would write.
NAMED_FACTS = ("who", "severity", "onset", "course", "history", "ask", "supply", "deadline")
_KINDS = {"message": 0.4, "summary": 0.15, "sentences": 0.2, "dialogue": 0.05, "notes": 0.05, "json": 0.15}


def unlabelled_documents(seed: int) -> Iterator[str]:
    """Yield documents without end.

    Parameters
    ----------
    seed
        Any integer; the same seed gives the same documents.

    Yields
    ------
    str
        A patient message, a message with a summary of its facts, sentences, a dialogue, a note, or JSON.

    Examples
    --------
    >>> documents = unlabelled_documents(1)
    >>> isinstance(next(documents), str)
    True
    """
    draws = Draws(seed)
    messages = message_stream(seed + _OFFSET)
    while True:
        kind = draws.weighted(_KINDS)
        if kind == "message":
            yield next(messages).text
        elif kind == "summary":
            yield _summary(next(messages))
        elif kind == "json":
            yield json.dumps(_object(draws, next(messages)), ensure_ascii=False)
        else:
            count = 1 + int(draws.uniform() * 4)
            yield ("\n" if kind == "dialogue" else " ").join(_sentence(kind, draws) for _ in range(count))


class Extraction(NamedTuple):
    """A message and facts that it shows: what is asked for, the text, and the answer as a JSON object."""

    request: str
    text: str
    answer: str


def extractions(seed: int) -> Iterator[Extraction]:
    """Yield messages with some of their facts, without end: reading, not triage.

    Parameters
    ----------
    seed
        Any integer; the same seed gives the same extractions.

    Yields
    ------
    Extraction
        The facts are those a reader would name (who, since when, how bad, what is asked for); what
        follows from them, the outcome, is not among them.

    Examples
    --------
    >>> import json
    >>> facts = json.loads(next(extractions(1)).answer)
    >>> set(facts) <= {"topic", "summary", *NAMED_FACTS}
    True
    """
    draws = Draws(seed)
    for message in message_stream(seed + 2 * _OFFSET):
        shown = {key: message.facts[key] for key in NAMED_FACTS if message.facts[key] != NOT_MENTIONED}
        shown["topic"] = _topic(message.rationale)
        shown["summary"] = message.rationale
        keys = sorted(shown, key=lambda _: draws.uniform())[: 1 + int(draws.uniform() * 3)]
        # The topic comes often and first: it is the hardest to read and says the most.
        if draws.chance(0.6):
            keys = ["topic", *(key for key in keys if key != "topic")]
        request = ", ".join(f'"{key}": "<{key}>"' for key in keys)
        answer = json.dumps({key: shown[key] for key in keys}, ensure_ascii=False)
        yield Extraction(f"{{{request}}}", message.text, answer)


def _topic(rationale: str) -> str:
    """Return the first words of a summary, which name the concern."""
    return re.split(r" with | for a | in a |,|\.", rationale)[0]


def _summary(message: Message) -> str:
    return f"Message: {message.text}\nSummary: {message.rationale}"


def _sentence(kind: str, draws: Draws) -> str:
    template = choose(draws.pick(lines(read("corpus")[kind])), draws)
    return fill(template, draws, {})


def _object(draws: Draws, message: Message) -> dict[str, Any]:
    """Keys in random order, values that are words, flags, sentences or the summary of some message."""
    words = read("corpus")
    made: dict[str, Any] = {}
    for _ in range(2 + int(draws.uniform() * 3)):
        form = draws.weighted({"word": 0.35, "flag": 0.3, "name": 0.1, "sentence": 0.1, "summary": 0.15})
        if form == "flag":
            made[draws.pick(words["flags"])] = draws.chance(0.5)
        elif form == "sentence":
            made[draws.pick(words["keys"])] = _sentence("sentences", draws)
        elif form == "summary":
            made[draws.pick(words["keys"])] = message.rationale
        else:
            options = words["values"] if form == "word" else inventory().style["words"]["name"]
            made[draws.pick(words["keys"])] = draws.pick(options)
    return made
