"""Passes the Trainer's events on to the metrics log and the progress display."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune.application.ports import MetricsLog, Progress, ProgressTask
from finetune.domain.errors import InvalidInput

_TRAINING_KEYS = ("loss", "learning_rate", "grad_norm")


class Reporting(TrainerCallback):
    """Logs losses and evaluations, shows progress, and has the last step evaluated.

    Parameters
    ----------
    log
        Written by the main process only.
    progress
        Where progress is shown.
    begun, identity
        File to write with the first checkpoint, and what it says of this training.
    """

    def __init__(self, log: MetricsLog, progress: Progress, begun: Path, identity: Mapping[str, Any]) -> None:
        self._log = log
        self._progress = progress
        self._begun = begun
        self._identity = identity
        self._open = ExitStack()
        self._task: ProgressTask | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Open the progress display where the run starts or goes on."""
        self._task = self._open.enter_context(self._progress.task("training", state.max_steps))
        self._task.advance(state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Advance; the state after the last step is a candidate for the best and must be evaluated.

        With each evaluation goes an entry of the loss, so that none is averaged over steps before and after
        a checkpoint: a training that goes on from there could not write the same.
        """
        if self._task is not None:
            self._task.advance()
        if state.global_step >= state.max_steps:
            control.should_evaluate = True
        if control.should_evaluate:
            control.should_log = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Say which training the checkpoints belong to, once there is one to lose."""
        if state.is_world_process_zero and not self._begun.exists():
            new = self._begun.with_suffix(".new")
            new.write_text(json.dumps(self._identity), encoding="utf-8")
            new.replace(self._begun)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Append one event to the log."""
        if not state.is_world_process_zero or not logs:
            return
        values = {"step": state.global_step, "epoch": state.epoch}
        if not math.isfinite(logs.get("loss", 0.0)):
            raise InvalidInput(
                f"the training loss is not a number at step {state.global_step}",
                where="training.learning_rate",
                seen=logs["loss"],
                remedy="lower it, or set training.bf16: false; `finetune train --resume` goes on from the "
                "last checkpoint only with the same settings",
            )
        metrics = {k.removeprefix("eval_"): v for k, v in logs.items() if k.startswith("eval_")}
        if metrics:
            self._log.append("evaluation", {**values, **metrics})
            watched = args.metric_for_best_model.removeprefix("eval_")
            if watched in metrics:
                self._describe(f"validation {watched.replace('_', ' ')} {metrics[watched]:.3f}")
        elif "loss" in logs:
            self._log.append("training", {**values, **{k: logs[k] for k in _TRAINING_KEYS if k in logs}})
            self._describe(f"loss {logs['loss']:.3f}")

    def close(self) -> None:
        """End the progress display, however training ended."""
        self._open.close()
        self._task = None

    def _describe(self, text: str) -> None:
        if self._task is not None:
            self._task.describe(text)


class Silence:
    """Progress of the processes of a multi-GPU run that are not the main one."""

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Silence]:
        """Show nothing."""
        yield self

    def say(self, message: str) -> None:
        """Show nothing."""

    def advance(self, n: int = 1) -> None:
        """Show nothing."""

    def describe(self, text: str) -> None:
        """Show nothing."""
