"""One step of a training as the Trainer runs it, to be compared with a plain loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel, TrainingArguments

from finetune.adapters.hf.batches import LengthGroupedSampler
from finetune.adapters.hf.loading import quiet
from finetune.adapters.hf.objective import AnswerTrainer
from finetune.application.ports import EncodedExample


class Step(NamedTuple):
    """What a step left behind, and what it was given."""

    loss: float
    gradients: dict[str, torch.Tensor]
    trainer: AnswerTrainer
    given: dict[str, Any]


def with_adapter(base: PreTrainedModel, targets: str | list[str] = "all-linear") -> PeftModel:
    """Add an adapter that is not at zero, where half of the gradients would vanish."""
    with quiet():
        wrapped = get_peft_model(base, LoraConfig(r=4, lora_dropout=0.0, target_modules=targets))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return wrapped


def run_step(
    model: PeftModel, batching: Any, rows: list[EncodedExample], folder: Path, **options: Any
) -> Step:
    """Run one optimiser step's forwards and backwards, of all rows."""
    trainer = AnswerTrainer(
        evaluation=dict,
        order=LengthGroupedSampler([len(row.ids) for row in rows], len(rows), 0),
        batching=batching,
        forward_rows=2,
        model=model,
        args=TrainingArguments(str(folder), report_to="none", use_cpu=True),
        train_dataset=rows,
        **options,
    )
    (given,) = trainer.get_train_dataloader()
    loss = trainer.training_step(model, given).item()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    return Step(loss, gradients, trainer, given)


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float) -> None:
    """Compare gradients, each with the greatest of its tensor."""
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        size = expected[name].abs().max()
        assert size > 0, name
        assert (gradient - expected[name]).abs().max() / size <= tolerance, name
