"""Read a decision out of whatever a model wrote."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from finetune.domain.labels import ABSTAIN, LabelSet, closest, fold
from finetune.domain.loose_json import NULLS, LooseObject, Scalar, loose_objects

DECISION_KEYS = ("decision", "label", "answer", "class", "category")
RATIONALE_KEYS = ("rationale", "reason", "reasoning", "explanation")
ABSTAIN_KEYS = ("abstain", "abstained", "abstention")

_MAX_BARE_CHARS = 1000
_FALSE = frozenset({"false", "no", "0", *NULLS})
_SURROGATE = re.compile("[\ud800-\udfff]")
_LABELLED = re.compile(rf"\W*(?:{'|'.join(DECISION_KEYS)})\W*[:=](?P<value>[^\n]*)\Z", re.IGNORECASE)
_WRAPPING = " \t\r\n`'\"*.“”‘’"


@dataclass(frozen=True)
class ParsedAnswer:
    """What a model's answer says.

    Parameters
    ----------
    decision
        A label name, ``abstain``, or None where the answer says neither.
    abstain
        Whether nothing was decided: an abstention, or an error.
    rationale
        The reason given, if there is one.
    error
        Why there is no decision.
    repairs
        What had to be overlooked to read the answer.
    """

    decision: str | None
    abstain: bool
    rationale: str | None = None
    error: str | None = None
    repairs: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether the answer was exactly in the answer format, with a known outcome and a consistent flag."""
        return self.error is None and not self.repairs


def parse_answer(text: str, label_set: LabelSet) -> ParsedAnswer:
    """Read an answer, strictly if possible and leniently if not.

    Read in spite of their faults are code fences, text around the object, several objects (the first one
    with a known decision counts), Python literals, missing quotes, stray or missing commas, an object that
    is cut off after the decision, synonyms of keys, aliases and other spellings of labels, and a label
    with nothing around it.  Every fault is named in `repairs`.

    Where two readings are possible, the cautious one is taken: a flag that says abstain, or that cannot be
    read, makes an abstention of any decision; a decision that is cut off, or given twice differently, is
    an error.  A decision ``abstain`` is an abstention even if the label set has none.

    Parameters
    ----------
    text
        Any string.
    label_set
        The outcomes to look for.

    Returns
    -------
    ParsedAnswer
        Never an exception; the time taken is linear in the length of the text.

    Examples
    --------
    >>> from finetune.domain.labels import Label
    >>> labels = LabelSet("Cards", (Label("card"), Label("card_lost")))
    >>> parse_answer('{"decision": "card", "abstain": false, "rationale": "asks"}', labels).valid
    True
    >>> parse_answer("Sure: {'label': 'Card Lost', }", labels).decision
    'card_lost'
    >>> parse_answer('{"decision": "card', labels).error
    "the decision is cut off at 'card'"
    """
    strict = _parse_strict(text, label_set)
    if strict is not None:
        return strict
    error: str | None = None
    skip_until = 0
    for found in loose_objects(text):
        if found.start < skip_until:
            continue
        parsed = _read_object(found, text, label_set)
        if parsed is not None:
            return parsed
        key, decisions = _values(found, DECISION_KEYS)
        if key is not None and error is None:
            error = _problem(decisions, label_set)
        if any(plain for _, plain in decisions):
            # What stands inside of an object with a decision of its own is no answer.
            skip_until = len(text) if found.end is None else found.end
    if error is not None:
        return ParsedAnswer(None, True, error=error)
    return _parse_bare(text, label_set)


def _parse_strict(text: str, label_set: LabelSet) -> ParsedAnswer | None:
    pairs = _load(text)
    if not isinstance(pairs, _Pairs) or len(pairs) != 3:
        return None
    value = dict(pairs)
    decision, abstain, rationale = (value.get(key) for key in ("decision", "abstain", "rationale"))
    if not isinstance(decision, str) or not isinstance(abstain, bool) or not isinstance(rationale, str):
        return None
    if decision not in label_set.outcomes or abstain != (decision == ABSTAIN) or _SURROGATE.search(rationale):
        return None
    return ParsedAnswer(decision, abstain, rationale)


class _Pairs(tuple[tuple[str, object], ...]):
    """An object as its pairs, so that a repeated key is not lost and an array is not mistaken for it."""


