"""Whether the rows of a training are run as token trees or padded, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from finetune.adapters.hf.batches import Batching, LengthGroupedSampler, PaddedBatches
from finetune.adapters.hf.checkpoints import BegunTraining
from finetune.adapters.hf.label_loss import LabelLoss
from finetune.adapters.hf.row_attention import attends_in_rows
from finetune.adapters.hf.tree_budget import COPIES_SHARE, MASK_SHARE
from finetune.adapters.hf.tree_gate import TreeChoice
from finetune.adapters.hf.tree_training import (
    TreeBatches,
    choose_tree_tokens,
    common_start,
    compare_work,
    kept_in_training,
)
from finetune.application.config import TrainingConfig
from finetune.application.ports import EncodedExample
from finetune.domain.errors import InvalidInput

# Steps on which operations are counted: as many as the sampler sorts by length at a time.
_SAMPLE = 16


@dataclass(frozen=True)
class TrainingPlan:
    """How rows are run, and why; ``tree_tokens`` is None where they are padded."""

    path: TreeChoice
    tree_tokens: int | None
    batching: Batching


def plan_training(
    model: PreTrainedModel,
    rows: Sequence[EncodedExample],
    order: LengthGroupedSampler,
    settings: TrainingConfig,
    *,
    allowed: TreeChoice,
    begun: BegunTraining | None,
    pad_id: int,
    world: int,
    labels: LabelLoss | None = None,
) -> TrainingPlan:
    """Plan a training.

    Parameters
    ----------
    model
        The model in training, on its device.
    rows, order
        All training rows, and the sampler of the steps.
    settings
        ``token_tree`` and ``tree_tokens``, batch size and checkpointing.
    allowed
        What the gate chose for the model.
    begun
        The interrupted training that is gone on with.
    pad_id
        The token that fills up padded batches.
    world
        The number of processes.
    labels
        An objective over the labels, whose tokens are then run too.

    Raises
    ------
    InvalidInput
        Trees are demanded, and the gate refuses them.
    """
    size = settings.per_device_batch_size
    path = choose_training_path(allowed, settings, begun)
    if path.path == "tree":
        longest = max(len(row.ids) for row in rows) + (0 if labels is None else labels.added)
        steps = [[rows[i] for i in step[::world]] for step in order.first_steps(_SAMPLE)]
        lengths = {"longest": longest, "shared": common_start(rows)}
        kept = kept_in_training(settings)
        in_rows = attends_in_rows(model)
        budget = choose_tree_tokens(model, settings, **lengths, in_rows=in_rows)
        work = compare_work(model, steps, budget, size, in_rows=in_rows, kept=kept, labels=labels)
        if settings.tree_tokens == "auto" and (
            work.mask_share > MASK_SHARE or work.copies_share > COPIES_SHARE
        ):
            # Rows that branch late, or many that are nearly all trunk.
            budget = min(budget, choose_tree_tokens(model, settings, **lengths, in_rows=False))
            work = compare_work(model, steps, budget, size, in_rows=in_rows, kept=kept, labels=labels)
        ratio = work.operations
        if settings.token_tree is True or ratio < 1.0:
            return TrainingPlan(path, budget, TreeBatches(budget, labels))
        reason = f"Batches are padded: as token trees these rows would take {ratio:.2f} times the operations."
        path = TreeChoice("padded", reason, path.difference)
    return TrainingPlan(path, None, PaddedBatches(model, size, pad_id, labels))


def choose_training_path(
    allowed: TreeChoice, settings: TrainingConfig, begun: BegunTraining | None = None
) -> TreeChoice:
    """Choose between trees and padded batches.

    Parameters
    ----------
    allowed
        What the gate chose for the model.
    settings
        ``token_tree``: ``auto`` does as the gate says, false pads, true demands trees.
    begun
        The interrupted training that is gone on with.  If it is padded, so is the rest of it.

    Raises
    ------
    InvalidInput
        Trees are demanded, and the gate refuses them.
    """
    if begun is not None and begun.path == "padded":
        return TreeChoice("padded", "Batches are padded: so was the training that is gone on with.")
    if settings.token_tree is False:
        return TreeChoice("padded", "Batches are padded: training.token_tree is false.")
    if settings.token_tree is True and allowed.path != "tree":
        raise InvalidInput(
            f"this model cannot be trained on token trees. {allowed.reason.removesuffix('.')}",
            where="training.token_tree",
            seen=True,
            remedy="set it to auto or false",
        )
    return allowed
