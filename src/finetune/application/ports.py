"""What the use cases need from outside, as protocols.  Adapters implement them; fakes do in tests.

Files are named by ``pathlib.Path``; only adapters open them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from finetune.application.config import Columns, DataFile, ProjectConfig
from finetune.domain.decisions import DecisionRecord
from finetune.domain.examples import Example
from finetune.domain.labels import LabelSet
from finetune.domain.prompts import PromptFormat


class ProgressTask(Protocol):
    """One piece of work whose progress is shown."""

    def advance(self, n: int = 1) -> None:
        """Say that ``n`` more units are done."""

    def describe(self, text: str) -> None:
        """Show a short text beside the bar, e.g. the current loss."""


class Progress(Protocol):
    """Shows people that work goes on, and how long it will take."""

    def task(self, description: str, total: int) -> AbstractContextManager[ProgressTask]:
        """Open a task of ``total`` units; it ends with the context."""

    def say(self, message: str) -> None:
        """Show one line that stays."""


class Clock(Protocol):
    """The time of day."""

    def now(self) -> str:
        """Return the current UTC time in ISO 8601 with seconds."""


class RawRow(NamedTuple):
    """One row as it stood in the file; ``position`` is ``file:line``."""

    position: str
    values: Mapping[str, Any]


class BadRow(NamedTuple):
    """A row that could not be read or used; ``content`` is what stood there."""

    position: str
    problem: str
    content: str


class ExampleSource(Protocol):
    """Reads rows from files."""

    def read(self, file: DataFile, columns: Columns) -> Iterator[RawRow | BadRow]:
        """Yield every row of one file in order; a broken row is a :class:`BadRow`, never an exception.

        A file that cannot be read at all, or lacks the text column, raises :class:`InvalidInput`.
        ``columns.label`` may be missing only where no labels are needed (``predict``).
        """


class EncodedExample(NamedTuple):
    """One prompt with its answer as token ids; the loss counts ``ids[answer_start:]`` only."""

    ids: tuple[int, ...]
    answer_start: int
    removed_chars: int


class PromptEncoder(Protocol):
    """Turns an example into tokens exactly as training does."""

    def encode(self, example: Example) -> EncodedExample:
        """Encode one labelled example, shortening its text (and nothing else) to ``max_length``."""

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Return the readable text of each token."""


class LabelScores(NamedTuple):
    """What a model says of ``n`` texts.

    ``log_probabilities`` (n, K) float64, rows normalised, columns in the order of the outcomes;
    ``label_mass`` (n,) natural log of the probability mass on all outcomes together (≤ 0);
    ``removed_chars`` (n,) characters left out because the text did not fit.
    """

    log_probabilities: NDArray[np.float64]
    label_mass: NDArray[np.float64]
    removed_chars: NDArray[np.int64]


class LabelScorer(Protocol):
    """Gives every outcome its log-probability."""

    @property
    def outcomes(self) -> tuple[str, ...]:
        """Names of the columns of :class:`LabelScores`."""

    def score(self, texts: Sequence[str], task: ProgressTask | None = None) -> LabelScores:
        """Score every outcome for every text; the result does not depend on the batch."""


class RationaleWriter(Protocol):
    """Writes why, after the decision was made."""

    def write(
        self, texts: Sequence[str], decisions: Sequence[str], task: ProgressTask | None = None
    ) -> list[str]:
        """Return one rationale per text; it cannot change the decision."""


@dataclass(frozen=True)
class ModelIdentity:
    """What a certificate is bound to: names for people, SHA-256 (hex) for machines."""

    base: str
    base_hash: str
    adapter: str
    adapter_hash: str
    prompt_hash: str
    encoder_hash: str
    """Of everything between a prompt and its tokens: tokeniser, chat template, length limit."""
    precision: str


class DecisionModel(Protocol):
    """A loaded model: scorer and writer share its weights."""

    @property
    def identity(self) -> ModelIdentity:
        """What exactly was loaded."""

    @property
    def scorer(self) -> LabelScorer:
        """The scoring side."""

    @property
    def writer(self) -> RationaleWriter:
        """The writing side."""


class ModelOpener(Protocol):
    """Loads a trained run."""

    def open(
        self, config: ProjectConfig, labels: LabelSet, prompt: PromptFormat, adapter: Path | None
    ) -> DecisionModel:
        """Load the base model of ``config`` with the adapter in a folder (``None``: the base alone)."""


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


