"""LoRA training with transformers' Trainer and peft."""

from __future__ import annotations

import platform
import shutil
import time
from importlib.metadata import version
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    TrainerState,
    set_seed,
)

from finetune.adapters.hf.architectures import assert_adapted, choose_target_modules
from finetune.adapters.hf.arguments import rows_per_step, training_arguments
from finetune.adapters.hf.batches import LengthGroupedSampler
from finetune.adapters.hf.checkpoints import BegunTraining, had_stopped_early, latest_checkpoint, step_of
from finetune.adapters.hf.checks import check_fits, open_scorer
from finetune.adapters.hf.encoder import HfEncoder
from finetune.adapters.hf.estimate import estimate_size
from finetune.adapters.hf.loading import (
    ResolveModel,
    choose_precision,
    load_base,
    load_tokenizer,
    quiet,
)
from finetune.adapters.hf.objective import AnswerTrainer, counted_tokens
from finetune.adapters.hf.reporting import Reporting, Silence
from finetune.adapters.hf.training_plan import plan_training
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
        arguments = training_arguments(job, checkpoints, precision)
        main = arguments.process_index == 0
        progress = progress if main else Silence()
        machine = {"processes": arguments.world_size, "precision": precision}
        with arguments.main_process_first(desc="choosing a checkpoint"):
            resume_from = begun = None
            if job.resume and (job.folder / BEGUN).is_file():
                begun = BegunTraining(job.folder / BEGUN)
                begun.check(machine)
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
        scorer = open_scorer(model, encoder, job.config.prediction)
        lengths = [len(row.ids) for row in rows]
        order = LengthGroupedSampler(lengths, rows_per_step(arguments), settings.seed)
        plan = plan_training(
            model,
            rows,
            order,
            settings,
            allowed=scorer.path,
            begun=begun,
            pad_id=encoder.pad_id,
            world=arguments.world_size,
        )
        progress.say(plan.path.reason)
        if plan.tree_tokens is not None:
            progress.say(f"a tree has at most {plan.tree_tokens:,} tokens")
        machine |= {"path": plan.path.path, "tree_tokens": plan.tree_tokens}
        if begun is not None:
            begun.check(machine)
        validation = ValidationMetrics(scorer, encoder, job.labels, job.validation, settings.json_samples)
        # The adapter starts at zero, so this is the base model, also where a checkpoint is loaded below.
        first = dict(validation())
        if main:
            how = {"step": step_of(resume_from), **machine, "path_reason": plan.path.reason}
            log.append("resumed" if resume_from else "started", {**how, **first})
        if resume_from is not None:
            progress.say(f"going on from step {step_of(resume_from)}")
        trainer = AnswerTrainer(
            evaluation=validation,
            order=order,
            batching=plan.batching,
            forward_rows=settings.per_device_batch_size,
            model=model,
            args=arguments,
            train_dataset=rows,
        )
        trainer.remove_callback(PrinterCallback)
        if settings.early_stopping.enabled:
            trainer.add_callback(
                EarlyStoppingCallback(settings.early_stopping.patience, settings.early_stopping.min_delta)
            )
        reporting = Reporting(
            log, progress, job.folder / BEGUN, {"identity": job.identity, "machine": machine}
        )
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
        tokens = counted_tokens(state)
        if plan.path.path == "tree":
            progress.say(
                f"token trees: {tokens['computed_tokens']:,} of {tokens['padded_tokens']:,} padded tokens "
                "were computed"
            )
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
            path=plan.path.path,
            path_reason=plan.path.reason,
            tree_tokens=plan.tree_tokens,
            **tokens,
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


def _advanced(task: ProgressTask, row: EncodedExample) -> EncodedExample:
    task.advance()
    return row


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
