"""LoRA training with transformers' Trainer and peft."""

from __future__ import annotations

import json
import math
import platform
import shutil
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from finetune.adapters.hf.architectures import assert_adapted, choose_target_modules
from finetune.adapters.hf.batches import AnswerCollator, EncodedRows, LengthGroupedSampler
from finetune.adapters.hf.checkpoints import had_stopped_early, latest_checkpoint
from finetune.adapters.hf.checks import check_fits, check_scoring
from finetune.adapters.hf.encoder import HfEncoder
from finetune.adapters.hf.estimate import estimate_size
from finetune.adapters.hf.loading import (
    ResolveModel,
    choose_device,
    choose_precision,
    load_base,
    load_tokenizer,
    quiet,
)
from finetune.adapters.hf.objective import AnswerTrainer
from finetune.adapters.hf.reporting import Reporting, Silence
from finetune.adapters.hf.scorer import CausalLabelScorer
from finetune.adapters.hf.validation import ValidationMetrics
from finetune.application.config import ProjectConfig
from finetune.application.ports import (
    BEGUN,
    CHECKPOINTS,
    EncodedExample,
    MetricsLog,
    Progress,
    ProgressTask,
    TrainingJob,
    TrainingOutcome,
)
from finetune.domain.errors import IntegrityError, InvalidInput


class HfTrainer:
    """Tunes a LoRA adapter; checkpoints, early stopping and exact resume come from the Trainer.

    Parameters
    ----------
    resolve
        Turns a model id into what transformers loads (a folder, or the id itself).
    """

    def __init__(self, resolve: ResolveModel) -> None:
        self._resolve = resolve

    def train(self, job: TrainingJob, log: MetricsLog, progress: Progress) -> TrainingOutcome:
        """Train, or go on from the newest complete checkpoint; the best adapter is left in ``adapter/``.

        Raises
        ------
        InvalidInput
            The model, its target modules or the batch do not fit the configuration.
        IntegrityError
            The model's files are damaged, or a checkpoint that is needed is gone.
        """
        began = time.monotonic()
        settings = job.config.training
        checkpoints = job.folder / CHECKPOINTS
        precision = choose_precision(settings.bf16)
        arguments = _arguments(job, checkpoints, precision)
        main = arguments.process_index == 0
        progress = progress if main else Silence()
        _one_process_per_gpu(arguments)
        machine = {"processes": arguments.world_size, "precision": precision}
        with arguments.main_process_first(desc="choosing a checkpoint"):
            resume_from = None
            if job.resume and (job.folder / BEGUN).is_file():
                _same_machine(job.folder / BEGUN, machine)
                resume_from = latest_checkpoint(checkpoints, arguments.world_size)
            elif main:
                shutil.rmtree(checkpoints, ignore_errors=True)
        progress.say(estimate_size(job.config, self._resolve, precision).sentence())
        set_seed(settings.seed)
        tokenizer = load_tokenizer(job.config, self._resolve)
        encoder = HfEncoder(tokenizer, job.labels, job.prompt, settings.max_length)
        with progress.task("encoding rows", len(job.train)) as task:
            rows = [_advanced(task, encoder.encode(example)) for example in job.train]
        model, targets = self._wrap(job.config, precision)
        counts = assert_adapted(model, targets)
        trainable, total = model.get_nb_trainable_parameters()
        adapted = ", ".join(f"{count} {name}" for name, count in counts.items())
        progress.say(f"adapting in {precision}: {adapted}")
        if job.config.trust_remote_code:
            progress.say("trust_remote_code is on: code from the model's repository is being run")
        model.to(arguments.device)
        check_fits(model, encoder)
        scorer = CausalLabelScorer(model, encoder, job.config.prediction.batch_size)
        check_scoring(scorer)
        validation = ValidationMetrics(scorer, encoder, job.labels, job.validation, settings.json_samples)
        # The adapter starts at zero, so this is the base model, also where a checkpoint is loaded below.
        first = dict(validation())
        if main:
            log.append("resumed" if resume_from else "started", {"step": _step(resume_from), **first})
        if resume_from is not None:
            progress.say(f"going on from step {_step(resume_from)}")
        per_step = settings.per_device_batch_size * settings.gradient_accumulation_steps
        trainer = AnswerTrainer(
            evaluation=validation,
            order=LengthGroupedSampler(
                [len(row.ids) for row in rows], per_step * arguments.world_size, settings.seed
            ),
            model=model,
            args=arguments,
            train_dataset=EncodedRows(rows),
            data_collator=AnswerCollator(encoder.pad_id),
        )
        trainer.remove_callback(PrinterCallback)
        if settings.early_stopping.enabled:
            trainer.add_callback(
                EarlyStoppingCallback(settings.early_stopping.patience, settings.early_stopping.min_delta)
            )
        begun = {"identity": job.identity, "machine": machine}
        reporting = Reporting(log, progress, job.folder / BEGUN, begun)
        trainer.add_callback(reporting)
        stopping = settings.early_stopping
        if resume_from and stopping.enabled and had_stopped_early(resume_from, stopping.patience):
            state = TrainerState.load_from_json(str(resume_from / "trainer_state.json"))
            model.load_adapter(str(checkpoints / f"checkpoint-{state.best_global_step}"), "default")
        else:
            try:
                trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
            finally:
                reporting.close()
            state = trainer.state
        if main:
            _save_adapter(model, job.folder)
        trainer.accelerator.wait_for_everyone()
        return TrainingOutcome(
            steps=state.global_step,
            epochs=float(state.epoch or 0.0),
            best_step=int(state.best_global_step or state.global_step),
            best=_metrics_at(state, state.best_global_step),
            first=first,
            stopped_early=state.global_step < state.max_steps,
            trainable_parameters=trainable,
            total_parameters=total,
            adapted_modules=counts,
            precision=precision,
            shortened_texts=sum(row.removed_chars > 0 for row in rows),
            seconds=time.monotonic() - began,
            versions=_versions(),
            main_process=main,
        )

    def _wrap(self, config: ProjectConfig, precision: str) -> tuple[PeftModel, list[str]]:
        base = load_base(config, self._resolve, precision)
        targets = choose_target_modules(base, config.target_modules)
        if config.training.gradient_checkpointing:
            # Without this no gradient flows into checkpointed blocks: the embeddings are frozen.
            base.enable_input_require_grads()
        lora = LoraConfig(
            r=config.lora.r,
            lora_alpha=config.lora.alpha,
            lora_dropout=config.lora.dropout,
            target_modules=targets,
            task_type="CAUSAL_LM",
        )
        with quiet():
            return get_peft_model(base, lora), targets


