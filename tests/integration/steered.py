"""Trainings of a tiny model whose evaluations say what a test needs; run in processes of their own, too."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.integration.test_hf_training import LABELS, PROMPT, ROWS, configure

from finetune.adapters.files.log import JsonlLog
from finetune.adapters.hf.reporting import Silence
from finetune.adapters.hf.trainer import HfTrainer
from finetune.adapters.hf.tuning import Setting, Tunable, tune
from finetune.application.config import ProjectConfig
from finetune.application.ports import Progress, TrainingJob, TrainingOutcome

Measures = dict[str, float]
Alter = Callable[[Measures], Measures]


class KillingLog(JsonlLog):
    """Ends the process at an event, as a kill does."""

    def __init__(self, folder: Path, kill_at: int | None = None) -> None:
        super().__init__(folder)
        self._kill_at = kill_at

    def append(self, event: str, values: Mapping[str, Any]) -> None:
        super().append(event, values)
        if event == "training" and values["step"] == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def worse_as_it_learns(measures: Measures) -> Measures:
    """Replace the calibration error by one that rises for sure, and follows from the weights alone."""
    return {**measures, "ece": 1.0 / measures["log_loss"], "ece_noise": 0.0}


def follow(
    config: ProjectConfig,
    run: Path,
    *,
    alter: Alter = dict,
    kill_at: int | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    rows: int = 40,
) -> TrainingOutcome:
    """Train with measures that are altered; the log lies in the folder."""
    backend = HfTrainer(lambda name: name)

    def opened(setting: Setting) -> Tunable:
        tunable = backend._open(setting)
        measure = tunable.evaluation
        return tunable._replace(evaluation=lambda: alter(dict(measure())))

    job = TrainingJob(config, LABELS, PROMPT, ROWS[:rows], ROWS[:12], run, {}, resume)
    return tune(job, KillingLog(run, kill_at), Silence() if progress is None else progress, opened)


def steering(model: Path, *, threshold: float = 0.05, **training: Any) -> ProjectConfig:
    """Return a configuration that follows the calibration error.

    It learns by the loss of the answer alone, with which the cuts come in the middle of an epoch.
    """
    watched = {"enabled": True, "adjustment_threshold": threshold}
    return configure(model, training=training, calibration_monitoring=watched, objective={"weight": 0.0})
