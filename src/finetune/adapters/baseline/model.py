"""A fitted baseline: its files, its identity and its scores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.adapters.baseline.features import NgramFeatures
from finetune.application.backend_settings import BaselineConfig
from finetune.application.config import ProjectConfig
from finetune.application.ports import LabelScores, ModelIdentity, ProgressTask
from finetune.domain.checks import log_softmax
from finetune.domain.errors import IntegrityError, InvalidInput
from finetune.domain.labels import LabelSet
from finetune.domain.prompts import PromptFormat

FACTS = "baseline.json"
WEIGHTS = "baseline.npz"
_VERSION = 1
# Texts whose features are in memory at once.
_BLOCK = 512


class BaselineScorer:
    """Scores of a linear model: no text costs more than its n-grams.

    Parameters
    ----------
    outcomes
        K names.
    features
        Fitted.
    coefficients, intercepts
        ``(K, F)`` and ``(K,)``.
    """

    def __init__(
        self,
        outcomes: tuple[str, ...],
        features: NgramFeatures,
        coefficients: NDArray[np.float32],
        intercepts: NDArray[np.float32],
    ) -> None:
        self._outcomes = outcomes
        self._features = features
        # F by K, so that a text reads whole rows.
        self._coefficients = np.ascontiguousarray(coefficients.T, dtype=np.float64)
        self._intercepts = intercepts.astype(np.float64)

    @property
    def outcomes(self) -> tuple[str, ...]:
        """Names of the columns of the scores."""
        return self._outcomes

    def score(self, texts: Sequence[str], task: ProgressTask | None = None) -> LabelScores:
        """Score every outcome for every text; a label mass of 1 says that it knows no text but these."""
        parts = [np.zeros((0, len(self._outcomes)))]
        for start in range(0, len(texts), _BLOCK):
            block = texts[start : start + _BLOCK]
            logits = self._features(block).astype(np.float64) @ self._coefficients + self._intercepts
            parts.append(log_softmax(logits))
            if task is not None:
                task.advance(len(block))
        removed = np.array([self._features.removed(text) for text in texts], dtype=np.int64)
        zeros = np.zeros(len(texts))
        return LabelScores(np.concatenate(parts), zeros, removed, zeros)


@dataclass(frozen=True)
class BaselineModel:
    """A fitted baseline as the use cases see it; it writes no rationales."""

    identity: ModelIdentity
    scorer: BaselineScorer
    notice: str = "The baseline reads character n-grams; it knows nothing of language."
    writer: None = None


class BaselineOpener:
    """Opens fitted baselines."""

    def open(
        self,
        config: ProjectConfig,  # noqa: ARG002 - what it needs of it was saved
        labels: LabelSet,
        prompt: PromptFormat,  # noqa: ARG002 - it reads texts alone
        adapter: Path | None,
    ) -> BaselineModel:
        """Load what :func:`save` left in a folder.

        Raises
        ------
        InvalidInput
            There is no folder: a baseline knows nothing before it is fitted.
        IntegrityError
            The files are damaged, or were fitted to other labels.
        """
        if adapter is None:
            raise InvalidInput(
                "the baseline is nothing without its training",
                where="backend",
                seen="baseline",
                remedy="leave out --base, or choose the causal backend",
            )
        facts = _read_facts(adapter / FACTS)
        if tuple(facts["outcomes"]) != labels.outcomes:
            raise IntegrityError(
                "the baseline was fitted to other labels, or in another order",
                where=str(adapter / FACTS),
                seen=facts["outcomes"],
                remedy="train again",
            )
        settings = BaselineConfig.model_validate(facts["settings"])
        try:
            with np.load(adapter / WEIGHTS, allow_pickle=False) as arrays:
                weights, coefficients, intercepts = (arrays[name] for name in _ARRAYS)
        except (OSError, ValueError, KeyError) as error:
            raise IntegrityError(
                f"the baseline cannot be loaded: {error}",
                where=str(adapter / WEIGHTS),
                remedy="copy the run again, or train again",
            ) from error
        expected = (len(labels.outcomes), settings.features)
        if coefficients.shape != expected:
            raise IntegrityError(
                f"the coefficients should have the shape {expected}",
                where=str(adapter / WEIGHTS),
                seen=coefficients.shape,
                remedy="copy the run again, or train again",
            )
        features = NgramFeatures(settings, facts["max_chars"], weights)
        return BaselineModel(
            ModelIdentity(
                base="character n-grams",
                base_hash=_digest({"settings": facts["settings"], "max_chars": facts["max_chars"]}),
                adapter=adapter.name,
                adapter_hash=_file_digest(adapter / WEIGHTS),
                prompt_hash=_digest("no prompt"),
                encoder_hash=_digest(facts["settings"]),
                precision="fp64",
                prune=0.0,
            ),
            BaselineScorer(labels.outcomes, features, coefficients, intercepts),
        )


_ARRAYS = ("weights", "coefficients", "intercepts")


def save(
    folder: Path,
    settings: BaselineConfig,
    max_chars: int,
    outcomes: Sequence[str],
    arrays: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]],
) -> None:
    """Write a fitted baseline: inverse document frequencies, coefficients and intercepts."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {
        "version": _VERSION,
        "settings": settings.model_dump(mode="json"),
        "max_chars": max_chars,
        "outcomes": list(outcomes),
    }
    (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    np.savez_compressed(folder / WEIGHTS, **dict(zip(_ARRAYS, arrays, strict=True)))


def _read_facts(path: Path) -> dict[str, object]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise IntegrityError(
            "there is no baseline here", where=str(path), remedy="run `finetune train` with backend: baseline"
        ) from error
    if not isinstance(facts, dict) or facts.get("version") != _VERSION:
        raise IntegrityError(
            "this is no baseline of this version", where=str(path), remedy="run `finetune train` again"
        )
    return facts


def _digest(document: object) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
