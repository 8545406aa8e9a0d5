"""One side of what objectives and monitoring cost, in a process of its own.

    python -m benchmarks.objective_sides steps SHAPE SIDE STEPS DATA
    python -m benchmarks.objective_sides trainings SHAPE SIDE DATA

takes turns step by step, or training by training, until its parent ends.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from benchmarks.llm_measuring import Turn
from benchmarks.objective_cells import NoLog, job_of
from benchmarks.objective_overhead import (
    EPOCHS,
    EVALUATIONS,
    MONITORING,
    OBJECTIVES,
    SHAPES,
    TRAINED,
    shape_rows,
)
from benchmarks.objective_tasks import TASKS
from benchmarks.pace import Pace

from finetune.application.ports import TrainingJob
from finetune.backends import open_backend
from finetune.cli.console import SilentProgress
from finetune.container import resolve_model


def shape_settings(shape: str) -> dict[str, Any]:
    """Return the configuration of a shape: that of the study, on the demo's model where it runs trees."""
    chosen = TASKS["banking77" if shape == "encoder" else "demo"].settings
    return {"data": {"files": ["none"]}, "prediction": {"batch_size": 64}, **chosen}


def steps_job(shape: str, side: str, steps: int, data: Path, folder: Path) -> TrainingJob:
    """Return a training of so many steps on the same rows for all sides, hardly measured."""
    settings, rows, n = shape_settings(shape), shape_rows(shape, data), SHAPES[shape].rows
    training = {
        **settings["training"],
        "per_device_batch_size": n,
        "max_steps": steps,
        "evaluations_per_epoch": 1,
        "logging_steps": 1,
        "early_stopping": {"enabled": False},
    }
    parts = {"train": rows.parts["train"], "validation": rows.parts["validation"][:n]}
    return job_of(
        {**settings, "objective": OBJECTIVES[side], "training": training},
        rows._replace(parts=parts),
        folder,
    )


def training_job(shape: str, side: str, data: Path, folder: Path) -> TrainingJob:
    """Return a whole training, the same for both sides but for the monitoring."""
    settings, rows = shape_settings(shape), shape_rows(shape, data)
    training = {
        **settings["training"],
        "epochs": EPOCHS,
        "evaluations_per_epoch": EVALUATIONS,
        "early_stopping": {"enabled": False},
    }
    parts = {"train": rows.parts["train"][:TRAINED], "validation": rows.parts["validation"]}
    return job_of(
        {**settings, "calibration_monitoring": {"enabled": MONITORING[side]}, "training": training},
        rows._replace(parts=parts),
        folder,
    )


def main() -> None:
    kind, shape, side, *rest = sys.argv[1:]
    data = Path(rest[-1])
    turn = Turn()
    # What is made once in a process is made before the first turn.
    torch.manual_seed(0)
    trainer = open_backend(shape_settings(shape)["backend"], resolve_model).trainer()
    with tempfile.TemporaryDirectory() as temporary:
        if kind == "steps":
            transformers.trainer.DEFAULT_CALLBACKS.append(Pace(turn))
            job = steps_job(shape, side, int(rest[0]), data, Path(temporary))
            trainer.train(job, NoLog(), SilentProgress())
            return
        turn.say()
        while True:
            turn.wait()
            with tempfile.TemporaryDirectory(dir=temporary) as folder:
                outcome = trainer.train(
                    training_job(shape, side, data, Path(folder)), NoLog(), SilentProgress()
                )
            turn.tell(log_loss=outcome.best["log_loss"])


if __name__ == "__main__":
    main()
