"""Forwards over token trees: every token of a batch once, with logits only where they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import DynamicCache, PreTrainedModel

from finetune.adapters.hf.loading import accepts
from finetune.adapters.hf.row_attention import additive, attends_in_rows, to_device
from finetune.domain.checks import BoolArray, IntArray
from finetune.domain.errors import InvalidInput
from finetune.domain.token_tree import Targets, TokenTree
from finetune.domain.tree_rows import lay_out


def tree_logits(model: nn.Module, tree: TokenTree, nodes: IntArray) -> torch.Tensor:
    """Run a whole tree in one forward and return the logits at some of its nodes.

    Differentiable, and without a cache: for training, and for anything that is scored once.

    Parameters
    ----------
    model
        A causal LM for which the gate chose trees; wrapped by peft and for data-parallel training, or not.
    tree
        T nodes.
    nodes
        ``(M,)``, in any order.

    Returns
    -------
    torch.Tensor
        ``(M, vocabulary)`` in the precision of the model: take ``.float()`` before a softmax.  Row ``i``
        predicts the children of ``nodes[i]``.
    """
    return _forward(model, tree, np.arange(len(tree)), nodes, None)


def tree_loss(model: nn.Module, tree: TokenTree, targets: Targets) -> torch.Tensor:
    """Return the summed cross-entropy of all target tokens, each as often as sequences have it.

    Parameters
    ----------
    model, tree
        As for :func:`tree_logits`.
    targets
        What :func:`~finetune.domain.token_tree.target_counts` says of the tree's sequences.

    Returns
    -------
    torch.Tensor
        A float32 scalar, with gradients.  It is a sum: divide it by the target tokens of the whole step.
        Equal to that of a padded batch for dropout 0; with dropout, shared tokens share one draw.
    """
    return weighted_loss(tree_edges(model, tree, targets.nodes), targets)


def tree_edges(model: nn.Module, tree: TokenTree, nodes: IntArray) -> torch.Tensor:
    """Run a whole tree in one forward and return the log-probabilities of tokens, given those before them.

    Parameters
    ----------
    model, tree
        As for :func:`tree_logits`.
    nodes
        ``(M,)``, none of them a root.

    Returns
    -------
    torch.Tensor
        ``(M,)`` float32, with gradients.
    """
    predicting, rows = np.unique(tree.parents[nodes], return_inverse=True)
    log_probabilities = torch.log_softmax(tree_logits(model, tree, predicting).float(), dim=-1)
    device = log_probabilities.device
    tokens = torch.from_numpy(tree.ids[nodes]).to(device)
    return log_probabilities[torch.from_numpy(rows).to(device), tokens]


def weighted_loss(edges: torch.Tensor, targets: Targets) -> torch.Tensor:
    """Return the cross-entropy of target tokens from their log-probabilities, as often as they count."""
    return -(edges * torch.from_numpy(targets.counts).to(edges.device, edges.dtype)).sum()


class Extension(NamedTuple):
    """What :meth:`CachedTree.extend` added and was asked for.

    ``paths`` holds the node of each token of each sequence; ``nodes`` ``(M,)``, ascending, the nodes whose
    logits were asked for, and ``logits`` ``(M, vocabulary)`` their rows, in the precision of the model.
    """

    paths: list[IntArray]
    nodes: IntArray
    logits: torch.Tensor

    def rows(self, nodes: IntArray) -> IntArray:
        """Return which row of ``logits`` belongs to each node.

        Raises
        ------
        InvalidInput
            The logits of a node were not asked for.
        """
        rows = np.searchsorted(self.nodes, nodes)
        known = np.append(self.nodes, -1)[rows] == nodes
        if not known.all():
            raise InvalidInput(
                "logits of this node were not asked for",
                where="nodes",
                seen=int(nodes[~known][0]),
                remedy="pass a smaller logits_from",
            )
        return rows


class CachedTree:
    """A token tree with the keys and values of its nodes, so that growing it runs only what is new.

    Parameters
    ----------
    model
        A causal LM for which the gate chose trees, in evaluation mode; its weights must not change while
        the tree is in use.

    Notes
    -----
    Memory grows with the nodes: cut what is no longer needed with :meth:`truncate`.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.tree = TokenTree()
        self._model = model
        # Without the model's configuration: with it, layers with a sliding window would keep the last
        # nodes that came, which belong to other branches.
        self._cache = DynamicCache()

    def __len__(self) -> int:
        """Return the number of nodes."""
        return len(self.tree)

    def extend(
        self,
        sequences: Sequence[Sequence[int]],
        *,
        starts: Sequence[int] | IntArray | None = None,
        logits_from: Sequence[int] | int | None = -1,
    ) -> Extension:
        """Add sequences; run one forward over the tokens that are not nodes yet.

        Parameters
        ----------
        sequences
            Token ids.
        starts
            The node that each sequence continues, -1 for a root; ``None`` begins all at roots.
        logits_from
            From which place on the logits are asked for, for each sequence or for all, as in a slice: 0 for
            every token, -1 for the last one, ``None`` for no token of any.

        Returns
        -------
        Extension
            Logits of nodes that were there already are computed again, and cost one token each.

        Raises
        ------
        InvalidInput
            A start is no node.
        """
        first = len(self.tree)
        begin = [-1] * len(sequences) if starts is None else [int(start) for start in starts]
        places = (
            [logits_from] * len(sequences)
            if logits_from is None or isinstance(logits_from, int)
            else logits_from
        )
        try:
            paths = [self.tree.add(ids, start=start) for ids, start in zip(sequences, begin, strict=True)]
            asked = [path[place:] for path, place in zip(paths, places, strict=True) if place is not None]
            nodes = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *asked]))
            return Extension(paths, nodes, self._run(first, nodes))
        except BaseException:
            # Half a forward leaves some layers longer than others.
            self.truncate(first)
            raise

    def truncate(self, size: int) -> None:
        """Forget all nodes but the first ``size``, with their keys and values."""
        self.tree.truncate(size)
        for layer in self._cache.layers:
            layer.crop(min(0, size - layer.get_seq_length()))

    def _run(self, first: int, asked: IntArray) -> torch.Tensor:
        """Run the nodes from ``first`` on, and once more those before it whose logits are asked for."""
        known = asked[asked < first]
        run = np.concatenate([np.arange(first, len(self.tree)), known])
        if not len(run):
            vocabulary = self._model.config.get_text_config().vocab_size
            return torch.empty((0, vocabulary), device=self._model.device)
        keep = np.searchsorted(run[: len(run) - len(known)], asked)
        keep[: len(known)] = np.arange(len(run) - len(known), len(run))
        with torch.inference_mode():
            logits = _forward(self._model, self.tree, run, keep, self._cache)
        # Without the keys of second passes, which are no nodes.
        self.truncate(len(self.tree))
        return logits


