"""Labels of a task, and what a text has to look like to mean one of them."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from finetune.domain.errors import InvalidInput

ABSTAIN = "abstain"
"""The outcome of handing a case over; no label may carry this name."""

MAX_NAME_CHARS = 200

# A name has at most 200 characters; a text beyond this many is none of them, and need not be folded.
_MAX_RESOLVABLE_CHARS = 2000
_SEPARATORS = re.compile(r"[\s_\-\u2010-\u2015\u2212]+")


def fold(text: str) -> str:
    """Reduce a name to what makes it the same name.

    NFKC, case folding, outer white space removed, and every run of spaces, underscores and hyphens
    equal to one space.  A leading hyphen stays different from none, so that ``-1`` is not ``1``.

    Examples
    --------
    >>> fold(" Lost_Card ") == fold("lost - card")
    True
    >>> fold("-1") == fold("1")
    False
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return _SEPARATORS.sub(" ", folded.strip())


def digest(value: object) -> str:
    """Hash a value made of JSON types.

    Returns
    -------
    str
        SHA-256 in hexadecimal of the canonical JSON text: keys sorted, ASCII only, no spaces.

    Examples
    --------
    >>> digest({"b": 1, "a": "é"}) == digest({"a": "é", "b": 1})
    True
    """
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def closest(text: str, names: Iterable[str]) -> str | None:
    """Return the name that `text` was probably meant to be, if one is close.

    Examples
    --------
    >>> closest("emergancy", ["routine", "emergency"])
    'emergency'
    """
    by_fold = {fold(name): name for name in names}
    matches = difflib.get_close_matches(fold(text[:MAX_NAME_CHARS]), by_fold, n=1)
    return by_fold[matches[0]] if matches else None


@dataclass(frozen=True)
class Label:
    """One label: its name, what it means, and what else it is called.

    Parameters
    ----------
    name
        What the model writes and the records show.
    description
        One sentence for the instructions.
    aliases
        Other names that are read as this label and never written.
    """

    name: str
    description: str = ""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Abstention:
    """The outcome ``abstain``, where the data has examples of it.

    Parameters
    ----------
    description
        When to abstain, for the instructions.
    aliases
        Other names that are read as an abstention.
    """

    description: str = ""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelSet:
    """What can be decided in one task.

    Parameters
    ----------
    task
        The task in a few words.
    labels
        At least two labels.  Names are trimmed, at most 200 characters without control characters, and
        differ from all other names and aliases after folding (see `fold`).  One name may be the
        beginning of another.
    abstention
        Makes ``abstain`` one more outcome that is scored, calibrated and counted like a label.

    Raises
    ------
    InvalidInput
        A name breaks one of these rules.

    Examples
    --------
    >>> labels = LabelSet("Cards", (Label("card"), Label("card_lost", aliases=("missing",))), Abstention())
    >>> labels.outcomes
    ('card', 'card_lost', 'abstain')
    >>> labels.resolve(" Card-Lost "), labels.resolve("MISSING"), labels.resolve("car")
    ('card_lost', 'card_lost', None)
    """

    task: str
    labels: tuple[Label, ...]
    abstention: Abstention | None = None

    def __post_init__(self) -> None:
        if len(self.labels) < 2:
            raise InvalidInput(
                "one label leaves nothing to decide",
                where="labels",
                seen=[label.name for label in self.labels],
                remedy="give at least two labels",
            )
        owners: dict[str, tuple[str, str]] = {fold(ABSTAIN): (ABSTAIN, ABSTAIN)}
        if self.abstention is not None:
            for alias in self.abstention.aliases:
                _claim(owners, alias, ABSTAIN)
        for label in self.labels:
            # A label may repeat its own name as an alias, not the name of another label of the same name.
            taken = owners.get(fold(_checked(label.name)))
            if taken is not None:
                raise _clash(label.name, label.name, *taken)
            for name in (label.name, *label.aliases):
                _claim(owners, name, label.name)

    @property
    def names(self) -> tuple[str, ...]:
        """The label names, in their order."""
        return tuple(label.name for label in self.labels)

    @property
    def outcomes(self) -> tuple[str, ...]:
        """The label names, and ``abstain`` last where abstention is an outcome."""
        return self.names if self.abstention is None else (*self.names, ABSTAIN)

    def index(self, outcome: str) -> int:
        """Return the position of an outcome in `outcomes`.

        Raises
        ------
        InvalidInput
            It is no outcome; the message names the closest one.
        """
        try:
            return self._index[outcome]
        except KeyError:
            near = closest(outcome, self.outcomes)
            raise InvalidInput(
                "this is no outcome of the label set",
                seen=outcome,
                remedy=f"did you mean {near!r}?" if near else "use one of " + ", ".join(self.outcomes),
            ) from None

    def resolve(self, text: str) -> str | None:
        """Return the outcome that `text` names, by name or alias after folding; None if there is none."""
        text = text.strip()
        return self._by_fold.get(fold(text)) if len(text) <= _MAX_RESOLVABLE_CHARS else None

    def fingerprint(self) -> str:
        """Return a SHA-256 that changes with every name, description, alias, and with their order."""
        abstention = self.abstention
        return digest(
            {
                "task": self.task,
                "labels": [[label.name, label.description, list(label.aliases)] for label in self.labels],
                "abstention": None
                if abstention is None
                else [abstention.description, list(abstention.aliases)],
            }
        )

    @cached_property
    def _index(self) -> dict[str, int]:
        return {outcome: position for position, outcome in enumerate(self.outcomes)}

    @cached_property
    def _by_fold(self) -> dict[str, str]:
        # Names and aliases are unique after folding, so one table answers exact and folded look-ups alike.
        table = {fold(name): label.name for label in self.labels for name in (label.name, *label.aliases)}
        if self.abstention is not None:
            table |= {fold(name): ABSTAIN for name in (ABSTAIN, *self.abstention.aliases)}
        return table


def _claim(owners: dict[str, tuple[str, str]], name: str, owner: str) -> None:
    taken = owners.setdefault(fold(_checked(name)), (name, owner))
    if taken[1] != owner:
        raise _clash(name, owner, *taken)


def _clash(name: str, owner: str, other: str, other_owner: str) -> InvalidInput:
    if other == ABSTAIN:
        return InvalidInput(
            f"{name!r} of label {owner!r} is the reserved outcome {ABSTAIN!r}",
            where="labels",
            remedy="describe abstention under `abstain`, not as a label",
        )
    return InvalidInput(
        f"{name!r} of label {owner!r} and {other!r} of label {other_owner!r} cannot be told apart",
        where="labels",
        remedy="rename one of them; case, spaces, hyphens and underscores make no difference",
    )


def _checked(name: str) -> str:
    if not isinstance(name, str):
        raise InvalidInput(
            "a label name or alias is not text", where="labels", seen=name, remedy="put it in quotes"
        )
    if not name or name != name.strip() or len(name) > MAX_NAME_CHARS:
        raise InvalidInput(
            f"a label name or alias is empty, has outer spaces or is longer than {MAX_NAME_CHARS} characters",
            where="labels",
            seen=name,
            remedy="trim or shorten it",
        )
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in name):
        raise InvalidInput(
            "a label name or alias holds a control character or half a surrogate pair",
            where="labels",
            seen=name,
            remedy="remove it",
        )
    return name