@dataclass(frozen=True)
class TrainingOutcome:
    """What came of training; the adapter lies in ``folder/adapter``."""

    steps: int
    epochs: float
    best_step: int
    best: Mapping[str, float]
    first: Mapping[str, float]
    stopped_early: bool
    trainable_parameters: int
    total_parameters: int
    adapted_modules: Mapping[str, int]
    precision: str
    shortened_texts: int
    seconds: float
    versions: Mapping[str, str]
    main_process: bool = True
    """False in all but one process of a multi-GPU run; only that one writes files."""


class MetricsLog(Protocol):
    """The append-only time series of a run."""

    def append(self, event: str, values: Mapping[str, Any]) -> None:
        """Append one event; it is on disk when the call returns."""


CHECKPOINTS = "checkpoints"
"""Folder of a run in which an unfinished training keeps what it needs to go on."""

BEGUN = f"{CHECKPOINTS}/job.json"
"""Which training it is; there as soon as something would be lost."""


class Trainer(Protocol):
    """Tunes an adapter.

    While it works it writes into ``checkpoints/`` of the run folder only: with the first checkpoint, and not
    before, ``job.json`` with the job's identity.  The folder is left for the caller to remove.
    """

    def train(self, job: TrainingJob, log: MetricsLog, progress: Progress) -> TrainingOutcome:
        """Train (or resume) and leave the best adapter in ``job.folder / "adapter"``."""


class ArtifactStore(Protocol):
    """Files of one folder: atomic writes, hashes, a manifest."""

    @property
    def folder(self) -> Path:
        """The folder."""

    def exists(self, name: str) -> bool:
        """Whether a file or folder of this name is there."""

    def write_json(self, name: str, document: Mapping[str, Any]) -> None:
        """Write a JSON file atomically; NaN and infinities are refused."""

    def write_yaml(self, name: str, document: Mapping[str, Any]) -> None:
        """Write a YAML file atomically."""

    def write_text(self, name: str, text: str) -> None:
        """Write a text file atomically."""

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON object; missing or damaged files raise with a remedy."""

    def read_yaml(self, name: str) -> dict[str, Any]:
        """Read a YAML mapping safely."""

    def write_examples(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write one JSON object a line, atomically."""

    def read_rows(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield the objects of a JSONL file."""

    def remove(self, name: str) -> None:
        """Remove a file or folder, if it is there."""

    def sha256(self, name: str) -> str:
        """Hash one file, or all files of a folder in the order of their names."""

    def seal(self, facts: Mapping[str, Any]) -> None:
        """Write ``manifest.json``: facts, and the SHA-256 of every file but the log and checkpoints."""

    def verify(self, *names: str) -> None:
        """Raise :class:`IntegrityError` where a named file differs from the manifest."""

    def publish(self, folder: Path) -> None:
        """Move this folder to another place; what stood there goes away once the new one is there."""


class StoreOpener(Protocol):
    """Opens the store of a folder."""

    def __call__(self, folder: Path) -> ArtifactStore:
        """Open (not create) the folder's store."""


class LogOpener(Protocol):
    """Opens the metrics log of a run folder."""

    def __call__(self, folder: Path) -> MetricsLog:
        """Open ``metrics.jsonl`` in a folder."""


class EncoderOpener(Protocol):
    """Opens the tokeniser of a configuration, without any weights."""

    def __call__(self, config: ProjectConfig, labels: LabelSet, prompt: PromptFormat) -> PromptEncoder:
        """Return the encoder that training will use."""


class DecisionSink(Protocol):
    """Takes prediction records, in order, and can be continued."""

    @property
    def done(self) -> int:
        """How many input rows an earlier, interrupted call already wrote."""

    @property
    def notice(self) -> str | None:
        """What became of an earlier call's rows, in one line for people; ``None`` without any."""

    def write(self, records: Sequence[DecisionRecord]) -> None:
        """Write records; they are on disk when the call returns."""

    def finish(self) -> None:
        """Put the complete file in its place."""


class SinkOpener(Protocol):
    """Opens a sink for an output file."""

    def __call__(self, path: Path, key: str) -> DecisionSink:
        """Open; ``key`` names input and certificate, so that only the same work is continued."""


class ReportWriter(Protocol):
    """Turns an evaluation into a page that someone can read without us."""

    def render(self, evaluation: Mapping[str, Any]) -> str:
        """Return a self-contained HTML page."""
