"""Whether a model may run token trees: what its configuration says, and then what its numbers say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DummyLayer, DynamicLayer, DynamicSlidingWindowLayer

from finetune.adapters.hf.loading import accepts
from finetune.adapters.hf.row_attention import ROW_ATTENTION, attend_in_rows
from finetune.adapters.hf.trees import CachedTree, tree_logits
from finetune.domain.token_tree import TokenTree

# Largest difference that rounding may make, relative to the spread of a token's log-probabilities.  Random
# models of up to 24 layers showed 4e-6 in float32 and 0.04 in bfloat16; one foreign token in sight showed
# 0.1 and more, and all of a sibling's tokens 0.9.
TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
_MASKABLE = (DynamicLayer, DynamicSlidingWindowLayer, DummyLayer)


class TreeChoice(NamedTuple):
    """How batches run, and why, in one sentence for the log and the record of the run.

    ``difference`` is what the self-check found, and ``None`` where the configuration decided.
    """

    path: Literal["tree", "padded"]
    reason: str
    difference: float | None = None


def choose_path(model: PreTrainedModel, max_length: int) -> TreeChoice:
    """Choose between token trees and padded batches; on doubt, padded batches.

    Parameters
    ----------
    model
        The loaded model, wrapped by peft or not, in any mode.
    max_length
        Tokens of the longest sequence that it will run.

    Returns
    -------
    TreeChoice
        The model attends in rows from now on, if that is what was found to be right.  Never an error: what
        goes wrong in the check is a reason for padded batches.  The check covers a few short sequences in
        evaluation mode; what only shows in longer ones must be told by the configuration.
    """
    objection = find_objection(model, max_length)
    if objection is not None:
        return TreeChoice("padded", f"Batches are padded: {objection}.")
    config = model.config.get_text_config()
    # Layers that take over keys of others tell sdpa from other implementations by its name.
    if config._attn_implementation == "eager" or getattr(config, "num_kv_shared_layers", 0):
        return _check(model, max_length, in_rows=False)
    # Rows first: they cost less, and not all attention layers hand down what they need.
    in_rows = _check(model, max_length, in_rows=True)
    if in_rows.path == "tree":
        return in_rows
    found = _check(model, max_length, in_rows=False)
    if found.path == "tree":
        why = in_rows.reason.removeprefix("Batches are padded: ")
        found = found._replace(reason=f"{found.reason} Attention in rows was refused: {why}")
    return found


def _check(model: PreTrainedModel, max_length: int, *, in_rows: bool) -> TreeChoice:
    """Compare small trees with plain forwards."""
    try:
        difference = measure_difference(model, max_length, in_rows=in_rows)
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError, ImportError) as error:
        lines = str(error).strip().splitlines() or [""]
        return TreeChoice(
            "padded", f"Batches are padded: a small tree ended with {type(error).__name__}: {lines[0]}."
        )
    allowed = TOLERANCE.get(model.dtype, max(TOLERANCE.values()))
    told = (
        "the log-probabilities of a small tree are off those of plain forwards by "
        f"{difference:.1g} of their spread, and {allowed:g} is allowed"
    )
    # Not "larger than": a difference that is not a number is no agreement.
    if not difference <= allowed:
        return TreeChoice("padded", f"Batches are padded: {told}.", difference)
    how = "with attention in rows" if in_rows else "with one mask for each tree"
    return TreeChoice("tree", f"Batches run as token trees, {how}: {told}.", difference)


def find_objection(model: PreTrainedModel, max_length: int) -> str | None:
    """Return what in a model's configuration speaks against trees, as a clause, or ``None``."""
    config = model.config.get_text_config()
    kind = config.model_type
    if not accepts(model, "position_ids"):
        return f"the forward of {kind} takes no position_ids"
    attention = config._attn_implementation
    if attention not in ("sdpa", "eager", ROW_ATTENTION):
        return f"{attention} attention is not known to take a mask of a tree"
    # Recurrent models of which the cache's layers do not tell.
    if getattr(model, "_is_stateful", False):
        return f"{kind} has recurrent layers, in which a token passes on what it saw whatever the mask says"
    try:
        layers = DynamicCache(config=config).layers
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return f"the layers of {kind} are not known ({type(error).__name__}: {error})"
    foreign = sorted({type(layer).__name__ for layer in layers if type(layer) not in _MASKABLE})
    if foreign:
        return f"{kind} has layers that are not masked attention ({', '.join(foreign)})"
    windows = [layer.sliding_window for layer in layers if isinstance(layer, DynamicSlidingWindowLayer)]
    if windows and min(windows) < max_length:
        return (
            f"layers of {kind} see {min(windows)} tokens, sequences have up to {max_length}, "
            "and the mask of a tree would take the place of the window"
        )
    for rope in _ropes(config):
        original = rope.get("original_max_position_embeddings") or config.max_position_embeddings
        if ("dynamic" in rope["rope_type"] or rope["rope_type"] == "longrope") and original < max_length:
            return (
                f"{kind} turns all positions otherwise once a sequence of its batch is longer than "
                f"{original} tokens, and sequences have up to {max_length}"
            )
    return None


