"""The phrase inventory: YAML files beside this module, read once, and a small phrase grammar.

A phrase is text with ``(a|b)`` choices and ``<slot>`` word lists.  ``<I>``, ``<my>``, ``<me>``, ``<myself>``
stand for the patient and ``<have/has>`` agrees with the patient; both are left for `wording`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any, TypeVar

import yaml

T = TypeVar("T")
CHOICE = re.compile(r"\(([^()]*)\)")
SLOT = re.compile(r"<([^<>/ ]+)>")
PATIENT = frozenset({"I", "my", "me", "myself"})
CONCERN_FILES = ("symptoms", "symptoms_more", "requests", "abstain")


class Draws:
    """Random choices made from `random.Random.random` alone.

    That method is the one whose sequence for an integer seed the standard library promises to keep
    across versions; `choice`, `shuffle` and the distributions of numpy's generators are not promised.

    Examples
    --------
    >>> Draws(7).pick("abc") in "abc"
    True
    """

    def __init__(self, seed: int) -> None:
        self.uniform = random.Random(seed).random

    def chance(self, p: float) -> bool:
        """Return true with probability `p`."""
        return self.uniform() < p

    def pick(self, options: Sequence[T]) -> T:
        """Return one of `options`, each equally likely."""
        return options[int(self.uniform() * len(options))]

    def weighted(self, options: Mapping[T, float]) -> T:
        """Return a key of `options` with probability proportional to its value."""
        rest = self.uniform() * sum(options.values())
        for option, weight in options.items():
            rest -= weight
            if rest < 0:
                return option
        return option


@dataclass(frozen=True)
class Concern:
    """What a message is about: one value of the fact ``concern``."""

    name: str
    kind: str  # symptom, medicine, office, scope or unclear
    note: str
    say: tuple[str, ...]
    short: tuple[str, ...]
    spec: Mapping[str, Any]  # scores or level, signs, tempo, for, sex, bands, drug

    @property
    def who(self) -> tuple[str, ...]:
        """Codes of whom it can be about."""
        default = {"symptom": "s k p a", "medicine": "s s p a", "office": "s s k p a"}.get(self.kind, "s")
        return tuple(str(self.spec.get("for", default)).split())


@dataclass(frozen=True)
class Inventory:
    """Everything the YAML files hold."""

    concerns: Mapping[str, Concern]
    facts: Mapping[str, Any]  # facts.yaml and request_facts.yaml
    style: Mapping[str, Any]


def lines(block: str | None) -> tuple[str, ...]:
    """Split a block of phrases, one a line."""
    return tuple(line.strip() for line in (block or "").splitlines() if line.strip())


def items(row: str | None) -> tuple[str, ...]:
    """Split short phrases at semicolons."""
    return tuple(part.strip() for part in (row or "").split(";") if part.strip())


@lru_cache(maxsize=16)
def read(name: str) -> Mapping[str, Any]:
    """Read one YAML file of the inventory, once."""
    source = files("finetune.adapters.embedded").joinpath("phrases", f"{name}.yaml").read_text("utf-8")
    loaded: Mapping[str, Any] = yaml.safe_load(source)
    return loaded


@lru_cache(maxsize=1)
def inventory() -> Inventory:
    """Read the inventory; later calls return the same object.

    Returns
    -------
    Inventory
        Concerns in file order, fact values with their scores, and neutral wording.

    Examples
    --------
    >>> inventory().concerns["rash"].note
    'rash'
    """
    concerns = {
        name: Concern(
            name,
            spec.get("kind", "symptom"),
            spec["note"],
            lines(spec["say"]),
            items(spec.get("short")),
            spec,
        )
        for source in CONCERN_FILES
        for name, spec in read(source).items()
    }
    return Inventory(concerns, {**read("facts"), **read("request_facts")}, read("style"))


@lru_cache(maxsize=4096)
def phrases(fact: str, value: str, form: str) -> tuple[str, ...]:
    """Phrases of one fact value in one form (``say``, ``short``, ``tail``, ``event``, ``eshort``)."""
    found = inventory()
    if fact == "concern":
        concern = found.concerns[value]
        return concern.say if form == "say" else concern.short
    if fact == "sign":
        group, sign = value.split(".")
        return (found.facts["signs"][group][sign][form],)
    block = found.facts[fact][value].get(form)
    return items(block) if form in {"short", "eshort"} else lines(block)


def choose(template: str, draws: Draws) -> str:
    """Replace every ``(a|b)`` by one of its options, innermost first."""
    while "(" in template:
        template = CHOICE.sub(lambda match: draws.pick(match.group(1).split("|")), template)
    return template


def fill(text: str, draws: Draws, given: Mapping[str, str]) -> str:
    """Replace word slots; `given` goes before the word lists, patient tokens stay."""
    style = inventory().style

    def word(match: re.Match[str]) -> str:
        name = match.group(1)
        if name in PATIENT:
            return match.group(0)
        if name in given:
            return given[name]
        if name in style["words"]:
            return str(draws.pick(style["words"][name]))
        low, high = style["numbers"][name]
        if isinstance(low, float):
            return f"{low + int(draws.uniform() * (round((high - low) * 10) + 1)) / 10:.1f}"
        return str(low + int(draws.uniform() * (high - low + 1)))

    return SLOT.sub(word, text)