def _forward(
    model: nn.Module, tree: TokenTree, run: IntArray, keep: IntArray, cache: DynamicCache | None
) -> torch.Tensor:
    """Run nodes of a tree: all that are not in the cache, ascending, and then any once more.

    A second pass over a node sees the keys of the first, and is seen by nobody.
    """
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    weights = inner.get_input_embeddings().weight
    device, dtype = weights.device, weights.dtype
    kept = torch.from_numpy(keep).to(device)
    selects = accepts(inner, "logits_to_keep")
    arguments: dict[str, Any] = {"logits_to_keep": kept} if selects else {}
    if attends_in_rows(inner):
        arguments["tree_rows"] = to_device(lay_out(tree, run), dtype, device)
        # Whatever mask has four dimensions is handed down as it is: transformers makes none of its own.
        mask = torch.zeros((1, 1, 1, 1), dtype=dtype, device=device)
    else:
        cached = 0 if cache is None else cache.get_seq_length()
        hidden = ~_mask(tree, run, cached)
        mask = additive(torch.from_numpy(hidden).to(device)[None, None], dtype)
    logits = model(
        input_ids=torch.from_numpy(tree.ids[run])[None].to(device),
        position_ids=torch.from_numpy(tree.depths[run])[None].to(device),
        attention_mask=mask,
        past_key_values=cache,
        use_cache=cache is not None,
        **arguments,
    ).logits[0]
    return logits if selects else logits[kept]


def _mask(tree: TokenTree, run: IntArray, cached: int) -> BoolArray:
    """Return who sees whom of the keys, those of second passes at the end: ``(len(run), keys)``."""
    lowest = int(run.min())
    again = len(run) - (len(tree) - cached)
    return np.pad(tree.mask(lowest)[run - lowest], ((0, 0), (0, again)))
