"""Models with a posterior that is known exactly, so that every promise can be checked against the truth."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.application.config import ProjectConfig
from finetune.application.ports import LabelScores, ModelIdentity, ProgressTask
from finetune.domain.checks import log_softmax
from finetune.domain.labels import LabelSet
from finetune.domain.prompts import PromptFormat


def posterior(text: str, n_outcomes: int, concentration: float = 0.1) -> NDArray[np.float64]:
    """Return the true probabilities of the outcomes of a text: a Dirichlet draw that its hash seeds."""
    seed = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    return np.maximum(np.random.default_rng(seed).dirichlet(np.full(n_outcomes, concentration)), 1e-9)


def draw_rows(
    outcomes: Sequence[str],
    n: int,
    rng: np.random.Generator,
    concentration: float = 0.1,
    prefix: str = "text",
) -> list[dict[str, object]]:
    """Return ``n`` prepared rows whose labels follow :func:`posterior`, which their metadata hold."""
    rows: list[dict[str, object]] = []
    for number in range(n):
        text = f"{prefix} {number} {rng.integers(1 << 60)}"
        p = posterior(text, len(outcomes), concentration)
        p /= p.sum()
        rows.append(
            {
                "id": f"{prefix}-{number}",
                "text": text,
                "label": outcomes[int(rng.choice(len(outcomes), p=p))],
                "rationale": None,
                "metadata": {"posterior": dict(zip(outcomes, p.tolist(), strict=True))},
            }
        )
    return rows


def as_scores(log_probabilities: NDArray[np.float64], removed: Sequence[int] | None = None) -> LabelScores:
    """Return scores of labels that are all scored to their ends."""
    n = len(log_probabilities)
    cut = np.array([0] * n if removed is None else removed, dtype=np.int64)
    return LabelScores(log_probabilities, np.zeros(n), cut, np.zeros(n))


@dataclass
class FakeScorer:
    """Scores with the true posterior to the power of ``sharpness``: temperature ``sharpness`` mends it."""

    outcomes: tuple[str, ...]
    sharpness: float = 1.0
    concentration: float = 0.1
    max_chars: int = 10_000
    left_out: float = 0.0
    calls: list[int] = field(default_factory=list)

    def score(self, texts: Sequence[str], task: ProgressTask | None = None) -> LabelScores:
        self.calls.append(len(texts))
        logits = np.zeros((len(texts), len(self.outcomes)))
        for row, text in enumerate(texts):
            seen = text[: self.max_chars]
            logits[row] = self.sharpness * np.log(posterior(seen, len(self.outcomes), self.concentration))
            if task is not None:
                task.advance()
        scores = as_scores(
            log_softmax(logits) if len(texts) else logits,
            [max(0, len(text) - self.max_chars) for text in texts],
        )
        return scores._replace(
            label_mass=np.full(len(texts), -0.01), left_out=np.full(len(texts), self.left_out)
        )


@dataclass
class FakeWriter:
    """Writes a fixed sentence about the decision."""

    calls: list[tuple[str, str]] = field(default_factory=list)

    def write(
        self, texts: Sequence[str], decisions: Sequence[str], task: ProgressTask | None = None
    ) -> list[str]:
        self.calls += zip(texts, decisions, strict=True)
        if task is not None:
            task.advance(len(texts))
        return [f"because it reads like {decision}" for decision in decisions]


@dataclass
class FakeModel:
    identity: ModelIdentity
    scorer: FakeScorer
    writer: FakeWriter = field(default_factory=FakeWriter)
    notice: str = "Batches are not needed."


@dataclass
class FakeModels:
    """Opens :class:`FakeModel`; its hashes follow what it is given, as those of real models do."""

    sharpness: float = 1.0
    base_sharpness: float = 0.1
    concentration: float = 0.1
    max_chars: int = 10_000
    weights: str = "w1"
    adapter_weights: str = "a1"
    left_out: float = 0.0
    opened: list[FakeModel] = field(default_factory=list)

    def open(
        self, config: ProjectConfig, labels: LabelSet, prompt: PromptFormat, adapter: Path | None
    ) -> FakeModel:
        identity = ModelIdentity(
            base=config.model_id,
            base_hash=_hash(self.weights),
            adapter=adapter.name if adapter is not None else "",
            adapter_hash=_hash(self.adapter_weights if adapter is not None else ""),
            prompt_hash=prompt.fingerprint(),
            encoder_hash=_hash(f"{config.tokenizer_id} {config.training.max_length}"),
            precision="bf16" if config.training.bf16 is True else "fp32",
            prune=config.prediction.prune,
        )
        sharpness = self.sharpness if adapter is not None else self.base_sharpness
        scorer = FakeScorer(labels.outcomes, sharpness, self.concentration, self.max_chars, self.left_out)
        self.opened.append(FakeModel(identity, scorer))
        return self.opened[-1]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def outcome_probabilities(row: Mapping[str, object], outcomes: Sequence[str]) -> NDArray[np.float64]:
    """Return a prepared row's true posterior in the order of the outcomes."""
    known = row["metadata"]["posterior"]  # type: ignore[index]
    return np.array([known[name] for name in outcomes])