def measure_difference(model: PreTrainedModel, max_length: int, *, in_rows: bool = False) -> float:
    """Return how far small trees are from one plain forward for each of their sequences.

    The trees have siblings of equal depth and of different length, a branch from the middle of another, a
    sequence that another begins with and, one of them, a second root.  They are large enough for rows.  Each
    is run whole and, on a cache, in parts with one part taken back.

    Parameters
    ----------
    model
        The model, with ``sdpa`` or ``eager`` attention, or in rows.
    max_length
        Tokens that a sequence may have.
    in_rows
        Whether it attends to trees in rows from now on; not with ``eager``.

    Returns
    -------
    float
        The largest distance between a token's log-probabilities, relative to their distance from their mean
        over the vocabulary (Euclidean, root mean square over tokens).  About 1e-6 in float32 by rounding.
    """
    vocabulary = model.get_input_embeddings().num_embeddings
    tokens = (37 * np.arange(72) % min(vocabulary, 1000)).tolist()
    size = max(4, min(20, max_length // 2))
    head, other = tokens[:size], tokens[65:]
    left, right, third = (
        [*head, *tokens[first : first + size * part // 20]] for first, part in ((20, 14), (34, 12), (46, 13))
    )
    sequences = [left, right, third, head, [*left[: size + 2], *tokens[59 : 59 + size // 4]], other]
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            if model.config.get_text_config()._attn_implementation != "eager":
                attend_in_rows(model, enabled=False)
            plain = [
                _log_probabilities(model(input_ids=torch.tensor([ids], device=model.device)).logits[0])
                for ids in sequences
            ]
            if in_rows:
                attend_in_rows(model, enabled=True)
            distances = []
            for count in (len(sequences), len(sequences) - 1):
                tree = TokenTree()
                paths = [tree.add(ids) for ids in sequences[:count]]
                logits = tree_logits(model, tree, np.concatenate(paths))
                cached = CachedTree(model)
                cached.extend([head], logits_from=None)
                cached.extend([right, other], logits_from=None)
                cached.truncate(len(head))
                grown = cached.extend(sequences[:count], logits_from=0)
                rows = torch.from_numpy(grown.rows(np.concatenate(grown.paths))).to(model.device)
                expected = torch.cat(plain[:count])
                for found in (logits, grown.logits[rows]):
                    distances.append((_log_probabilities(found) - expected).norm(dim=-1).max())
            expected = torch.cat(plain)
            spread = (expected - expected.mean(-1, keepdim=True)).square().sum(-1).mean().sqrt()
            return float(torch.stack(distances).max() / spread)
    finally:
        model.train(training)


def _log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    return torch.log_softmax(logits.float(), dim=-1)


def _ropes(config: PreTrainedConfig) -> list[Mapping[str, Any]]:
    """Return the rotary settings of a configuration: one mapping, or one for each type of layer."""
    settings = getattr(config, "rope_parameters", None) or {}
    parts = [settings, *settings.values()]
    return [part for part in parts if isinstance(part, Mapping) and "rope_type" in part]
