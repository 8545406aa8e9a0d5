"""Training rows as token trees: what is run, how large a tree may be, and what that saves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from finetune.adapters.hf.tree_budget import active_weights, token_budget
from finetune.adapters.hf.trees import tree_loss
from finetune.application.config import TrainingConfig
from finetune.application.ports import EncodedExample
from finetune.domain.token_tree import Targets, TokenTree, target_counts
from finetune.domain.tree_batches import pack, shared_length


@dataclass(frozen=True)
class TreeBatch:
    """A token tree, and which of its nodes carry a loss how often."""

    tree: TokenTree
    targets: Targets

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
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget

    def divide(self, rows: Sequence[EncodedExample]) -> list[TreeBatch]:
        """Return as few trees as the rows fit into."""
        return [
            self._plant([rows[i] for i in tree]) for tree in pack([row.ids for row in rows], self._budget)
        ]

    def loss(self, model: torch.nn.Module, batch: TreeBatch) -> torch.Tensor:
        """Run a tree; return the sum of the cross-entropies of all answer tokens of its rows."""
        return tree_loss(model, batch.tree, batch.targets)

    def _plant(self, rows: Sequence[EncodedExample]) -> TreeBatch:
        tree = TokenTree()
        paths = [tree.add(row.ids) for row in rows]
        return TreeBatch(tree, target_counts(paths, [row.answer_start for row in rows]))


def choose_tree_tokens(model: PreTrainedModel, settings: TrainingConfig, *, longest: int, shared: int) -> int:
    """Return the most tokens that a tree of training rows has.

    Parameters
    ----------
    model
        The model, on any device (the meta device too).
    settings
        ``tree_tokens``: the number itself, or ``auto``.
    longest, shared
        Tokens of the longest row, and those that all rows begin with.  ``auto`` grows with both.

    Returns
    -------
    int
        For ``auto`` what :func:`~finetune.adapters.hf.tree_budget.token_budget` says, but never more tokens
        than a padded forward of ``per_device_batch_size`` rows: a tree takes no more memory than that, its
        mask aside.
    """
    if settings.tree_tokens != "auto":
        return max(settings.tree_tokens, longest)
    kept = "checkpoints" if settings.gradient_checkpointing else "activations"
    budget = token_budget(model, longest=longest, shared=shared, kept=kept)
    return min(budget, settings.per_device_batch_size * longest)


def relative_operations(
    model: PreTrainedModel, steps: Sequence[Sequence[EncodedExample]], budget: int, size: int
) -> float:
    """Return how many operations token trees take for each that padded batches take.

    Counted are linear layers, which cost the same for every token, and dense attention, which costs more
    the longer a forward is: rows that share little are cheaper apart.

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
    """
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    attention = 4 * heads * head_size * config.num_hidden_layers
    linear = 2 * active_weights(model)

    def cost(sequences: int, tokens: int) -> int:
        return sequences * (linear * tokens + attention * tokens**2)

    batching = TreeBatches(budget)
    trees = sum(cost(1, tree.tokens) for rows in steps for tree in batching.divide(rows))
    padded = sum(
        cost(len(block), max(len(row.ids) for row in block))
        for rows in steps
        for block in (rows[i : i + size] for i in range(0, len(rows), size))
    )
    return trees / padded


def common_start(rows: Sequence[EncodedExample]) -> int:
    """Return how many tokens all rows begin with."""
    return min(shared_length(rows[0].ids, row.ids) for row in rows)