def _load(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        return None


_Found = list[tuple[list[Scalar], bool]]  # all values under one key, and whether each is a plain scalar


def _values(found: LooseObject, keys: tuple[str, ...]) -> tuple[str | None, _Found]:
    """Return the first of `keys` that the object has, as it is spelt there, and all its values."""
    folded = [(fold(key[:50]), key, values, plain) for key, values, plain in found.pairs]
    for wanted in keys:
        hits = [(key, values, plain) for name, key, values, plain in folded if name == wanted]
        if hits:
            return hits[0][0], [(values, plain) for _, values, plain in hits]
    return None, []


def _read_object(found: LooseObject, text: str, label_set: LabelSet) -> ParsedAnswer | None:
    """Return the answer that an object gives, or None if it gives none."""
    decision_key, decisions = _values(found, DECISION_KEYS)
    flag_key, flags = _values(found, ABSTAIN_KEYS)
    flagged = any(_says_abstain(values) for values, _ in flags)
    decision = _decision(decisions, label_set)
    if decision is None and not flagged:
        return None
    rationale_key, rationales = _values(found, RATIONALE_KEYS)

    repairs = _syntax_repairs(found, text)
    keys = {"decision": decision_key, "abstain": flag_key, "rationale": rationale_key}
    for name, key in keys.items():
        if key is None:
            repairs.append(f"{name} is missing")
        elif key != name:
            repairs.append(f"key {key[:50]!r} was read as {name}")
    if decision is None and decisions:
        repairs.append(_problem(decisions, label_set))
    elif decision is not None and decisions[0] != ([Scalar(decision, quoted=True, cut=False)], True):
        repairs.append("the decision is not spelt as the label")
    if flagged and decision not in (None, ABSTAIN):
        repairs.append("the abstain flag overrules the decision")
    elif decision == ABSTAIN and flags and not flagged:
        repairs.append("the abstain flag contradicts the decision")
    outcome = decision if decision is not None and not flagged else ABSTAIN
    if outcome == ABSTAIN and label_set.abstention is None:
        repairs.append("abstention is no outcome of the label set")
    rationale = rationales[0][0][0].text if rationales and rationales[0][0] else None
    # Left over are repeated or additional keys, flags that are no booleans, and the like.
    notes = tuple(repairs) or ("not exactly the answer format",)
    return ParsedAnswer(outcome, outcome == ABSTAIN, rationale, repairs=notes)


def _says_abstain(values: list[Scalar]) -> bool:
    if not values:
        return True
    said = values[0].text.strip().casefold()
    return not any(word.startswith(said) if values[0].cut else word == said for word in _FALSE)


def _decision(decisions: _Found, label_set: LabelSet) -> str | None:
    """Return the outcome that all of the values name, if there is one."""
    outcomes = {
        None
        if len(values) != 1 or values[0].cut or values[0].is_null
        else _outcome(values[0].text, label_set)
        for values, _ in decisions
    }
    return outcomes.pop() if len(outcomes) == 1 else None


def _problem(decisions: _Found, label_set: LabelSet) -> str:
    """Say why `_decision` found none."""
    if len(decisions) > 1:
        return f"the decision is given {len(decisions)} times"
    values = decisions[0][0]
    if len(values) != 1:
        return f"the decision is a list or object with {len(values)} values, not one label"
    if values[0].is_null:
        return "the decision is null"
    if values[0].cut:
        return f"the decision is cut off at {values[0].text[-60:]!r}"
    return _unknown(values[0].text, label_set)


def _outcome(text: str, label_set: LabelSet) -> str | None:
    return label_set.resolve(text) or (ABSTAIN if len(text) <= 50 and fold(text) == ABSTAIN else None)


def _unknown(text: str, label_set: LabelSet) -> str:
    near = closest(text, label_set.outcomes)
    hint = f"; did the model mean {near!r}?" if near else ""
    return f"{text[:60]!r} is no label of the label set{hint}"


def _syntax_repairs(found: LooseObject, text: str) -> list[str]:
    if found.end is None:
        return ["the object is cut off"]
    before, after = text[: found.start].strip(), text[found.end :].strip()
    repairs = []
    if before or after:
        fenced = before.startswith("```") or after.endswith("```")
        repairs.append(
            "there is a code fence around the object" if fenced else "there is text around the object"
        )
    if _load(text[found.start : found.end]) is None:
        repairs.append("the object is no valid JSON")
    return repairs


def _parse_bare(text: str, label_set: LabelSet) -> ParsedAnswer:
    said = text.strip(_WRAPPING)
    if len(said) <= _MAX_BARE_CHARS:
        labelled = _LABELLED.match(said)
        # The text as it stands comes first: a label may itself look wrapped.
        for name in (text, said, labelled["value"].strip(_WRAPPING) if labelled else ""):
            outcome = _outcome(name, label_set)
            if outcome is not None:
                notes = ("the answer is a label, not an object",)
                return ParsedAnswer(outcome, outcome == ABSTAIN, repairs=notes)
    error = f"there is no decision: {_unknown(said, label_set)}" if said else "the answer is empty"
    return ParsedAnswer(None, True, error=error)
