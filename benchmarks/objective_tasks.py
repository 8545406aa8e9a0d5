"""Tasks of the study of objectives: which rows train, choose, calibrate and test, and what is done to them.

Rows are drawn by the seed alone, so that all objectives of a seed see the same ones.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from finetune.adapters.embedded.messages import generate_messages, labels_document
from finetune.application.labels_file import LabelsFile
from finetune.domain.checks import IntArray
from finetune.domain.examples import Example

PARTS = ("train", "validation", "calibration", "test")
CONDITIONS = {
    "clean": "clean labels",
    "noise": "20 % of the labels wrong",
    "imbalance": "unequal labels",
}
NOISE = 0.2
IMBALANCE = 10.0
POSTERIOR = "posterior"


class Task(NamedTuple):
    """A data set, and what training is told.

    Parameters
    ----------
    title
        For people.
    column
        Of the label, in the files.
    draws
        For each file which parts of the study are drawn from it, and how many rows of each label.
        Without files the demo's messages are generated: then the numbers are of all rows.
    foreign
        A file of rows out of scope.
    settings
        Of the configuration.
    """

    title: str
    column: str
    draws: Mapping[str, Mapping[str, int]]
    foreign: str | None
    settings: Mapping[str, Any]


class Rows(NamedTuple):
    """The rows of one seed and condition; ``foreign`` are texts out of scope."""

    labels: LabelsFile
    parts: Mapping[str, list[Example]]
    foreign: list[str]


_ENCODER = {
    "backend": "encoder",
    # From a random head three epochs of so few rows are too short at any of the rates below.
    "encoder": {"head_start": "prototypes", "head_rate": 5.0},
    # Dropout of adapters takes a tenth of the time; the encoder has its own.
    "lora": {"r": 16, "alpha": 32.0, "dropout": 0.0},
    "training": {
        # From 5e-4 to 2e-3 the log loss of cross-entropy is the same.
        "learning_rate": 1e-3,
        "per_device_batch_size": 32,
        "gradient_accumulation_steps": 1,
        "epochs": 3,
        "max_length": 128,
    },
}
# The demo's own (finetune.adapters.embedded.project) but for dropout, which the model is too small to need,
# and for smaller batches, with which two thirds of the rows teach as much.
_DEMO = {
    "backend": "causal",
    "model_id": "embedded",
    "prompt": {"system": 'Answer: {"decision": "<decision>"}'},
    "lora": {"r": 16, "alpha": 32.0, "dropout": 0.0},
    # Of cross-entropy: the loss of all answer tokens alike.
    "objective": {"weight": 0.0},
    "training": {
        "learning_rate": 6e-3,
        "per_device_batch_size": 16,
        "gradient_accumulation_steps": 1,
        "epochs": 2,
        "max_length": 384,
        "json_samples": 0,
    },
}
GENERATED = "generated"
TASKS = {
    "banking77": Task(
        "Banking77",
        "category",
        {
            # The rarest label has 35 rows.
            "train.csv": {"train": 10, "validation": 5, "calibration": 10},
            "test.csv": {"test": 20},
        },
        None,
        _ENCODER,
    ),
    "clinc150": Task(
        "CLINC150",
        "intent",
        {
            "train.csv": {"train": 5},
            "val.csv": {"validation": 5, "calibration": 10},
            "test.csv": {"test": 15},
        },
        "oos_test.csv",
        _ENCODER,
    ),
    "demo": Task(
        "The demo",
        "",
        {GENERATED: {"train": 2000, "validation": 400, "calibration": 1000, "test": 2000}},
        None,
        _DEMO,
    ),
}


def load_rows(task: str, condition: str, seed: int, data: Path) -> Rows:
    """Return the rows of a task, as a seed draws them and a condition spoils them.

    Parameters
    ----------
    task, condition
        Of :data:`TASKS` and :data:`CONDITIONS`.
    seed
        Draws everything.
    data
        The folder with the data sets; the demo needs none.
    """
    rows = _generate(TASKS[task], seed) if task == "demo" else _read(TASKS[task], data / task, seed)
    # Streams of their own: the rows are the same under all conditions.
    spoilt = dict(rows.parts)
    outcomes = rows.labels.label_set().outcomes
    if condition == "noise":
        for number, part in enumerate(("train", "validation")):
            truth = columns(spoilt[part], outcomes)
            wrong = with_noise(truth, len(outcomes), NOISE, np.random.default_rng([seed, 1, number]))
            spoilt[part] = [
                replace(row, label=outcomes[label]) for row, label in zip(spoilt[part], wrong, strict=True)
            ]
    elif condition == "imbalance":
        truth = columns(spoilt["train"], outcomes)
        kept = thinned(truth, len(outcomes), IMBALANCE, np.random.default_rng([seed, 2]))
        spoilt["train"] = [spoilt["train"][i] for i in kept]
    return rows._replace(parts=spoilt)


def columns(rows: Sequence[Example], outcomes: Sequence[str]) -> IntArray:
    """Return the labels of rows as indices, shape (n,)."""
    place = {name: i for i, name in enumerate(outcomes)}
    return np.array([place[str(row.label)] for row in rows], dtype=np.int64)


def drawn(labels: IntArray, counts: Sequence[int], rng: np.random.Generator) -> list[IntArray]:
    """Draw rows of each label: disjoint positions in any order, so many a label for each of the counts.

    Raises
    ------
    ValueError
        A label has too few rows.
    """
    found: list[list[IntArray]] = [[] for _ in counts]
    for label in np.unique(labels):
        places = rng.permutation(np.flatnonzero(labels == label))
        if len(places) < sum(counts):
            raise ValueError(f"label {label} has {len(places)} rows; {sum(counts)} are needed")
        for part, rows in zip(found, np.split(places, np.cumsum(counts))[:-1], strict=True):
            part.append(rows)
    return [rng.permutation(np.concatenate(part)) for part in found]


def with_noise(labels: IntArray, n_labels: int, share: float, rng: np.random.Generator) -> IntArray:
    """Give a share of the rows another label, each other one as likely."""
    noisy = labels.copy()
    rows = rng.choice(len(labels), round(share * len(labels)), replace=False)
    noisy[rows] = (labels[rows] + rng.integers(1, n_labels, size=len(rows))) % n_labels
    return noisy


def thinned(labels: IntArray, n_labels: int, factor: float, rng: np.random.Generator) -> IntArray:
    """Return the rows that stay when label frequencies shall fall geometrically, by a factor in all.

    Labels keep their order of frequency, ties by lot, and as many rows as that allows, at least one each.
    """
    counts = np.bincount(labels, minlength=n_labels)
    order = np.lexsort((rng.permutation(n_labels), -counts))
    shares = np.empty(n_labels)
    shares[order] = factor ** -(np.arange(n_labels) / (n_labels - 1))
    wanted = np.rint((counts / shares)[counts > 0].min() * shares).astype(np.int64)
    kept = [
        rng.permutation(np.flatnonzero(labels == label))[: max(number, 1)]
        for label, number in enumerate(wanted)
    ]
    return np.sort(np.concatenate(kept))


def _read(task: Task, folder: Path, seed: int) -> Rows:
    parts: dict[str, list[Example]] = {}
    names: set[str] = set()
    for number, (file, draws) in enumerate(task.draws.items()):
        examples = [
            Example(f"{file}:{i}", row["text"], row[task.column]) for i, row in enumerate(_csv(folder / file))
        ]
        names |= {str(example.label) for example in examples}
        truth = columns(examples, sorted(names))
        rng = np.random.default_rng([seed, 0, number])
        for part, places in zip(draws, drawn(truth, list(draws.values()), rng), strict=True):
            parts[part] = [examples[i] for i in places]
    labels = LabelsFile.model_validate(
        {"task": task.title, "labels": [{"name": name} for name in sorted(names)]}
    )
    foreign = [] if task.foreign is None else [row["text"] for row in _csv(folder / task.foreign)]
    return Rows(labels, parts, foreign)


def _generate(task: Task, seed: int) -> Rows:
    labels = LabelsFile.model_validate(labels_document())
    sizes = task.draws[GENERATED]
    messages = generate_messages(sum(sizes.values()), seed)
    examples = [
        Example(f"{i}", m.text, m.label, m.rationale, metadata={POSTERIOR: dict(m.posterior)})
        for i, m in enumerate(messages)
    ]
    ends = np.cumsum(list(sizes.values()))
    parts = {part: examples[end - size : end] for (part, size), end in zip(sizes.items(), ends, strict=True)}
    return Rows(labels, parts, [])


def _csv(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))
