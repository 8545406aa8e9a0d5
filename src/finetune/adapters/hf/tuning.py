"""Tuning a LoRA adapter with transformers' Trainer, whatever the adapter sits on."""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from peft import PeftModel
from transformers import PrinterCallback, TrainerState, TrainingArguments

from finetune.adapters.hf.arguments import training_arguments
from finetune.adapters.hf.batches import Batching, LengthGroupedSampler
from finetune.adapters.hf.checkpoints import BegunTraining, latest_checkpoint, step_of
from finetune.adapters.hf.label_loss import LabelLoss
from finetune.adapters.hf.loading import choose_precision
from finetune.adapters.hf.monitor import CalibrationMonitor
from finetune.adapters.hf.objective import AnswerTrainer, Evaluation, counted_tokens
from finetune.adapters.hf.reporting import Reporting, Silence
from finetune.adapters.hf.stopping import MetricPatience, had_stopped_early
from finetune.adapters.hf.tracking import check_trackers, open_tensorboard, trackers_in
from finetune.adapters.hf.tree_gate import TreeChoice
from finetune.application.ports import (
    BEGUN,
    CHECKPOINTS,
    MetricsLog,
    Progress,
    TrainingJob,
    TrainingOutcome,
)


@dataclass(frozen=True)
class Setting:
    """What is known before a model is there.

    ``begun`` is the interrupted training that is gone on with, None for a new one.
    """

    job: TrainingJob
    arguments: TrainingArguments
    precision: str
    progress: Progress
    begun: BegunTraining | None


class Tunable(NamedTuple):
    """What a kind of model brings: everything about training that depends on it.

    Parameters
    ----------
    model
        With its adapter, on its device.
    rows
        The encoded training rows.
    order
        The sampler of the steps.
    batching
        How the rows of a step are run.
    path
        What to call that, and why it is so.
    tree_tokens
        The most tokens of a tree, where there are trees.
    evaluation
        Measures the model on the validation rows.
    adapted
        Adapted modules by name.
    weight, labels
        The share of the loss that an objective over the labels has, and that objective where padded forwards
        run its tokens apart.
    new_rate
        Learning rate of modules that are trained whole, relative to that of the adapter.
    """

    model: PeftModel
    rows: Sequence[Any]
    order: LengthGroupedSampler
    batching: Batching
    path: TreeChoice
    tree_tokens: int | None
    evaluation: Evaluation
    adapted: dict[str, int]
    weight: float = 0.0
    labels: LabelLoss | None = None
    new_rate: float = 1.0


