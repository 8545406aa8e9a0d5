"""Training of encoders with a classification head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import set_seed

from finetune.adapters.hf.architectures import assert_adapted, choose_target_modules, say_adapted
from finetune.adapters.hf.arguments import rows_per_step
from finetune.adapters.hf.batches import LengthGroupedSampler
from finetune.adapters.hf.classifier_model import (
    HEAD,
    ClassifiedText,
    Pooled,
    TextEncoder,
    load_classifier,
    load_text_encoder,
    positions_of,
)
from finetune.adapters.hf.classifier_scorer import NOTICE, ClassifierScorer
from finetune.adapters.hf.loading import ResolveModel, quiet
from finetune.adapters.hf.tree_gate import TreeChoice
from finetune.adapters.hf.tuning import Setting, Tunable, tune
from finetune.adapters.hf.validation import score_shared
from finetune.application.ports import MetricsLog, Progress, TrainingJob, TrainingOutcome
from finetune.application.training_metrics import measure_validation
from finetune.domain.errors import InvalidInput


@dataclass(frozen=True)
class ClassifierBatch:
    """A rectangle of texts with their labels; ``weights`` is 0 for a row that only fills a step."""

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
    label_smoothing
        Share of each target that is spread evenly over all labels (Szegedy, C. et al. 2016, "Rethinking the
        Inception Architecture", CVPR, sec. 7).
    """

    def __init__(
        self, encoder: TextEncoder, size: int, device: torch.device, label_smoothing: float = 0.0
    ) -> None:
        self._smoothing = label_smoothing
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
                torch.tensor([float(len(row.ids) - row.answer_start) for row in part], device=self._device),
            )
            for part in parts
        ]

    def loss(self, model: torch.nn.Module, batch: ClassifierBatch) -> torch.Tensor:
        """Run a rectangle; return the sum of the cross-entropies of its labels."""
        logits = model(**batch.inputs._asdict())
        losses = cross_entropy(logits, batch.labels, reduction="none", label_smoothing=self._smoothing)
        return (losses * batch.weights).sum()


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
        model, targets = self._wrap(job, setting.precision)
        encoder = load_text_encoder(job.config, self._resolve, positions_of(model.config))
        rows = []
        with progress.task("encoding rows", len(job.train)) as task:
            for example in job.train:
                ids, removed = encoder.ids(example.text)
                label = job.labels.index(str(example.label))
                rows.append(ClassifiedText(tuple(ids), len(ids) - 1, removed, label))
                task.advance()
        counts = assert_adapted(model, targets)
        say_adapted(progress, setting.precision, counts, job.config)
        device = setting.arguments.device
        model.to(device)
        scorer = ClassifierScorer(model, encoder, job.labels.outcomes, job.config.prediction.batch_size)
        truth = np.array([job.labels.index(str(row.label)) for row in job.validation], dtype=np.int64)
        return Tunable(
            model,
            rows,
            LengthGroupedSampler(
                [len(row.ids) for row in rows], rows_per_step(setting.arguments), settings.seed
            ),
            ClassifierBatches(
                encoder, settings.per_device_batch_size, device, job.config.encoder.label_smoothing
            ),
            TreeChoice("padded", NOTICE),
            None,
            lambda: measure_validation(score_shared(scorer, job.validation), truth),
            counts,
        )

    def _wrap(self, job: TrainingJob, precision: str) -> tuple[PeftModel, list[str]]:
        config = job.config
        base = load_classifier(config, self._resolve, len(job.labels.outcomes), precision)
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
