"""Facts to text: a random architecture, random phrases, the patient's pronouns, and style.

Every mentioned fact is said exactly once, with a phrase that belongs to that value alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from finetune.adapters.embedded.inventory import Draws, choose, fill, inventory, phrases
from finetune.adapters.embedded.noise import roughen
from finetune.adapters.embedded.situation import NOT_MENTIONED

_TOKEN = re.compile(r"<([^<>]+)>")
_START = re.compile(r"(^|[.?!] +|\n+)([a-z])")
_PEOPLE = {
    "child": ("son", "daughter"), "baby": ("baby_boy", "baby_girl"), "parent": ("mother", "father"),
    "partner": ("wife", "husband"),
}  # fmt: skip
_DETAILS = ("severity", "course", "sign", "history")


def person_key(who: str, sex: str) -> str | None:
    """Return the entry of ``people`` in style.yaml for the patient, None for the writer."""
    for key in _PEOPLE.get(who, ()):
        if inventory().style["people"][key]["sex"] == sex:
            return key
    return None


def _agree(text: str, person: str | None, broken: bool, ages: Mapping[str, str], draws: Draws) -> str:
    """Put the patient into the tokens: by name at the first mention, by pronoun afterwards."""
    if person is None:
        own = {"I": "I", "my": "my", "me": "me", "myself": "myself"}
        return _TOKEN.sub(lambda match: own.get(match.group(1)) or match.group(1).split("/")[0], text)
    entry = inventory().style["people"][person]
    name = fill(draws.pick(entry["first"].split("|")), draws, ages)
    seen = False

    def put(match: re.Match[str]) -> str:
        nonlocal seen
        token = match.group(1)
        if "/" in token:
            return token.split("/")[0 if broken and token != "am/is" else 1]
        first, seen = not seen, True
        if token == "my":
            return f"{name}'s" if first else str(entry["possessive"])
        if token == "myself":
            return str(entry["reflexive"])
        return name if first else str(entry["subject" if token == "I" else "object"])

    return _TOKEN.sub(put, text)


def _phrase(facts: Mapping[str, str], fact: str, form: str, draws: Draws) -> str:
    return choose(draws.pick(phrases(fact, facts[fact], form)), draws)


def _mentioned(facts: Mapping[str, str], names: tuple[str, ...]) -> list[str]:
    return [name for name in names if facts[name] != NOT_MENTIONED]


def _stop(clause: str) -> str:
    return clause if clause[-1] in ".?!" else clause + "."


def _with_onset(facts: Mapping[str, str], draws: Draws) -> list[str]:
    clause = _phrase(facts, "concern", "say", draws)
    if facts["onset"] == NOT_MENTIONED:
        return [clause]
    if inventory().concerns[facts["concern"]].spec.get("event"):
        return [
            f"{clause}{', ' if clause[-12:].count(',') else ' '}{_phrase(facts, 'onset', 'event', draws)}"
        ]
    tail = _phrase(facts, "onset", "tail", draws)
    if tail.startswith("it "):
        return [clause, tail]
    return [f"{clause}, {tail}"] if tail.startswith("which") or draws.chance(0.6) else [f"{clause} {tail}"]


def _join(clauses: list[str], draws: Draws) -> str:
    """Sentences, some of them joined by "and" or a comma."""
    text = ""
    for clause in clauses:
        open_end = text and text[-1] not in ".?!" and clause[-1] not in "?!."
        if not text:
            text = clause
        elif open_end and len(clause) < 70 and draws.chance(0.35):
            text += draws.pick((", and ", " and ", ", ", "; ", ", plus ")) + clause
            text += "."
        else:
            text = f"{_stop(text)} {clause}"
    return _stop(text)


def _short_form(facts: Mapping[str, str], bullets: bool, draws: Draws) -> str:
    event = inventory().concerns[facts["concern"]].spec.get("event")
    parts = [_phrase(facts, "concern", "short", draws)]
    if facts["onset"] != NOT_MENTIONED:
        parts.append(_phrase(facts, "onset", "eshort" if event else "short", draws))
    rest = [_phrase(facts, name, "short", draws) for name in _mentioned(facts, _DETAILS)]
    if len(rest) > 1 and draws.chance(0.5):
        rest.reverse()
    parts += rest
    if bullets:
        text = "\n".join(f"- {part}" for part in parts) + "\n"
    else:
        text = draws.pick((", ", ", ", ". ", " - ", "; ")).join(parts) + ". "
    if facts["who"] != "self":
        lead = draws.pick(("For <me>: ", "About <me>: ", "<me>: ", "Question about <me>. "))
        text = lead + ("\n" if bullets else "") + text
    if facts["ask"] != NOT_MENTIONED:
        text += _phrase(facts, "ask", "say", draws)
    return text.strip()


def _symptom(facts: Mapping[str, str], channel: str, draws: Draws) -> str:
    if channel != "phone_transcript" and draws.chance(0.22 if channel == "sms" else 0.13):
        return _short_form(facts, channel == "portal" and draws.chance(0.4), draws)
    opening = _with_onset(facts, draws)
    details = _mentioned(facts, _DETAILS)
    details.sort(key=lambda _: draws.uniform())
    first: list[str] = []
    if facts["history"] not in {NOT_MENTIONED, "healthy"} and draws.chance(0.4):
        details.remove("history")
        first = [_phrase(facts, "history", "say", draws)]
    body = opening + [_phrase(facts, name, "say", draws) for name in details]
    ask = [] if facts["ask"] == NOT_MENTIONED else [_phrase(facts, "ask", "say", draws)]
    aside = [_aside(channel, draws)] if draws.chance(0.7) else []
    order = draws.pick(("plain", "plain", "aside first", "question first", "aside last"))
    if order == "question first":
        return _join(ask + first + body + aside, draws)
    if order == "aside first":
        return _join(aside + first + body + ask, draws)
    return _join(first + body + aside + ask, draws)


def _request(facts: Mapping[str, str], kind: str, channel: str, draws: Draws) -> str:
    clauses = [_phrase(facts, "concern", "say", draws)]
    clauses += [_phrase(facts, name, "say", draws) for name in _mentioned(facts, ("supply", "deadline"))]
    aside = [_aside(channel, draws)] if draws.chance(0.2 if kind in {"scope", "unclear"} else 0.75) else []
    clauses = aside + clauses if draws.chance(0.5) else clauses + aside
    clauses += [_phrase(facts, name, "say", draws) for name in _mentioned(facts, ("also",))]
    return _join(clauses, draws)


def _aside(channel: str, draws: Draws) -> str:
    style = inventory().style
    written = style["aside_written"] if channel != "phone_transcript" else []
    return _stop(choose(draws.pick([*style["aside"], *written]), draws))


def _frame(text: str, kind: str, channel: str, draws: Draws) -> str:
    style = inventory().style
    if len(text.split()) < 6:
        text = f"{_stop(text)} {_aside(channel, draws)}"
    if channel == "phone_transcript":
        text = draws.pick(("hi, ", "yes hi, ", "yeah hello, ", "hello, ", "hi there, ", "", "")) + text
        pieces = re.split(r"(?<=[.?!]) ", text)
        return " ".join(f"{draws.pick(style['filler'])} {p}" if draws.chance(0.25) else p for p in pieces)
    if draws.chance({"portal": 0.4, "sms": 0.15}[channel]) and kind != "unclear":
        text = choose(draws.pick(style["greeting"]), draws) + ("\n" if draws.chance(0.3) else " ") + text
    if draws.chance({"portal": 0.4, "sms": 0.2}[channel]):
        end = draws.pick(style["closing"])
        text += (
            ("\n" if draws.chance(0.4) else " ") + end + draws.pick((".", "", "!" if "Thank" in end else "."))
        )
    return text


def render(facts: Mapping[str, str], groups: Mapping[str, str], draws: Draws) -> str:
    """Write one message.

    Parameters
    ----------
    facts
        A value for each fact; see `situation.draw_facts`.
    groups
        ``channel`` and ``language`` change the style, ``sex`` the pronouns of any other patient.
    draws
        Source of randomness; the drawn label is not among the arguments.

    Returns
    -------
    str
        The text.
    """
    concern = inventory().concerns[facts["concern"]]
    channel, language = groups["channel"], groups["language"]
    if concern.kind == "symptom":
        text = _symptom(facts, channel, draws)
    else:
        text = _request(facts, concern.kind, channel, draws)
    person = person_key(facts["who"], groups["sex"])
    if person is not None and not any(token in text for token in ("<I>", "<my>", "<me>")):
        text = draws.pick(("this is about <me>. ", "this is for <me>. ", "writing about <me>: ")) + text
    text = _frame(text, concern.kind, channel, draws)
    drug = {} if facts["drug"] == NOT_MENTIONED else {
        "drug": str(draws.pick(inventory().facts["drug"][facts["drug"]]["names"]))
    }  # fmt: skip
    text = fill(text, draws, drug)
    broken = language == "second" and draws.chance(0.3)
    ages = {name: str(concern.spec[name]) for name in ("age", "months") if name in concern.spec}
    text = _agree(text, person, broken, ages, draws)
    text = re.sub(r" +([,.?!])", r"\1", re.sub(r" {2,}", " ", text))
    text = _START.sub(lambda match: match.group(1) + match.group(2).upper(), text)
    return roughen(text, channel, language, draws).strip()
