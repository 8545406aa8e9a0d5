"""How good small models are on real data: an encoder, and the baseline beside it, as sections of a page.

    python -m benchmarks.encoder_quality --data DATA --write docs/encoders.md

trains on the official training rows but those that calibrate, and measures on the official test rows.  For
CLINC150 no row out of scope is trained on; how many of those are caught is measured at the end.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from benchmarks.llm_measuring import command, machine, write_section

PACKAGES = ("torch", "transformers", "peft", "accelerate", "scikit-learn")
PAGE = """\
# Encoders on real data

What `backend: encoder` with all-MiniLM-L6-v2 (`encoder.model_id: minilm`) reaches on the two data sets, and
what `backend: baseline` does. Each section is written by the command at its head.
"""
TEXT = """\
Written by {command}. {machine}

{what} Settings: {settings}.

| | {names} |
| --- | {rules} |
{rows}
"""
SHARES = (0.99, 0.97, 0.95, 0.9, 0.8)


class Task(NamedTuple):
    """A data set: its label column, and its files with the split that each is pinned to."""

    title: str
    label: str
    files: dict[str, str | None]
    split: dict[str, float]
    foreign: str | None
    what: str


TASKS = {
    "banking77": Task(
        "Banking77",
        "category",
        {"train.csv": None, "test.csv": "test"},
        {"train": 0.93, "validation": 0.02, "calibration": 0.05, "test": 0.0},
        None,
        "Trained on 93 % of the official training rows; 2 % choose the epoch and fit the map, 5 % "
        "calibrate. Measured on all official test rows, whose class balance is another one: promises hold "
        "roughly only.",
    ),
    "clinc150": Task(
        "CLINC150",
        "intent",
        {"train.csv": "train", "val.csv": None, "test.csv": "test"},
        {"train": 0.0, "validation": 0.2, "calibration": 0.8, "test": 0.0},
        "oos_test.csv",
        "Trained on the official training rows that are in scope; of the official validation rows, a fifth "
        "chooses the epoch and fits the map, the rest calibrate. Measured on the test rows in scope.",
    ),
}
BACKENDS = ("encoder", "baseline")


def main() -> None:
    options = _options()
    for name in options.tasks:
        task = TASKS[name]
        found = {}
        for backend in options.backends:
            with tempfile.TemporaryDirectory() as folder:
                found[backend] = measure(Path(folder), options.data.resolve() / name, task, backend, options)
            print(json.dumps({name: {backend: found[backend]}}, indent=1), flush=True)
        rows = {
            key: [values.get(key, "") for values in found.values()]
            for values in found.values()
            for key in values
        }
        text = TEXT.format(
            # Where the data lie is nobody's business but this machine's.
            command=command().replace(str(options.data), "DATA"),
            machine=machine(PACKAGES),
            what=f"NOT TEST ROWS: {options.held_out:.0%} held out. " * bool(options.held_out) + task.what,
            settings=f"r = {options.rank}, learning rate {options.learning_rate:g}, {options.epochs:g} "
            f"epochs of batches of {options.batch}, mean pooling, "
            f"label smoothing {options.label_smoothing:g}, "
            f"head from {options.head_start} at {options.head_rate:g} times the rate, "
            f"consistency {options.consistency:g}",
            names=" | ".join(found),
            rules=" | ".join(["---:"] * len(found)),
            rows="\n".join(f"| {key} | {' | '.join(values)} |" for key, values in rows.items()),
        )
        print(text)
        if options.write:
            write_section(options.write, task.title, text, PAGE)


def measure(
    folder: Path, data: Path, task: Task, backend: str, options: argparse.Namespace
) -> dict[str, str]:
    """Do the main job in a folder and return what is shown of it."""
    with (data / "train.csv").open(encoding="utf-8", newline="") as file:
        labels = sorted({row[task.label] for row in csv.DictReader(file)})
    (folder / "labels.yaml").write_text(
        json.dumps({"version": 1, "task": task.title, "labels": [{"name": label} for label in labels]})
    )
    files = [{"path": str(data / name), "split": split} for name, split in task.files.items()]
    shares = task.split
    if options.held_out:
        # Of what no file pins: for CLINC150 the official validation rows.
        files = [file for file in files if file["split"] != "test"]
        shares = {name: share * (1 - options.held_out) for name, share in task.split.items()}
        shares["test"] = options.held_out
    settings = {
        "name": "run",
        "backend": backend,
        "labels": "labels.yaml",
        "data": {
            "files": files,
            "columns": {"id": None, "label": task.label, "rationale": None},
            "split": shares,
            "near_duplicate_threshold": None,
        },
        # The baseline has no objective to choose.
        "objective": {"label_smoothing": options.label_smoothing if backend == "encoder" else 0.0},
        "encoder": {
            "head_start": options.head_start,
            "head_rate": options.head_rate,
            "consistency": options.consistency,
        },
        "lora": {"r": options.rank, "alpha": 2.0 * options.rank, "dropout": 0.1},
        "training": {
            "learning_rate": options.learning_rate,
            "per_device_batch_size": options.batch,
            "gradient_accumulation_steps": 1,
            "epochs": options.epochs,
            "evaluations_per_epoch": 1,
            "max_length": 128,
        },
        "risk": {"level": 0.05, "on_infeasible": "abstain", "out_of_scope": 0.05},
        "prediction": {"batch_size": 64},
    }
    (folder / "config.yaml").write_text(json.dumps(settings))

    def call(*arguments: str) -> None:
        subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "finetune", *arguments, "--config", "config.yaml"],
            cwd=folder,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(options.threads)},
            check=True,
            stdout=subprocess.DEVNULL,
        )

    for step in ("prepare", "train", "calibrate", "evaluate"):
        call(step)
    run = folder / "artifacts" / "runs" / "run"
    trained, evaluation = (_read(run / name) for name in ("training_metrics.json", "evaluation.json"))
    shown = show(trained, evaluation)
    if task.foreign is not None and not options.held_out:
        records = []
        for name in ("test.csv", task.foreign):
            call("predict", "--input", str(data / name), "--output", f"{name}.jsonl")
            lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
            records.append([json.loads(line) for line in lines])
        shown |= show_foreign(*records)
    return shown


def show(trained: dict[str, Any], evaluation: dict[str, Any]) -> dict[str, str]:
    """Return the figures of a run, as text."""
    before, after = (evaluation["calibration"][when]["ece"]["value"] for when in ("before", "after"))
    selective, coverage = evaluation["selective"], evaluation["coverage"]
    return {
        "test rows": f"{evaluation['test']['rows']:,}",
        "accuracy": _interval(evaluation["accuracy"]),
        "ECE before the map": f"{100 * before:.2f} %",
        "ECE after": f"{100 * after:.2f} %",
        "log loss after": f"{evaluation['log_loss']['after']['value']:.3f}",
        "AURC": f"{evaluation['risk_coverage']['aurc']:.4f}",
        f"coverage of the sets, {coverage['promised']:.0%} promised": _interval(coverage["observed"]),
        "labels in a set": f"{coverage['mean_size']['value']:.2f}",
        "answered": _interval(selective["share"]),
        f"wrong among answered, at most {selective['level']:.0%} promised": _interval(selective["error"]),
        "training": f"{trained['seconds'] / 60:.1f} min",
    }


def show_foreign(inside: list[dict[str, Any]], foreign: list[dict[str, Any]]) -> dict[str, str]:
    """Return how many rows out of scope are caught, by evidence and by confidence."""
    scores = {
        "label mass": [np.array([row["label_mass"] for row in rows]) for rows in (inside, foreign)],
        "confidence": [
            np.array([max(row["probabilities"].values()) for row in rows]) for rows in (inside, foreign)
        ],
    }
    shown = {"rows out of scope": f"{len(foreign):,}"}
    for name, (own, other) in scores.items():
        for share in SHARES:
            # The same share of the test rows in scope is kept for every score.
            caught = float((other < np.quantile(own, 1 - share)).mean())
            shown[f"caught where {share:.0%} in scope are kept, by {name}"] = f"{100 * caught:.1f} %"
    for who, rows in (("in scope", inside), ("out of scope", foreign)):
        reasons = [row["abstain_reason"] for row in rows]
        shown[f"{who}: handed over with risk.out_of_scope 0.05"] = _share(reasons, "out_of_scope")
        shown[f"{who}: answered"] = _share(reasons, "none")
    return shown


def _share(reasons: list[str], which: str) -> str:
    return f"{100 * reasons.count(which) / len(reasons):.1f} %"


def _interval(estimate: dict[str, Any]) -> str:
    if estimate["value"] is None:
        return "none"
    return f"{100 * estimate['value']:.2f} % ({100 * estimate['low']:.1f} to {100 * estimate['high']:.1f})"


def _read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encoder_quality", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with banking77/ and clinc150/")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--epochs", type=float, default=5.0)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--label-smoothing", type=float, default=0.0)
    parser.add_argument("--head-start", choices=("random", "prototypes"), default="random")
    parser.add_argument("--head-rate", type=float, default=1.0)
    parser.add_argument("--consistency", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--held-out",
        type=float,
        default=0.0,
        help="measure on this share of the rows instead of the test rows: to choose settings by",
    )
    parser.add_argument("--write", type=Path, help="a Markdown file for the sections")
    return parser.parse_args()


if __name__ == "__main__":
    main()
