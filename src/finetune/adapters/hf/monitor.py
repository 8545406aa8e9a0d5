"""Lowers the learning rate where calibration got worse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune.application.config import CalibrationMonitoring
from finetune.application.ports import MetricsLog, Progress
from finetune.domain.rate_steering import SteeringState, SteeringStep, steer


class CalibrationMonitor(TrainerCallback):
    """Follows the calibration error over evaluations, and cuts the learning rate.

    What it remembers follows from the evaluations that the Trainer keeps in every checkpoint, and is made
    from them where a training goes on; rates are kept by optimiser and scheduler.

    Parameters
    ----------
    settings
        The rise that is let pass, and the factor of a cut.
    log
        Written by the main process only.
    progress
        Told of cuts.
    """

    def __init__(self, settings: CalibrationMonitoring, log: MetricsLog, progress: Progress) -> None:
        self._settings = settings
        self._log = log
        self._progress = progress
        self._state = SteeringState()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Remember the evaluations before the checkpoint that is gone on from."""
        self._state = SteeringState()
        for entry in state.log_history:
            if "eval_ece" in entry:
                self._state = self._follow(entry).state

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float],
        optimizer: torch.optim.Optimizer,
        lr_scheduler: Any,
        **_: Any,
    ) -> None:
        """Cut the rate where the error has risen; after the last step there is nothing to cut."""
        best = self._state.best
        step = self._follow(metrics)
        self._state = step.state
        if not step.cut or state.global_step >= state.max_steps:
            return
        before = float(optimizer.param_groups[0]["lr"])
        scale_rates(optimizer, lr_scheduler, self._settings.lr_reduction_factor)
        after, ece = float(optimizer.param_groups[0]["lr"]), metrics["eval_ece"]
        if state.is_world_process_zero:
            values = {"from": before, "to": after, "ece": ece, "best_ece": best, "band": step.band}
            self._log.append("learning_rate_cut", {"step": state.global_step, "epoch": state.epoch, **values})
        self._progress.say(
            f"step {state.global_step}: the calibration error rose to {ece:.3f} from {best:.3f} at its best, "
            f"more than noise explains ({step.band:.3f}): the learning rate is multiplied by "
            f"{self._settings.lr_reduction_factor:g}, from {before:.3g} to {after:.3g}"
        )

    def _follow(self, metrics: Mapping[str, float]) -> SteeringStep:
        return steer(
            self._state,
            metrics["eval_ece"],
            metrics["eval_ece_noise"],
            self._settings.adjustment_threshold,
        )


# Where schedulers keep rates: those of torch that follow a function of the step; all; GreedyLR; and the
# bounds of those that wait for improvement.
_RATES = ("base_lrs", "_last_lr", "_init_lrs", "min_lrs", "max_lrs")


def scale_rates(optimizer: torch.optim.Optimizer, scheduler: Any, factor: float) -> None:
    """Multiply the learning rate of the next step, and those of all steps after it.

    Parameters
    ----------
    optimizer, scheduler
        Any optimiser of torch; any scheduler that transformers makes.  What they keep in their state
        dictionaries is scaled, so that a checkpoint has it.
    factor
        Positive.
    """
    for group in optimizer.param_groups:
        for name in ("lr", "initial_lr"):
            if name in group:
                group[name] = group[name] * factor
    for name in _RATES:
        if hasattr(scheduler, name):
            setattr(scheduler, name, [rate * factor for rate in getattr(scheduler, name)])
