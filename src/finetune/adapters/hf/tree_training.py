"""Training rows as token trees: what is run, how large a tree may be, and what that saves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel

from finetune.adapters.hf.batches import padded_shapes
from finetune.adapters.hf.label_loss import LabelLoss, Loss, path_scores
from finetune.adapters.hf.tree_budget import MASK_SHARE, Kept, active_weights, kept_bytes, token_budget
from finetune.adapters.hf.trees import tree_edges, tree_loss, weighted_loss
from finetune.application.config import TrainingConfig
from finetune.application.ports import EncodedExample
from finetune.domain.checks import FloatArray, IntArray
from finetune.domain.token_tree import Targets, TokenTree, target_counts
from finetune.domain.tree_batches import pack, shared_length
from finetune.domain.tree_rows import lay_out


class LabelNodes(NamedTuple):
    """The labels of the B rows of a tree.

    Parameters
    ----------
    nodes
        ``(E,)``, ascending: all nodes on their paths.
    places
        Which of these each path has, ``(B, K, L)``, -1 behind its end.
    truth, weights
        Right label and weight of each row, ``(B,)``.
    """

    nodes: IntArray
    places: IntArray
    truth: IntArray
    weights: FloatArray


@dataclass(frozen=True)
class TreeBatch:
    """A token tree, and which of its nodes carry a loss how often.

    ``labels`` is there where an objective looks at the labels.
    """

    tree: TokenTree
    targets: Targets
    labels: LabelNodes | None = None

    @property
    def tokens(self) -> int:
        """Nodes of the tree."""
        return len(self.tree)


class TreeBatches:
    """Token trees: what rows have in common from their beginning is computed once.

    Parameters
    ----------
    budget
        The most tokens of a tree; a row that is longer is a tree of its own.
    labels
        An objective over the labels, whose paths are then in the trees too; None where there is none.
    """

    def __init__(self, budget: int, labels: LabelLoss | None = None) -> None:
        self._budget = budget
        self._labels = labels

    def divide(self, rows: Sequence[EncodedExample]) -> list[TreeBatch]:
        """Return as few trees as the rows fit into."""
        added = 0 if self._labels is None else self._labels.added
        trees = pack([row.ids for row in rows], self._budget, added)
        return [self._plant([rows[i] for i in tree]) for tree in trees]

    def loss(self, model: torch.nn.Module, batch: TreeBatch) -> Loss:
        """Run a tree once; return the losses of its rows."""
        targets, labels = batch.targets, batch.labels
        if self._labels is None or labels is None:
            return Loss(tree_loss(model, batch.tree, targets))
        nodes = np.union1d(targets.nodes, labels.nodes)
        edges = tree_edges(model, batch.tree, nodes)
        device = edges.device
        answers, paths = (
            edges[torch.from_numpy(np.searchsorted(nodes, part)).to(device)]
            for part in (targets.nodes, labels.nodes)
        )
        total = self._labels.total(
            path_scores(paths, labels.places),
            torch.from_numpy(labels.truth).to(device),
            torch.from_numpy(labels.weights).to(device, edges.dtype),
        )
        return Loss(weighted_loss(answers, targets), total)

    def _plant(self, rows: Sequence[EncodedExample]) -> TreeBatch:
        tree = TokenTree()
        paths = [tree.add(row.ids) for row in rows]
        weights = [row.weight for row in rows]
        targets = target_counts(
            paths,
            [row.answer_start for row in rows],
            # Whole numbers where they will do.
            None if set(weights) == {1.0} else weights,
        )
        if self._labels is None:
            return TreeBatch(tree, targets)
        table = np.full((len(rows), *self._labels.tokens.shape), -1, dtype=np.int64)
        for i, (row, path) in enumerate(zip(rows, paths, strict=True)):
            end = int(path[row.label_start - 1])
            for k, label in enumerate(self._labels.paths):
                table[i, k, : len(label)] = tree.add(label, start=end)
        nodes = np.unique(table[table >= 0])
        places = np.where(table < 0, -1, np.searchsorted(nodes, table))
        truth = self._labels.truth(rows)
        return TreeBatch(tree, targets, LabelNodes(nodes, places, truth, np.array(weights)))


def choose_tree_tokens(
    model: PreTrainedModel, settings: TrainingConfig, *, longest: int, shared: int, in_rows: bool
) -> int:
    """Return the most tokens that a tree of training rows has.

    Parameters
    ----------
    model
        The model, on any device (the meta device too).
    settings
        ``tree_tokens``: the number itself, or ``auto``.
    longest, shared
        Tokens of the longest row, and those that all rows begin with.  ``auto`` grows with both.
    in_rows
        Whether the model attends to trees in rows, or with one mask for each tree.

    Returns
    -------
    int
        For ``auto`` as many tokens as a padded forward of ``per_device_batch_size`` rows has, so that a tree
        takes no more memory than that, its masks and copies of keys and values aside.  With one mask for the
        tree, or rows so long that theirs would take more than a tenth of what is kept of the tree, no more
        than :func:`~finetune.adapters.hf.tree_budget.token_budget` says.
    """
    if settings.tree_tokens != "auto":
        return max(settings.tree_tokens, longest)
    kept = kept_in_training(settings)
    most = settings.per_device_batch_size * longest
    width = model.get_input_embeddings().weight.element_size()
    if in_rows and (width + 1) * longest <= MASK_SHARE * kept_bytes(model, kept):
        return most
    return min(most, token_budget(model, longest=longest, shared=shared, kept=kept))


def kept_in_training(settings: TrainingConfig) -> Kept:
    """Return what is kept of each token for the backward pass."""
    return "checkpoints" if settings.gradient_checkpointing else "activations"


class Work(NamedTuple):
    """What token trees cost on some steps.

    Parameters
    ----------
    operations
        For each that padded batches take.
    mask_share
        Memory of a tree's masks, relative to what is kept of the tree; the largest.
    copies_share
        That of the copies of keys and values for its rows, in the layers that are kept.
    """

    operations: float
    mask_share: float
    copies_share: float


def compare_work(
    model: PreTrainedModel,
    steps: Sequence[Sequence[EncodedExample]],
    budget: int,
    size: int,
    *,
    in_rows: bool,
    kept: Kept = "activations",
    labels: LabelLoss | None = None,
) -> Work:
    """Count what token trees cost beside padded batches.

    Operations are those of linear layers, which cost the same for every token, and of attention, which grow
    with the pairs of tokens that it computes: rows that share little may be cheaper apart.

    Parameters
    ----------
    model
        The model, on any device.
    steps
        The rows of some optimiser steps, each of one process.
    budget
        The most tokens of a tree.
    size
        Rows of a padded forward.
    in_rows
        Whether the model attends to trees in rows, or with one mask for each tree.
    kept
        What is kept of each token for the backward pass, see
        :func:`~finetune.adapters.hf.tree_budget.token_budget`.
    labels
        An objective over the labels, whose tokens are then run too, with either.
    """
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    attention = 4 * heads * head_size * config.num_hidden_layers
    linear = 2 * active_weights(model)
    batching = TreeBatches(budget, labels)
    trees = [batch.tree for rows in steps for batch in batching.divide(rows)]
    laid_out = [lay_out(tree, np.arange(len(tree))) for tree in trees] if in_rows else []
    pairs = [rows.pairs for rows in laid_out] if in_rows else [len(tree) ** 2 for tree in trees]
    copies = [rows.copies for rows in laid_out] if in_rows else [0] * len(trees)
    padded = sum(
        linear * count * longest + attention * count * longest**2
        for rows in steps
        for block in (rows[i : i + size] for i in range(0, len(rows), size))
        for count, longest in padded_shapes(block, labels)
    )
    width = model.get_input_embeddings().weight.element_size()
    # Off CPUs for as many heads as queries have.
    layers = config.num_hidden_layers if kept == "activations" else 1
    a_copy = 2 * layers * heads * head_size * width
    memory = [len(tree) * kept_bytes(model, kept) for tree in trees]
    return Work(
        (linear * sum(map(len, trees)) + attention * sum(pairs)) / padded,
        max((width + 1) * n / whole for n, whole in zip(pairs, memory, strict=True)),
        max(a_copy * n / whole for n, whole in zip(copies, memory, strict=True)),
    )


def common_start(rows: Sequence[EncodedExample]) -> int:
    """Return how many tokens all rows begin with."""
    return min(shared_length(rows[0].ids, row.ids) for row in rows)
