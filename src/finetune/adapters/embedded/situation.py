"""The visible facts of a message, how they are drawn, and P(label | facts).

The score of an outcome is the sum of one table entry per mentioned fact value (facts.yaml,
requests.yaml, request_facts.yaml); the posterior is the softmax of the scores over a temperature.
Concerns that nobody can triage state their posterior outright.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from finetune.adapters.embedded.inventory import Concern, Draws, inventory

OUTCOMES: tuple[str, ...] = ("emergency", "urgent", "routine", "refill", "administrative", "abstain")
NOT_MENTIONED = "not mentioned"
FACTS = (
    "concern",
    "who",
    "severity",
    "onset",
    "course",
    "sign",
    "history",
    "ask",
    "supply",
    "drug",
    "deadline",
    "also",
)

_KINDS = {"symptom": 0.50, "medicine": 0.215, "office": 0.15, "scope": 0.09, "unclear": 0.045}
_LEVELS = {"critical": 3.6, "high": 1.1, "medium": 1.0, "low": 0.7, "minimal": 0.6}  # weight of one concern
_WHO = {"s": "self", "k": "child", "b": "baby", "p": "parent", "a": "partner"}
_TIERS = {  # P(tier of the accompanying sign | level); the rest is "not mentioned"
    "critical": {"red": 0.34, "amber": 0.12, "green": 0.08},
    "high": {"red": 0.15, "amber": 0.28, "green": 0.17},
    "medium": {"red": 0.07, "amber": 0.27, "green": 0.30},
    "low": {"red": 0.02, "amber": 0.16, "green": 0.40},
    "minimal": {"red": 0.0, "amber": 0.0, "green": 0.42},
}
_ONSET = {
    "acute": {"sudden": 0.16, "today": 0.28, "days": 0.26},
    "any": {"today": 0.17, "days": 0.30, "weeks": 0.17, "months": 0.08},
    "slow": {"weeks": 0.25, "months": 0.48},
    "building": {"today": 0.30, "days": 0.36},
    "fresh": {"sudden": 0.45, "today": 0.30},
    "event": {"sudden": 0.22, "today": 0.30, "days": 0.24, "weeks": 0.02},
}
_ASK = {"today": 0.14, "visit": 0.16, "advice": 0.16, "medicine": 0.04, "paper": 0.04}
_CALM_ASK = {"visit": 0.30, "advice": 0.16, "medicine": 0.06, "paper": 0.04}
_HISTORY = {"heart": 0.04, "diabetes": 0.05, "thinner": 0.03, "immune": 0.03, "healthy": 0.09}


def _optional(draws: Draws, weights: Mapping[str, float]) -> str:
    left = 1.0 - sum(weights.values())
    return draws.weighted({**weights, NOT_MENTIONED: max(left, 0.0)})


@lru_cache(maxsize=1)
def _by_kind() -> Mapping[str, Mapping[str, float]]:
    table: dict[str, dict[str, float]] = {kind: {} for kind in _KINDS}
    for concern in inventory().concerns.values():
        weight = _LEVELS[concern.spec["level"]] if concern.kind == "symptom" else 1.0
        weight *= {"refill_plain": 6.0}.get(concern.name, 2.0 if concern.name.startswith("refill") else 1.0)
        table[concern.kind][concern.name] = weight
    return table


def tempo(concern: Concern) -> str:
    """Return which onsets a health concern can have: a key of `_ONSET`."""
    if "tempo" in concern.spec:
        return str(concern.spec["tempo"])
    if concern.spec.get("event"):
        return "event"
    return "acute" if concern.spec["level"] in {"critical", "high"} else "any"


def _draw_sign(concern: Concern, who: str, draws: Draws) -> str:
    tier = _optional(draws, _TIERS[concern.spec["level"]])
    group = concern.spec["signs"]
    fitting = [
        f"{group}.{name}"
        for name, sign in inventory().facts["signs"][group].items()
        if sign["tier"] == tier
        and who not in sign.get("skip", "")
        and concern.name in sign.get("only", concern.name).split()
    ]
    return draws.pick(fitting) if fitting else NOT_MENTIONED


def draw_facts(draws: Draws) -> dict[str, str]:
    """Draw the visible facts of one message.

    Parameters
    ----------
    draws
        Source of randomness.

    Returns
    -------
    dict of str to str
        A value for each name in `FACTS`, ``"not mentioned"`` included.
    """
    concern = inventory().concerns[draws.weighted(_by_kind()[draws.weighted(_KINDS)])]
    facts = dict.fromkeys(FACTS, NOT_MENTIONED) | {"concern": concern.name}
    if concern.kind in {"scope", "unclear"}:
        return facts
    codes: dict[str, float] = dict.fromkeys(concern.who, 0.0)
    for code in concern.who:
        codes[code] += 2.5 if code == "s" else 1.0
    who = draws.weighted(codes)
    facts["who"] = _WHO[who]
    if concern.kind != "symptom":
        if "drug" in concern.spec:
            facts["drug"] = draws.pick(concern.spec["drug"].split())
        if concern.name.startswith("refill") and concern.name not in {"refill_pa", "refill_generic"}:
            facts["supply"] = _optional(draws, {"plenty": 0.13, "few": 0.22, "out": 0.13, "gap": 0.06})
        else:
            facts["deadline"] = _optional(draws, {"soon": 0.12, "later": 0.18})
        facts["also"] = _optional(draws, {"symptom": 0.05, "refill": 0.04, "appointment": 0.06})
        return facts
    pace = tempo(concern)
    calm = concern.spec["level"] == "minimal" or pace == "slow"
    if concern.spec.get("graded", pace not in {"event", "fresh", "slow"}) and who != "b":
        severe = {"severe": 0.0 if concern.spec["level"] == "minimal" else 0.12}
        facts["severity"] = _optional(draws, {"mild": 0.14, "moderate": 0.12} | severe)
    facts["onset"] = _optional(draws, _ONSET[pace])
    if not concern.spec.get("event"):
        facts["course"] = _optional(draws, {"better": 0.10, "same": 0.07, "worse": 0.05 if calm else 0.14})
    facts["sign"] = _draw_sign(concern, who, draws)
    if who in "spa":
        facts["history"] = _optional(draws, _HISTORY)
    asks = _CALM_ASK if calm else _ASK | {"hospital": 0.12}
    if concern.spec["level"] == "critical" or who == "b":
        asks = {ask: p for ask, p in asks.items() if ask not in {"medicine", "paper"}}
    facts["ask"] = _optional(draws, asks)
    return facts


def _rows(facts: Mapping[str, str]) -> list[list[float]]:
    known = inventory().facts
    concern = inventory().concerns[facts["concern"]]
    rows = [known["levels"][concern.spec["level"]] if concern.kind == "symptom" else concern.spec["scores"]]
    for fact, value in facts.items():
        if value == NOT_MENTIONED or fact == "concern":
            continue
        if fact == "who":
            rows.append(known["who"][value])
        elif fact == "sign":
            group, sign = value.split(".")
            rows.append(known["tiers"][known["signs"][group][sign]["tier"]])
        else:
            rows.append(known[fact][value]["scores"])
    return rows


@lru_cache(maxsize=65536)
def _posterior(key: tuple[str, ...]) -> Mapping[str, float]:
    facts = dict(zip(FACTS, key, strict=True))
    concern = inventory().concerns[facts["concern"]]
    if "p" in concern.spec:
        return MappingProxyType(dict(zip(OUTCOMES, concern.spec["p"], strict=True)))
    temperature = inventory().facts["temperature"]
    scores = [sum(column) / temperature for column in zip(*_rows(facts), strict=True)]
    weights = [math.exp(score - max(scores)) for score in scores]
    total = math.fsum(weights)
    return MappingProxyType({name: w / total for name, w in zip(OUTCOMES, weights, strict=True)})


def posterior(facts: Mapping[str, str]) -> Mapping[str, float]:
    """Return P(label | facts), a read-only mapping over `OUTCOMES` that sums to 1.

    Parameters
    ----------
    facts
        A value for each name in `FACTS`.

    Examples
    --------
    >>> plain = dict.fromkeys(FACTS, NOT_MENTIONED) | {"concern": "bill", "who": "self"}
    >>> posterior(plain)["administrative"] > 0.9
    True
    """
    return _posterior(tuple(facts[name] for name in FACTS))
