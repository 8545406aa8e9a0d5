"""LoRA training of causal language models."""

from __future__ import annotations

from peft import LoraConfig, PeftModel, get_peft_model
from transformers import set_seed

from finetune.adapters.hf.architectures import assert_adapted, choose_target_modules, say_adapted
from finetune.adapters.hf.arguments import rows_per_step
from finetune.adapters.hf.batches import LengthGroupedSampler
from finetune.adapters.hf.checks import check_fits, open_scorer
from finetune.adapters.hf.encoder import HfEncoder
from finetune.adapters.hf.estimate import estimate_size
from finetune.adapters.hf.label_loss import LabelLoss
from finetune.adapters.hf.loading import ResolveModel, load_base, load_tokenizer, quiet
from finetune.adapters.hf.objectives import choose_objective
from finetune.adapters.hf.training_plan import plan_training
from finetune.adapters.hf.tuning import Setting, Tunable, tune
from finetune.adapters.hf.validation import ValidationMetrics
from finetune.application.balance import balance_rows
from finetune.application.config import ProjectConfig
from finetune.application.ports import (
    EncodedExample,
    MetricsLog,
    Progress,
    ProgressTask,
    TrainingJob,
    TrainingOutcome,
)
from finetune.application.training_metrics import measures_of


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
        return tune(job, log, progress, self._open)

    def _open(self, setting: Setting) -> Tunable:
        job, progress, settings = setting.job, setting.progress, setting.job.config.training
        progress.say(estimate_size(job.config, self._resolve, setting.precision).sentence())
        set_seed(settings.seed)
        tokenizer = load_tokenizer(job.config, self._resolve)
        encoder = HfEncoder(tokenizer, job.labels, job.prompt, settings.max_length)
        balance = balance_rows(job)
        with progress.task("encoding rows", len(job.train)) as task:
            rows = [
                _advanced(task, encoder.encode(example))._replace(weight=weight)
                for example, weight in zip(job.train, balance.weights, strict=True)
            ]
        model, targets = self._wrap(job.config, setting.precision)
        counts = assert_adapted(model, targets)
        say_adapted(progress, setting.precision, counts, job.config)
        model.to(setting.arguments.device)
        check_fits(model, encoder)
        scorer = open_scorer(model, encoder, job.config.prediction)
        lengths = [len(row.ids) for row in rows]
        order = LengthGroupedSampler(lengths, rows_per_step(setting.arguments), settings.seed, balance.shares)
        weight, objective = choose_objective(job)
        labels = LabelLoss(encoder.label_paths, objective) if weight else None
        plan = plan_training(
            model,
            rows,
            order,
            settings,
            allowed=scorer.path,
            begun=setting.begun,
            pad_id=encoder.pad_id,
            world=setting.arguments.world_size,
            labels=labels,
        )
        if labels is not None:
            progress.say(_labels_sentence(job, weight, labels, plan.path.path))
        return Tunable(
            model,
            rows,
            order,
            plan.batching,
            plan.path,
            plan.tree_tokens,
            ValidationMetrics(
                scorer,
                encoder,
                job.labels,
                job.validation,
                settings.json_samples,
                measures_of(job.config),
            ),
            counts,
            weight=weight,
            labels=labels,
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


def _labels_sentence(job: TrainingJob, weight: float, labels: LabelLoss, path: str) -> str:
    """Say what part of the loss is of the labels, and what running them takes."""
    name, count = job.config.chosen_objective.name.replace("_", " "), len(job.labels.outcomes)
    said = f"{weight:.0%} of the loss is {name} of the probabilities of all {count} outcomes"
    if path == "tree":
        return f"{said}, up to {labels.added} tokens more for each row"
    return f"{said}, which padded batches run apart; objective.weight: 0 leaves cross-entropy to the answer"
