"""A training's configuration in the words of transformers."""

from __future__ import annotations

import math
from pathlib import Path

from transformers import TrainingArguments

from finetune.adapters.hf.loading import choose_device
from finetune.application.metric_choice import greater_is_better
from finetune.application.ports import TrainingJob
from finetune.domain.errors import InvalidInput


def training_arguments(job: TrainingJob, checkpoints: Path, precision: str) -> TrainingArguments:
    """Return the arguments of the Trainer.

    Raises
    ------
    InvalidInput
        One process sees several GPUs.
    """
    settings = job.config.training
    metric = settings.early_stopping.metric
    more_is_better = greater_is_better(metric)
    waits = settings.lr_scheduler == "reduce_lr_on_plateau"
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        run_name=job.config.name,
        # The Trainer sees whole steps: AnswerTrainer.training_step divides them into forwards.
        per_device_train_batch_size=settings.per_device_batch_size * settings.gradient_accumulation_steps,
        gradient_accumulation_steps=1,
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.lr_scheduler,
        # It follows the metric below, and would take any for a loss.
        lr_scheduler_kwargs={"mode": "max"} if waits and more_is_better else None,
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
        metric_for_best_model=f"eval_{metric}",
        greater_is_better=more_is_better,
        restore_callback_states_from_checkpoint=True,
        remove_unused_columns=False,
        logging_nan_inf_filter=False,
        use_cpu=choose_device().type == "cpu",
        ddp_find_unused_parameters=False,
        disable_tqdm=True,
        # TensorBoard is opened apart, to go on from a step.
        report_to=[name for name in settings.report_to if name != "tensorboard"],
        log_level="error",
        seed=settings.seed,
        data_seed=settings.seed,
    )
    if arguments.n_gpu > 1:
        raise InvalidInput(
            f"{arguments.n_gpu} GPUs are visible to one process",
            remedy="start one process for each with `accelerate launch -m finetune train`, or show this "
            "one a single GPU with CUDA_VISIBLE_DEVICES=0",
        )
    per_epoch = math.ceil(len(job.train) / rows_per_step(arguments))
    total = settings.max_steps or math.ceil(settings.epochs * per_epoch)
    arguments.eval_steps = arguments.save_steps = max(
        1, min(total, per_epoch // settings.evaluations_per_epoch)
    )
    return arguments


def rows_per_step(arguments: TrainingArguments) -> int:
    """Return how many rows one optimiser step has, over all processes."""
    return arguments.per_device_train_batch_size * arguments.world_size
