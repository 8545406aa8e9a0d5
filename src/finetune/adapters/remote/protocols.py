"""Three ways in which servers give probabilities of labels."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from finetune.adapters.remote.client import BadAnswer, NotOffered, RemoteClient
from finetune.domain.checks import FloatArray
from finetune.domain.errors import Unavailable
from finetune.domain.labels import ABSTAIN, LabelSet
from finetune.domain.prompts import DECISION_HEAD, PromptFormat

# What a server rounds to 0 is not impossible; every outcome needs a finite logarithm.
_LEAST = 1e-9
_SUM_TOLERANCE = 1e-2
_QUESTION = "decision"


class Evidence(NamedTuple):
    """Normalised log-probabilities of the outcomes, ``(K,)``, and the logarithm of their mass, or 0."""

    log_probabilities: FloatArray
    label_mass: float


class Protocol(ABC):
    """One endpoint.

    Parameters
    ----------
    client
        To the server.
    model
        Name of the model there.
    labels, prompt
        What is to be decided.
    """

    name: ClassVar[str]
    path: ClassVar[str]

    def __init__(self, client: RemoteClient, model: str, labels: LabelSet, prompt: PromptFormat) -> None:
        self._client = client
        self._model = model
        self._outcomes = labels.outcomes
        self._descriptions = {label.name: label.description or None for label in labels.labels}
        if ABSTAIN in labels.outcomes and labels.abstention is not None:
            self._descriptions[ABSTAIN] = labels.abstention.description or None
        self._prompt = prompt

    @abstractmethod
    def ask(self, text: str) -> Evidence:
        """Return what the model says of a text.

        Raises
        ------
        NotOffered
            The server does not do this, or not for these labels.
        Unavailable
            It gave no usable answer.
        """

    def _instructions(self) -> str:
        return self._prompt.messages("")[0]["content"]

    def _by_name(self, probabilities: Mapping[str, Any], mass: float = 0.0) -> Evidence:
        """Bring probabilities into the order of the outcomes, whatever order they came in."""
        if set(probabilities) != set(self._outcomes):
            missing = sorted(set(self._outcomes) - set(probabilities))
            strange = sorted(set(probabilities) - set(self._outcomes))
            raise BadAnswer(f"the answer is about other labels (missing: {missing}, unknown: {strange})")
        try:
            values = np.array([float(probabilities[name]) for name in self._outcomes])
        except (TypeError, ValueError) as error:
            raise BadAnswer(f"a probability is no number ({error})") from error
        sound = np.isfinite(values).all() and (values >= 0).all() and abs(values.sum() - 1) <= _SUM_TOLERANCE
        if not sound:
            raise BadAnswer(f"these are no probabilities: {dict(probabilities)}"[:300])
        values = np.maximum(values, _LEAST)
        return Evidence(np.log(values / values.sum()), mass)

    def _unknown(self) -> Evidence:
        """Return what is known where the model refuses to answer: nothing."""
        return Evidence(np.full(len(self._outcomes), -math.log(len(self._outcomes))), math.log(_LEAST))


class Decisions(Protocol):
    """``/v1/decisions`` in OpenAI's shape: an input, a list of questions, a list of answers."""

    name = "decisions"
    path = "/v1/decisions"

    def ask(self, text: str) -> Evidence:
        """See :meth:`Protocol.ask`."""
        choices = [
            {"value": name, **({"description": told} if (told := self._descriptions.get(name)) else {})}
            for name in self._outcomes
        ]
        question = {
            "type": "choice",
            "name": _QUESTION,
            "instructions": self._instructions(),
            "choices": choices,
        }
        body = {"model": self._model, "input": text, "questions": [question]}
        return self._client.post(self.path, body, self._read)

    def _read(self, document: Mapping[str, Any]) -> Evidence:
        answers = document.get("answers")
        if not isinstance(answers, list) or len(answers) != 1 or not isinstance(answers[0], dict):
            raise BadAnswer(f"there should be one answer: {answers}"[:300])
        answer = answers[0]
        if answer.get("type") == "refusal":
            return self._unknown()
        listed = answer.get("probabilities")
        if isinstance(listed, list):
            try:
                listed = {str(entry["value"]): entry["probability"] for entry in listed}
            except (KeyError, TypeError) as error:
                raise BadAnswer(f"probabilities are not named ({error})") from error
        if not isinstance(listed, dict):
            raise BadAnswer("the answer has no probabilities")
        return self._by_name(listed, _log_mass(answer))


