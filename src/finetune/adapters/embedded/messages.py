"""Messages to a clinic whose true posterior P(label | text) is known exactly.

Facts F are drawn first.  The label is drawn from P(label | F), a table of additive scores
(`situation`).  The text is drawn from P(text | F, style), where style (channel, language, pronouns,
asides) is drawn without looking at the label (`wording`).  Hence label and text are independent given
F.  Every mentioned fact is said with a phrase of that value alone, and an unmentioned fact is itself a
value, so the posterior is a function of the text: P(label | text) = E[P(label | F) | text] =
P(label | F).  The same holds for the group attributes: given F they tell nothing about the label.

What is not guaranteed: that a clinic would agree with the table.  It is a demonstration, not advice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from finetune.adapters.embedded.inventory import Draws, inventory
from finetune.adapters.embedded.situation import NOT_MENTIONED, OUTCOMES, draw_facts, posterior
from finetune.adapters.embedded.wording import render
from finetune.domain.errors import InvalidInput

__all__ = ["OUTCOMES", "Message", "generate_messages", "labels_document", "message_stream", "to_row"]

_CHANNELS = {"portal": 0.5, "sms": 0.28, "phone_transcript": 0.22}
_LANGUAGES = {"first": 0.78, "second": 0.22}
_BANDS = {
    "self": {"18-39": 0.36, "40-64": 0.38, "65+": 0.26},
    "partner": {"18-39": 0.35, "40-64": 0.4, "65+": 0.25},
}
_RATIONALE_WORDS = 15


@dataclass(frozen=True)
class Message:
    """One message with everything that is known about it."""

    text: str
    label: str
    rationale: str
    posterior: Mapping[str, float]
    facts: Mapping[str, str]
    groups: Mapping[str, str]


def generate_messages(n: int, seed: int) -> list[Message]:
    """Draw messages.

    Parameters
    ----------
    n
        How many, at least 0.
    seed
        Any integer.  The stream comes from `random.Random.random`, whose sequence the standard
        library keeps across versions and platforms.

    Returns
    -------
    list of Message
        Independent draws.  The first m of n are the m that ``generate_messages(m, seed)`` returns.

    Raises
    ------
    InvalidInput
        If `n` is negative.

    Notes
    -----
    Texts are not deduplicated: repeats are rare, and removing them would break independence.

    Examples
    --------
    >>> a, b = generate_messages(2, seed=1)
    >>> a == generate_messages(1, seed=1)[0]
    True
    """
    if n < 0:
        raise InvalidInput("the number of messages is negative", where="n", seen=n, remedy="use 0 or more")
    return list(islice(message_stream(seed), n))


def message_stream(seed: int) -> Iterator[Message]:
    """Yield the endless stream of messages of which `generate_messages` returns the beginning.

    Parameters
    ----------
    seed
        Any integer.

    Examples
    --------
    >>> next(message_stream(1)) == generate_messages(1, seed=1)[0]
    True
    """
    draws = Draws(seed)
    while True:
        yield _one(draws)


def _one(draws: Draws) -> Message:
    facts = draw_facts(draws)
    groups = _groups(facts, draws)
    text = render(facts, groups, draws)
    truth = posterior(facts)
    return Message(text, draws.weighted(truth), rationale(facts), truth, facts, groups)


def _groups(facts: Mapping[str, str], draws: Draws) -> dict[str, str]:
    spec = inventory().concerns[facts["concern"]].spec
    fixed = {"child": "0-17", "baby": "0-17", "parent": "65+"}.get(facts["who"])
    band = fixed or (
        draws.pick(spec["bands"])
        if "bands" in spec
        else draws.weighted(_BANDS.get(facts["who"], _BANDS["self"]))
    )
    return {
        "age_band": band,
        "sex": spec.get("sex") or draws.weighted({"female": 0.56, "male": 0.44}),
        "channel": draws.weighted(_CHANNELS),
        "language": draws.weighted(_LANGUAGES),
    }


def rationale(facts: Mapping[str, str]) -> str:
    """Say the facts in one sentence of at most 15 words; it knows nothing of the drawn label.

    Parameters
    ----------
    facts
        A value for each fact.

    Examples
    --------
    >>> from finetune.adapters.embedded.situation import FACTS
    >>> plain = dict.fromkeys(FACTS, NOT_MENTIONED)
    >>> rationale(plain | {"concern": "rash", "who": "baby", "onset": "days", "severity": "mild"})
    'Mild rash in a baby, for some days.'
    """
    found = inventory()
    sentence = found.concerns[facts["concern"]].note
    if facts["severity"] != NOT_MENTIONED:
        sentence = f"{found.facts['severity'][facts['severity']]['note']} {sentence}"
    extras: list[str] = []
    if facts["who"] in {"child", "baby", "parent"}:
        patient = f" {'in' if found.concerns[facts['concern']].kind == 'symptom' else 'for'} a {facts['who']}"
        extras += [] if patient in sentence or "newborn" in sentence.lower() else [patient]
    if facts["sign"] != NOT_MENTIONED:
        group, sign = facts["sign"].split(".")
        extras.append(f" with {found.facts['signs'][group][sign]['note']}")
    if facts["drug"] in {"critical", "controlled"}:
        extras.append(f" ({facts['drug']} drug)")
    extras += [
        f", {found.facts[fact][facts[fact]]['note']}"
        for fact in ("onset", "course", "supply", "deadline", "also", "history", "ask")
        if facts[fact] != NOT_MENTIONED
    ]
    for extra in extras:
        if len((sentence + extra).split()) <= _RATIONALE_WORDS:
            sentence += extra
    return sentence[0].upper() + sentence[1:] + "."


def to_row(message: Message, index: int) -> dict[str, Any]:
    """Turn a message into a JSON-able row of raw examples.

    Parameters
    ----------
    message
        The message.
    index
        Its place in the stream; becomes the id.

    Examples
    --------
    >>> to_row(generate_messages(1, seed=1)[0], 0)["id"]
    'message-000000'
    """
    return {
        "id": f"message-{index:06d}",
        "text": message.text,
        "label": message.label,
        "rationale": message.rationale,
        **message.groups,
        "posterior": dict(message.posterior),
    }


def labels_document() -> dict[str, Any]:
    """Return the content of ``configs/labels.yaml`` for this task.

    Examples
    --------
    >>> [row["name"] for row in labels_document()["labels"]] == list(OUTCOMES[:-1])
    True
    """
    described = {
        "emergency": ("Life or limb may be at risk: call an ambulance now", ["911", "call an ambulance"]),
        "urgent": ("Needs a clinician today or tomorrow", ["same day", "today"]),
        "routine": (
            "A clinical matter that can wait for a normal appointment or reply",
            ["non-urgent", "regular"],
        ),
        "refill": ("Renewal or supply of a medicine", ["prescription", "renewal"]),
        "administrative": ("Appointments, records, bills, forms and the portal", ["admin", "office"]),
    }
    return {
        "version": 1,
        "task": "Triage of patient messages",
        "labels": [{"name": k, "description": d, "aliases": a} for k, (d, a) in described.items()],
        "abstain": {
            "description": "Not decidable from the text, or about something else",
            "aliases": ["unsure"],
        },
        "costs": {
            "default": 1.0,
            "abstain": 0.3,
            "pairs": {
                "emergency": {"urgent": 5.0, "routine": 20.0, "refill": 20.0, "administrative": 20.0},
                "urgent": {"routine": 5.0, "refill": 5.0, "administrative": 5.0},
            },
        },
    }
