"""The remote backend: nothing is trained, what the server says is calibrated and certified."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from finetune.adapters.remote.client import RemoteClient
from finetune.adapters.remote.protocols import PROTOCOLS, Protocol, choose_protocol
from finetune.adapters.remote.scorer import RemoteScorer
from finetune.application.backend_settings import RemoteConfig
from finetune.application.characters import CharacterEncoder
from finetune.application.config import ProjectConfig
from finetune.application.ports import (
    MetricsLog,
    ModelIdentity,
    Progress,
    TrainingJob,
    TrainingOutcome,
)
from finetune.application.training_metrics import measures_of
from finetune.domain.errors import IntegrityError, InvalidInput
from finetune.domain.labels import LabelSet
from finetune.domain.prompts import PromptFormat, shorten_text

FILE = "remote.json"
_VERSION = 1
_PROBES = ("Hello", "A second and somewhat longer text to compare answers by.")
# Probabilities of the probes may move by so much: servers batch, and batching rounds.
_TOLERANCE = 0.02


@dataclass(frozen=True)
class RemoteModel:
    """A server that answers as it did when it was recorded; it writes no rationales."""

    identity: ModelIdentity
    scorer: RemoteScorer
    notice: str
    writer: None = None


class RemoteTrainer:
    """Records which server, model and protocol a run uses; the model itself stays as it is."""

    def train(self, job: TrainingJob, log: MetricsLog, progress: Progress) -> TrainingOutcome:
        """Find out how the server gives probabilities, measure it on the validation rows, and record it.

        Raises
        ------
        InvalidInput
            The server gives no probabilities of these labels; the message says why for each way.
        Unavailable
            It cannot be reached.
        """
        began = time.monotonic()
        config = job.config.remote
        client = RemoteClient(config)
        model = config.model or _only_model(client, config)
        protocol, reasons = choose_protocol(
            config.protocol, client, model, job.labels, job.prompt, _PROBES[0]
        )
        if protocol is None:
            raise InvalidInput(
                f"the server gives no probabilities of these {len(job.labels.outcomes)} labels. "
                + "; ".join(reasons),
                where=config.url,
                remedy="serve the model with vLLM, SGLang or transformers, rename labels that it cannot tell "
                "apart, or choose another backend",
            )
        for reason in reasons:
            progress.say(f"not used: {reason}")
        progress.say(f"{model} at {config.url} answers at {protocol.path}")
        scorer = RemoteScorer(protocol, job.labels.outcomes, config)
        probes = scorer.score(_PROBES)
        with progress.task("scoring the validation rows", len(job.validation)) as task:
            scores = scorer.score([row.text for row in job.validation], task)
        truth = np.array([job.labels.index(str(row.label)) for row in job.validation], dtype=np.int64)
        found = measures_of(job.config)(scores.log_probabilities, truth)
        log.append("started", {"step": 0, **found})
        log.append("evaluation", {"step": 0, **found})
        folder = job.folder / "adapter"
        folder.mkdir(parents=True, exist_ok=True)
        facts = {
            "version": _VERSION,
            "model": model,
            "protocol": protocol.name,
            "outcomes": list(job.labels.outcomes),
            "probes": np.exp(probes.log_probabilities).round(6).tolist(),
        }
        (folder / FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        return TrainingOutcome(
            steps=0,
            epochs=0.0,
            best_step=0,
            best=found,
            first=found,
            stopped_early=False,
            trainable_parameters=0,
            total_parameters=0,
            adapted_modules={},
            precision="remote",
            shortened_texts=sum(shorten_text(row.text, config.max_chars)[1] > 0 for row in job.train),
            seconds=time.monotonic() - began,
            versions={"httpx2": version("httpx2")},
            path=protocol.name,
            path_reason=_notice(model, config, protocol),
        )


class RemoteOpener:
    """Opens recorded servers."""

    def open(
        self, config: ProjectConfig, labels: LabelSet, prompt: PromptFormat, adapter: Path | None
    ) -> RemoteModel:
        """Connect to the server of a run, and see that it answers as it did.

        Raises
        ------
        InvalidInput
            Nothing was recorded.
        IntegrityError
            The record is damaged or about other labels, or the server's answers have changed.
        Unavailable
            The server cannot be reached.
        """
        if adapter is None:
            raise InvalidInput(
                "a remote model has no untuned form to compare with",
                where="backend",
                seen="remote",
                remedy="leave out --base",
            )
        facts = _read_facts(adapter / FILE)
        if tuple(facts["outcomes"]) != labels.outcomes:
            raise IntegrityError(
                "the server was recorded for other labels, or in another order",
                where=str(adapter / FILE),
                seen=facts["outcomes"],
                remedy="train again",
            )
        remote = config.remote
        protocol = PROTOCOLS[facts["protocol"]](RemoteClient(remote), facts["model"], labels, prompt)
        scorer = RemoteScorer(protocol, labels.outcomes, remote)
        moved = float(
            np.abs(np.exp(scorer.score(_PROBES).log_probabilities) - np.array(facts["probes"])).max()
        )
        if not moved <= _TOLERANCE:
            raise IntegrityError(
                f"the server answers otherwise than when it was recorded: a probability moved by {moved:.3f}",
                where=remote.url,
                seen=facts["model"],
                remedy="serve the model that was calibrated, or train and calibrate again",
            )
        return RemoteModel(
            ModelIdentity(
                base=facts["model"],
                base_hash=_digest([facts["model"], facts["protocol"]]),
                adapter=adapter.name,
                adapter_hash=_digest(facts),
                prompt_hash=prompt.fingerprint(),
                encoder_hash=_digest([facts["protocol"], remote.max_chars]),
                precision="remote",
                prune=0.0,
            ),
            scorer,
            _notice(facts["model"], remote, protocol),
        )


@dataclass(frozen=True)
class RemoteBackend:
    """A model behind an HTTP server.

    Parameters
    ----------
    resolve
        Not used: the model is where the server is.
    """

    resolve: Callable[[str], str]

    def trainer(self) -> RemoteTrainer:
        """Return what records a server."""
        return RemoteTrainer()

    def models(self) -> RemoteOpener:
        """Return what connects to it."""
        return RemoteOpener()

    def encoders(self) -> Callable[[ProjectConfig, LabelSet, PromptFormat], CharacterEncoder]:
        """Return what shows what is sent."""
        return _open_encoder


def _open_encoder(config: ProjectConfig, _labels: LabelSet, _prompt: PromptFormat) -> CharacterEncoder:
    return CharacterEncoder(config.remote.max_chars)


def _only_model(client: RemoteClient, config: RemoteConfig) -> str:
    names = client.models()
    if not names:
        raise InvalidInput(
            "the server lists no models",
            where=config.url,
            remedy="set remote.model to the name of the model there",
        )
    return names[0]


def _notice(model: str, config: RemoteConfig, protocol: Protocol) -> str:
    return f"{model} at {config.url} is asked at {protocol.path}, {config.concurrency} texts at a time."


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise IntegrityError(
            "there is no record of a server here",
            where=str(path),
            remedy="run `finetune train` with backend: remote",
        ) from error
    if (
        not isinstance(facts, dict)
        or facts.get("version") != _VERSION
        or facts.get("protocol") not in PROTOCOLS
    ):
        raise IntegrityError(
            "this is no record of a server of this version",
            where=str(path),
            remedy="run `finetune train` again",
        )
    return facts


def _digest(document: object) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