def tune(
    job: TrainingJob, log: MetricsLog, progress: Progress, open_tunable: Callable[[Setting], Tunable]
) -> TrainingOutcome:
    """Train, or go on from the newest complete checkpoint; the best adapter is left in ``adapter/``.

    Parameters
    ----------
    job, log, progress
        As for :class:`finetune.application.ports.Trainer`.
    open_tunable
        Loads the model and encodes the rows.

    Raises
    ------
    InvalidInput
        The model, its target modules or the batch do not fit the configuration.
    IntegrityError
        The model's files are damaged, or a checkpoint that is needed is gone.
    MissingExtra
        A tracker that ``training.report_to`` names is not installed.
    """
    began = time.monotonic()
    settings = job.config.training
    check_trackers(settings.report_to)
    checkpoints = job.folder / CHECKPOINTS
    precision = choose_precision(settings.bf16)
    arguments = training_arguments(job, checkpoints, precision)
    main = arguments.process_index == 0
    progress = progress if main else Silence()
    machine: dict[str, Any] = {"processes": arguments.world_size, "precision": precision}
    with arguments.main_process_first(desc="choosing a checkpoint"):
        resume_from = begun = None
        if job.resume and (job.folder / BEGUN).is_file():
            begun = BegunTraining(job.folder / BEGUN)
            begun.check(machine)
            resume_from = latest_checkpoint(checkpoints, arguments.world_size)
        elif main:
            shutil.rmtree(checkpoints, ignore_errors=True)
    tunable = open_tunable(Setting(job, arguments, precision, progress, begun))
    model, path = tunable.model, tunable.path
    trainable, total = model.get_nb_trainable_parameters()
    progress.say(path.reason)
    if tunable.tree_tokens is not None:
        progress.say(f"a tree has at most {tunable.tree_tokens:,} tokens")
    machine |= {"path": path.path, "tree_tokens": tunable.tree_tokens}
    if begun is not None:
        begun.check(machine)
    # The adapter starts at zero, so this is the base model, also where a checkpoint is loaded below.
    first = dict(tunable.evaluation())
    if main:
        how = {"step": step_of(resume_from), **machine, "path_reason": path.reason}
        log.append("resumed" if resume_from else "started", {**how, **first})
    if resume_from is not None:
        progress.say(f"going on from step {step_of(resume_from)}")
    reporting = Reporting(log, progress, job.folder / BEGUN, {"identity": job.identity, "machine": machine})
    callbacks = [MetricPatience.configured(settings.early_stopping), reporting]
    if job.config.calibration_monitoring.enabled:
        callbacks.append(CalibrationMonitor(job.config.calibration_monitoring, log, progress))
    with trackers_in(job.folder, settings.report_to, name=job.config.name, main=main):
        trainer = AnswerTrainer(
            evaluation=tunable.evaluation,
            order=tunable.order,
            batching=tunable.batching,
            forward_rows=settings.per_device_batch_size,
            labels=tunable.labels,
            weight=tunable.weight,
            new_rate=tunable.new_rate,
            model=model,
            args=arguments,
            train_dataset=tunable.rows,
            callbacks=callbacks,
        )
        trainer.remove_callback(PrinterCallback)
        if resume_from and had_stopped_early(resume_from, settings.early_stopping):
            state = TrainerState.load_from_json(str(resume_from / "trainer_state.json"))
            model.load_adapter(str(checkpoints / f"checkpoint-{state.best_global_step}"), "default")
        else:
            if main and "tensorboard" in settings.report_to:
                trainer.add_callback(open_tensorboard(step_of(resume_from)))
            try:
                trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
            finally:
                reporting.close()
            state = trainer.state
    best_step = int(state.best_global_step or state.global_step)
    if state.best_global_step is None:
        progress.say(f"no evaluation measured {settings.early_stopping.metric}: the last adapter is kept")
    if main:
        _save_adapter(model, job.folder)
    trainer.accelerator.wait_for_everyone()
    tokens = counted_tokens(state)
    if path.path == "tree":
        progress.say(
            f"token trees: {tokens['computed_tokens']:,} of {tokens['padded_tokens']:,} padded tokens "
            "were computed"
        )
    return TrainingOutcome(
        steps=state.global_step,
        epochs=float(state.epoch or 0.0),
        best_step=best_step,
        best=_metrics_at(state, best_step),
        first=first,
        stopped_early=state.global_step < state.max_steps,
        trainable_parameters=trainable,
        total_parameters=total,
        adapted_modules=tunable.adapted,
        precision=precision,
        shortened_texts=sum(row.removed_chars > 0 for row in tunable.rows),
        seconds=time.monotonic() - began,
        versions=_versions(),
        main_process=main,
        path=path.path,
        path_reason=path.reason,
        tree_tokens=tunable.tree_tokens,
        **tokens,
    )


def _metrics_at(state: TrainerState, step: int) -> dict[str, float]:
    entry = next((e for e in state.log_history if e["step"] == step and "eval_log_loss" in e), {})
    return {k.removeprefix("eval_"): float(v) for k, v in entry.items() if k.startswith("eval_")}


def _save_adapter(model: PeftModel, folder: Path) -> None:
    """Put the adapter in its place in one step, so that a kill leaves the old one or the new one."""
    target, new, old = folder / "adapter", folder / ".adapter.new", folder / ".adapter.old"
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    model.save_pretrained(str(new), save_embedding_layers=False)
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _versions() -> dict[str, str]:
    packages = ("torch", "transformers", "peft", "accelerate", "safetensors", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