def _arguments(job: TrainingJob, checkpoints: Path, precision: str) -> TrainingArguments:
    settings = job.config.training
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        per_device_train_batch_size=settings.per_device_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.lr_scheduler,
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        bf16=precision == "bf16",
        activation_checkpointing=settings.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if settings.gradient_checkpointing else None,
        eval_strategy="steps",
        save_strategy="steps",
        logging_steps=settings.logging_steps,
        save_total_limit=settings.save_total_limit,
        load_best_model_at_end=True,
        metric_for_best_model="eval_log_loss",
        greater_is_better=False,
        restore_callback_states_from_checkpoint=True,
        remove_unused_columns=False,
        logging_nan_inf_filter=False,
        use_cpu=choose_device().type == "cpu",
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
        report_to="none",
        log_level="error",
        seed=settings.seed,
        data_seed=settings.seed,
    )
    rows_per_step = (
        settings.per_device_batch_size * settings.gradient_accumulation_steps * arguments.world_size
    )
    per_epoch = math.ceil(len(job.train) / rows_per_step)
    total = settings.max_steps or math.ceil(settings.epochs * per_epoch)
    arguments.eval_steps = arguments.save_steps = max(
        1, min(total, per_epoch // settings.evaluations_per_epoch)
    )
    return arguments


def _advanced(task: ProgressTask, row: EncodedExample) -> EncodedExample:
    task.advance()
    return row


def _one_process_per_gpu(arguments: TrainingArguments) -> None:
    if arguments.n_gpu > 1:
        raise InvalidInput(
            f"{arguments.n_gpu} GPUs are visible to one process",
            remedy="start one process for each with `accelerate launch -m finetune train`, or show this "
            "one a single GPU with CUDA_VISIBLE_DEVICES=0",
        )


def _same_machine(begun: Path, machine: Mapping[str, Any]) -> None:
    """Check that a training is resumed as it was begun: elsewhere it would end with other weights."""
    before = json.loads(begun.read_text(encoding="utf-8"))["machine"]
    if before != machine:
        raise IntegrityError(
            "the interrupted training ran with another number of processes or another precision",
            where=str(begun),
            seen=machine,
            remedy=f"resume it with {before}, or delete this folder to begin again",
        )


def _step(checkpoint: Path | None) -> int:
    return 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])


def _metrics_at(state: TrainerState, step: int | None) -> dict[str, float]:
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
