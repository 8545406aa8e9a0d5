"""One cell of the study of objectives: a model trained on a seed's rows with an objective, and measured."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from benchmarks.objective_measures import Scored, measure, posterior_of
from benchmarks.objective_tasks import (
    CONDITIONS,
    IMBALANCE,
    NOISE,
    POSTERIOR,
    TASKS,
    Rows,
    columns,
    load_rows,
)

from finetune.application.config import ProjectConfig
from finetune.application.decision_rule import costs_of
from finetune.application.ports import LabelScorer, LabelScores, TrainingJob
from finetune.application.prompting import build_prompt
from finetune.application.scored_rows import ScoredRows
from finetune.backends import open_backend
from finetune.cli.console import SilentProgress
from finetune.container import resolve_model
from finetune.domain.examples import Example

KNOWN = "known_posterior"
# On the encoder the same as cross_entropy, whose label is the whole answer.
_LABEL = {"objective": {"name": "cross_entropy", "weight": 0.5}}
OBJECTIVES: dict[str, Mapping[str, Any]] = {
    "cross_entropy": {},
    "label_cross_entropy": _LABEL,
    "label_smoothing": {"objective": {"name": "cross_entropy", "label_smoothing": 0.05}},
    "focal": {"objective": {"name": "focal", "gamma": 2.0}},
    "abstention": {"objective": {"name": "abstention"}},
    "expected_cost": {"objective": {"name": "expected_cost"}},
    "conformal": {"objective": {"name": "conformal"}},
    "balanced_weights": {**_LABEL, "training": {"class_weights": "balanced"}},
    "balanced_sampling": {**_LABEL, "training": {"sampling": "balanced"}},
    # No model at all: what nobody can do better than.
    KNOWN: {},
}
# What differences are taken from: cross-entropy of the label with the weight of the other objectives.
BASELINES = {"banking77": "cross_entropy", "clinc150": "cross_entropy", "demo": "label_cross_entropy"}
# Where an objective is, if not everywhere.
ONLY_TASK = {"label_cross_entropy": "demo", KNOWN: "demo"}
ONLY_CONDITION = {"balanced_weights": "imbalance", "balanced_sampling": "imbalance"}


class Cell(NamedTuple):
    """One training."""

    task: str
    condition: str
    objective: str
    seed: int

    def __str__(self) -> str:
        return "/".join(map(str, self))


def parse_cell(text: str) -> Cell:
    """Return the cell of a name.

    Raises
    ------
    ValueError
        There is none.
    """
    task, condition, objective, seed = text.split("/")
    if task not in TASKS or condition not in CONDITIONS or objective not in OBJECTIVES:
        raise ValueError(f"there is no cell {text}")
    return Cell(task, condition, objective, int(seed))


def cells(
    tasks: Sequence[str], conditions: Sequence[str], objectives: Sequence[str], seeds: Iterable[int]
) -> Iterator[Cell]:
    """Yield the cells of some parts of the study, whole seeds first."""
    for seed in seeds:
        for task in tasks:
            for condition in conditions:
                for objective in objectives:
                    if (
                        ONLY_TASK.get(objective, task) == task
                        and ONLY_CONDITION.get(objective, condition) == condition
                    ):
                        yield Cell(task, condition, objective, seed)


def settings_of(cell: Cell) -> dict[str, Any]:
    """Return what the configuration of a cell says."""
    task, objective = TASKS[cell.task].settings, OBJECTIVES[cell.objective]
    training = {
        **task["training"],
        **objective.get("training", {}),
        "evaluations_per_epoch": 1,
        "early_stopping": {"enabled": False},
        "seed": cell.seed,
    }
    return {
        "data": {"files": ["none"]},
        "prediction": {"batch_size": 64},
        **task,
        **objective,
        "training": training,
    }


def fingerprint(cell: Cell) -> str:
    """Return what changes with everything that this module and its tables say of a cell."""
    said = [settings_of(cell), TASKS[cell.task].draws, NOISE, IMBALANCE]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:8]


def run(cell: Cell, data: Path) -> dict[str, Any]:
    """Train, score and measure; a line of the results."""
    start = time.monotonic()
    rows = load_rows(cell.task, cell.condition, cell.seed, data)
    clean = load_rows(cell.task, "clean", cell.seed, data)
    best_epoch = None
    if cell.objective == KNOWN:
        scores = {part: _known(rows, part) for part in rows.parts}
    else:
        settings = settings_of(cell)
        with tempfile.TemporaryDirectory() as folder:
            scorer, kept = train(settings, rows, Path(folder))
            scores = {
                part: scorer.score([row.text for row in rows.parts[part]])
                for part in ("validation", "calibration", "test")
            }
            if rows.foreign:
                scores["foreign"] = scorer.score(rows.foreign)
        best_epoch = round(kept * settings["training"]["epochs"], 2)
    outcomes = rows.labels.label_set().outcomes
    validation, calibration, test = (
        _scored(rows.parts[part], scores[part], outcomes) for part in ("validation", "calibration", "test")
    )
    right = columns(clean.parts["validation"], outcomes) if cell.condition == "noise" else None
    found = measure(
        Scored(outcomes, rows.labels.costs, validation, calibration, test, right, scores.get("foreign")),
        cell.seed,
    )
    return {
        **cell._asdict(),
        "settings": fingerprint(cell),
        "rows": {part: len(examples) for part, examples in rows.parts.items()},
        "best_epoch": best_epoch,
        "seconds": round(time.monotonic() - start),
        "maps": found,
    }


def train(settings: Mapping[str, Any], rows: Rows, folder: Path) -> tuple[LabelScorer, float]:
    """Train with the backend of the settings; the scorer, and the share of the training that was kept."""
    job = job_of(settings, rows, folder)
    backend = open_backend(job.config.backend, resolve_model)
    outcome = backend.trainer().train(job, NoLog(), SilentProgress())
    model = backend.models().open(job.config, job.labels, job.prompt, folder / "adapter")
    return model.scorer, outcome.best_step / outcome.steps


def job_of(settings: Mapping[str, Any], rows: Rows, folder: Path) -> TrainingJob:
    """Return the training of some settings."""
    config = ProjectConfig.model_validate(settings)
    labels = rows.labels.label_set()
    matrix = costs_of(labels.outcomes, rows.labels.costs)
    assert matrix is not None
    return TrainingJob(
        config=config,
        labels=labels,
        prompt=build_prompt(config.prompt, labels),
        train=rows.parts["train"],
        validation=rows.parts["validation"],
        folder=folder,
        identity={},
        resume=False,
        costs=matrix[:, : len(labels.outcomes)],
    )


class NoLog:
    """A log that nobody reads."""

    def append(self, event: str, values: Mapping[str, Any]) -> None:
        pass


def _scored(rows: Sequence[Example], scores: LabelScores, outcomes: tuple[str, ...]) -> ScoredRows:
    posterior = None
    if rows and POSTERIOR in rows[0].metadata:
        posterior = posterior_of([row.metadata[POSTERIOR] for row in rows], outcomes)
    return ScoredRows([row.id for row in rows], columns(rows, outcomes), scores, posterior)


def _known(rows: Rows, part: str) -> LabelScores:
    outcomes = rows.labels.label_set().outcomes
    posterior = posterior_of([row.metadata[POSTERIOR] for row in rows.parts[part]], outcomes)
    with np.errstate(divide="ignore"):
        logs = np.log(posterior / posterior.sum(axis=1, keepdims=True))
    n = len(logs)
    return LabelScores(logs, np.zeros(n), np.zeros(n, dtype=np.int64), np.zeros(n))
