"""Training of encoders with a classification head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn.functional import log_softmax, nll_loss
from transformers import set_seed

from finetune.adapters.hf.architectures import assert_adapted, choose_target_modules, say_adapted
from finetune.adapters.hf.arguments import rows_per_step
from finetune.adapters.hf.batches import LengthGroupedSampler
from finetune.adapters.hf.classifier_model import (
    HEAD,
    ClassifiedText,
    Pooled,
    PooledClassifier,
    TextEncoder,
    load_classifier,
    load_text_encoder,
    positions_of,
)
from finetune.adapters.hf.classifier_scorer import NOTICE, ClassifierScorer
from finetune.adapters.hf.label_loss import Loss
from finetune.adapters.hf.loading import ResolveModel, quiet
from finetune.adapters.hf.objectives import Objective, choose_objective
from finetune.adapters.hf.prototypes import begin_at_prototypes
from finetune.adapters.hf.tree_gate import TreeChoice
from finetune.adapters.hf.tuning import Setting, Tunable, tune
from finetune.adapters.hf.validation import score_shared
from finetune.application.balance import balance_rows
from finetune.application.config import ProjectConfig
from finetune.application.ports import MetricsLog, Progress, TrainingJob, TrainingOutcome
from finetune.application.training_metrics import measures_of
from finetune.domain.errors import InvalidInput


@dataclass(frozen=True)
class ClassifierBatch:
    """A rectangle of texts with their labels, and what each row counts."""

    inputs: Pooled
    labels: torch.Tensor
    weights: torch.Tensor

    @property
    def tokens(self) -> int:
        """Tokens of the rectangle."""
        return self.inputs.input_ids.numel()


class ClassifierBatches:
    """Rectangles of texts.

    Parameters
    ----------
    encoder
        Pads them.
    size
        Rows of one forward.
    device
        Where the model is.
    objective
        What is asked of the probabilities of the labels.
    consistency
        Weight of the distance between what two draws of dropout make of a text, added to the objective; each
        text is run twice where it is above 0.

    References
    ----------
    Liang, X. et al. (2021). R-Drop: regularized dropout for neural networks. NeurIPS, eq. 4.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        size: int,
        device: torch.device,
        objective: Objective,
        consistency: float = 0.0,
    ) -> None:
        self._objective = objective
        self._consistency = consistency
        self._encoder = encoder
        self._size = size
        self._device = device

    def divide(self, rows: Sequence[ClassifiedText]) -> list[ClassifierBatch]:
        """Return rectangles of ``size`` rows, in the order of the rows."""
        parts = [rows[i : i + self._size] for i in range(0, len(rows), self._size)]
        return [
            ClassifierBatch(
                self._encoder.pad([row.ids for row in part], self._device),
                torch.tensor([row.label for row in part], device=self._device),
                torch.tensor([row.weight for row in part], device=self._device),
            )
            for part in parts
        ]

    def loss(self, model: torch.nn.Module, batch: ClassifierBatch) -> Loss:
        """Run a rectangle; return the cross-entropies of its labels and their objective."""
        draws = [
            log_softmax(model(**batch.inputs._asdict()), dim=-1) for _ in range(2 if self._consistency else 1)
        ]
        answers = sum(nll_loss(found, batch.labels, reduction="none") for found in draws) / len(draws)
        objective = sum(self._objective(found, batch.labels) for found in draws) / len(draws)
        if self._consistency:
            one, other = draws
            # The mean of both Kullback-Leibler divergences.
            apart = 0.5 * ((one.exp() - other.exp()) * (one - other)).sum(dim=1)
            objective = objective + self._consistency * apart
        return Loss((answers * batch.weights).sum(), (objective * batch.weights).sum())


class ClassifierTrainer:
    """Tunes a LoRA adapter and a new head; checkpoints, early stopping and resume as for causal models.

    Parameters
    ----------
    resolve
        Turns a model id into what transformers loads.
    """

    def __init__(self, resolve: ResolveModel) -> None:
        self._resolve = resolve

    def train(self, job: TrainingJob, log: MetricsLog, progress: Progress) -> TrainingOutcome:
        """Train, or go on from a checkpoint: see :func:`~finetune.adapters.hf.tuning.tune`."""
        return tune(job, log, progress, self._open)

    def _open(self, setting: Setting) -> Tunable:
        job, progress, settings = setting.job, setting.progress, setting.job.config.training
        if settings.token_tree is True:
            raise InvalidInput(
                "an encoder reads a text as a whole and cannot run token trees",
                where="training.token_tree",
                seen=True,
                remedy="set it to auto or false",
            )
        set_seed(settings.seed)
        base = load_classifier(job.config, self._resolve, len(job.labels.outcomes), setting.precision)
        encoder = load_text_encoder(job.config, self._resolve, positions_of(base.config))
        balance = balance_rows(job)
        rows = []
        with progress.task("encoding rows", len(job.train)) as task:
            for example, weight in zip(job.train, balance.weights, strict=True):
                ids, removed = encoder.ids(example.text)
                label = job.labels.index(str(example.label))
                rows.append(ClassifiedText(tuple(ids), len(ids) - 1, removed, label, weight))
                task.advance()
        device = setting.arguments.device
        base.to(device)
        if job.config.encoder.head_start == "prototypes":
            begin_at_prototypes(base, encoder, rows, job.config.prediction.batch_size)
        model, targets = _wrap(base, job.config)
        counts = assert_adapted(model, targets)
        say_adapted(progress, setting.precision, counts, job.config)
        model.to(device)
        scorer = ClassifierScorer(model, encoder, job.labels.outcomes, job.config.prediction.batch_size)
        truth = np.array([job.labels.index(str(row.label)) for row in job.validation], dtype=np.int64)
        weight, objective = choose_objective(job)
        measures = measures_of(job.config)
        return Tunable(
            model,
            rows,
            LengthGroupedSampler(
                [len(row.ids) for row in rows],
                rows_per_step(setting.arguments),
                settings.seed,
                balance.shares,
            ),
            ClassifierBatches(
                encoder,
                settings.per_device_batch_size,
                device,
                objective,
                job.config.encoder.consistency,
            ),
            TreeChoice("padded", NOTICE),
            None,
            lambda: measures(score_shared(scorer, job.validation), truth),
            counts,
            weight=weight,
            new_rate=job.config.encoder.head_rate,
        )


def _wrap(base: PooledClassifier, config: ProjectConfig) -> tuple[PeftModel, list[str]]:
    targets = choose_target_modules(base.encoder, config.target_modules)
    if config.training.gradient_checkpointing:
        base.encoder.enable_input_require_grads()
    lora = LoraConfig(
        r=config.lora.r,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=targets,
        modules_to_save=[HEAD],
    )
    with quiet():
        return get_peft_model(base, lora), targets
