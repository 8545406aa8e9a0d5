"""Training an adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from finetune.application.config import ProjectConfig
from finetune.application.ports.progress import Progress
from finetune.domain.checks import FloatArray
from finetune.domain.examples import Example
from finetune.domain.labels import LabelSet
from finetune.domain.prompts import PromptFormat


@dataclass(frozen=True)
class TrainingJob:
    """Everything a trainer needs to know."""

    config: ProjectConfig
    labels: LabelSet
    prompt: PromptFormat
    train: Sequence[Example]
    validation: Sequence[Example]
    folder: Path
    identity: Mapping[str, Any]
    """What must be the same for a training to be resumed; JSON-able."""
    resume: bool
    costs: FloatArray | None = None
    """``(K, K)`` over ``labels.outcomes``: cost of deciding the column when the row is true.

    None where the objective does not look at costs.
    """


@dataclass(frozen=True)
class TrainingOutcome:
    """What came of training; the adapter lies in ``folder/adapter``."""

    steps: int
    epochs: float
    best_step: int
    best: Mapping[str, float]
    first: Mapping[str, float]
    stopped_early: bool = False
    trainable_parameters: int = 0
    total_parameters: int = 0
    adapted_modules: Mapping[str, int] = field(default_factory=dict)
    precision: str = "fp32"
    shortened_texts: int = 0
    seconds: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)
    main_process: bool = True
    """False in all but one process of a multi-GPU run; only that one writes files."""
    # Runs of before token trees have none of what follows; they were padded.
    path: str = "padded"
    """How rows were run: ``tree`` or ``padded``."""
    path_reason: str = ""
    """Why, in one sentence."""
    tree_tokens: int | None = None
    """The most tokens that a tree had, by its budget; None where there were no trees."""
    computed_tokens: int | None = None
    """Tokens that all forwards computed, padding among them."""
    padded_tokens: int | None = None
    """Tokens that they would have computed with padding."""


class MetricsLog(Protocol):
    """The append-only time series of a run."""

    def append(self, event: str, values: Mapping[str, Any]) -> None:
        """Append one event; it is on disk when the call returns."""


class LogOpener(Protocol):
    """Opens the metrics log of a run folder."""

    def __call__(self, folder: Path) -> MetricsLog:
        """Open ``metrics.jsonl`` in a folder."""


CHECKPOINTS = "checkpoints"
"""Folder of a run in which an unfinished training keeps what it needs to go on."""

TRACKING = "tracking"
"""Folder of a run in which TensorBoard and the like keep what they were sent; nothing else reads it."""

BEGUN = f"{CHECKPOINTS}/job.json"
"""Which training it is; there as soon as something would be lost."""


class Trainer(Protocol):
    """Tunes an adapter.

    While it works it writes into ``checkpoints/`` of the run folder only: with the first checkpoint, and not
    before, ``job.json`` with the job's identity.  The folder is left for the caller to remove.  What
    ``training.report_to`` asks for goes to ``tracking/``.
    """

    def train(self, job: TrainingJob, log: MetricsLog, progress: Progress) -> TrainingOutcome:
        """Train (or resume) and leave the best adapter in ``job.folder / "adapter"``."""