class SystemOne(Protocol):
    """``/v1/systemone``: a state, questions by name, answers by name."""

    name = "systemone"
    path = "/v1/systemone"

    def ask(self, text: str) -> Evidence:
        """See :meth:`Protocol.ask`."""
        question = {
            "type": "choice",
            "instructions": self._instructions(),
            "criteria": {name: self._descriptions.get(name) for name in self._outcomes},
        }
        body = {"model": self._model, "state": text, "questions": {_QUESTION: question}}
        return self._client.post(self.path, body, self._read)

    def _read(self, document: Mapping[str, Any]) -> Evidence:
        answers = document.get("answers")
        answer = answers.get(_QUESTION) if isinstance(answers, dict) else None
        if not isinstance(answer, dict) or not isinstance(answer.get("probabilities"), dict):
            raise BadAnswer(f"the answer has no probabilities: {answers}"[:300])
        return self._by_name(answer["probabilities"], _log_mass(answer))


class Completions(Protocol):
    """``/v1/completions`` with the log-probabilities of the prompt: each label is written behind the text."""

    name = "completions"
    path = "/v1/completions"

    def ask(self, text: str) -> Evidence:
        """See :meth:`Protocol.ask`."""
        parts = [message["content"] for message in self._prompt.messages(text)]
        head = "\n\n".join(parts) + "\n" + DECISION_HEAD
        prompts = [f'{head}{name}"' for name in self._outcomes]
        body = {
            "model": self._model,
            "prompt": prompts,
            "max_tokens": 1,
            "temperature": 0,
            "echo": True,
            "logprobs": 1,
        }
        return self._client.post(self.path, body, lambda document: self._read(document, len(head), prompts))

    def _read(self, document: Mapping[str, Any], begin: int, prompts: Sequence[str]) -> Evidence:
        choices = document.get("choices")
        if not isinstance(choices, list) or len(choices) != len(prompts):
            raise BadAnswer(f"there should be {len(prompts)} choices")
        try:
            ordered = sorted(choices, key=lambda choice: choice["index"])
            if [choice["index"] for choice in ordered] != list(range(len(prompts))):
                raise BadAnswer("the choices are not numbered")
            sums = np.array(
                [
                    self._sum(choice["logprobs"], begin, len(prompt))
                    for choice, prompt in zip(ordered, prompts, strict=True)
                ]
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BadAnswer(
                f"the answer has no log-probabilities of the prompt ({type(error).__name__}: {error})"
            ) from error
        mass = float(np.logaddexp.reduce(sums))
        return Evidence(sums - mass, min(mass, 0.0))

    def _sum(self, logprobs: Mapping[str, Sequence[Any]], begin: int, end: int) -> float:
        offsets, values = logprobs["text_offset"], logprobs["token_logprobs"]
        if begin not in offsets:
            raise BadAnswer(
                "a label's first token begins inside the text before it, or the prompt's tokens "
                "are not returned"
            )
        inside = [value for place, value in zip(offsets, values, strict=True) if begin <= place < end]
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in inside):
            raise BadAnswer("a token of a label has no log-probability")
        return float(sum(inside))


PROTOCOLS: dict[str, type[Protocol]] = {kind.name: kind for kind in (Decisions, SystemOne, Completions)}


def choose_protocol(
    wanted: str, client: RemoteClient, model: str, labels: LabelSet, prompt: PromptFormat, probe: str
) -> tuple[Protocol | None, list[str]]:
    """Return the first protocol that answers a probe, and why those before it do not.

    Parameters
    ----------
    wanted
        A name, or ``auto`` for all in the order of :data:`PROTOCOLS`.
    client, model, labels, prompt
        As for :class:`Protocol`.
    probe
        A text to ask about.
    """
    reasons = []
    for name, kind in PROTOCOLS.items():
        if wanted not in ("auto", name):
            continue
        protocol = kind(client, model, labels, prompt)
        try:
            protocol.ask(probe)
        except NotOffered as error:
            reasons.append(str(error))
        except Unavailable as error:
            if wanted != "auto":
                raise
            reasons.append(f"{kind.path}: {error.what}")
        else:
            return protocol, reasons
    return None, reasons


def _log_mass(answer: Mapping[str, Any]) -> float:
    """Return the logarithm of the mass on the labels where a server gives it; 0 elsewhere."""
    mass = answer.get("label_mass")
    return math.log(min(max(mass, _LEAST), 1.0)) if isinstance(mass, int | float) else 0.0
