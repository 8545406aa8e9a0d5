"""How many tokens a tree may have: until its mask or its attention would cost too much."""

from __future__ import annotations

import math
from typing import Literal

from torch import nn
from transformers import PreTrainedModel

from finetune.adapters.hf.row_attention import attends_in_rows

Kept = Literal["activations", "checkpoints", "cache"]

MASK_SHARE = 0.1
COPIES_SHARE = 1.0
ATTENTION_SHARE = 0.5
# Of the tokens of a tree that is scored in rows, and of their masks.
ROW_MEMORY = 256 * 1024 * 1024


def token_budget(model: PreTrainedModel, *, longest: int, shared: int = 0, kept: Kept = "activations") -> int:
    r"""Return the most tokens that a tree should have.

    Parameters
    ----------
    model
        The model, on any device (the meta device too), wrapped by peft or not.
    longest
        Tokens of the longest sequence; the budget is never below it.
    shared
        Tokens that all sequences begin with, as far as is known.
    kept
        What is kept of each token: all activations (training), each layer's input and one layer's activations
        (training with activation checkpointing), or keys, values and one layer's activations (scoring).

    Returns
    -------
    int
        :math:`\max(\text{longest}, \min(T_m, \max(T_a, T_s)))`.

    Notes
    -----
    With ``L`` layers, hidden size ``h``, MLP size ``i``, ``H`` heads of size ``d``, ``K`` key-value heads,
    ``b`` bytes a number, and ``W`` weights of linear layers that a token meets (experts: those it is routed
    to; the output embedding, which only runs where logits are asked for, is not among them):

    - *Mask.*  Its ``T^2`` entries take ``b`` bytes, and one while it is made.  They take at most a tenth of
      what is kept of the tree, ``T k``: :math:`T_m = 0.1\,k / (b + 1)`, where ``k`` is
      ``b L (10 h + 4 i)`` for all activations, and ``b (10 h + 4 i)`` with ``b L h`` for checkpoints or
      ``2 b L K d`` for a cache added.
    - *Attention.*  Dense attention takes ``4 T H d`` floating-point operations a token and layer, the linear
      layers ``2 W`` a token.  The former are at most half of the latter: :math:`T_a = 0.5 \cdot 2W / (4HdL)`.
    - *Sharing.*  In narrow models ``T_a`` is so small that hardly two sequences fit.  A tree of ``n``
      sequences that share ``s`` tokens costs ``2 W T + 4 H d L T^2`` operations, least for each sequence at
      :math:`T_s = s\,(1 + \sqrt{1 + 2W / (4HdLs)})`; where that is more, it is taken.

    Operations are counted, not measured: a masked attention that skips blocks would allow more.

    References
    ----------
    Korthikanti, V. et al. (2022). Reducing Activation Recomputation in Large Transformer Models, sec. 4
    (activations, here for gated MLPs).
    """
    config = model.config.get_text_config()
    layers, hidden, heads = config.num_hidden_layers, config.hidden_size, config.num_attention_heads
    size = getattr(config, "head_dim", None) or hidden // heads
    width = model.get_input_embeddings().weight.element_size()
    by_mask = MASK_SHARE * kept_bytes(model, kept) / (width + 1)
    # Tokens at which attention would cost as much as the linear layers.
    even = 2 * active_weights(model) / (4 * heads * size * layers)
    by_attention = ATTENTION_SHARE * even
    by_sharing = shared + math.sqrt(shared * (shared + even))
    return max(longest, int(min(by_mask, max(by_attention, by_sharing))))


def scoring_budget(model: PreTrainedModel, keys: int) -> int:
    r"""Return the most tokens that a tree should have that is scored.

    Parameters
    ----------
    model
        The model, on any device; whether it attends in rows must have been decided.
    keys
        Tokens that one attends to, at most.

    Returns
    -------
    int
        What :func:`token_budget` says.  With attention in rows at least :math:`M / (k + 2 s (b + 1))`: what
        is kept of the tokens, and their masks over ``s`` keys in rows that are at least half full, take
        ``M`` = 256 MiB.
    """
    dense = token_budget(model, longest=1, kept="cache")
    if not attends_in_rows(model):
        return dense
    width = model.get_input_embeddings().weight.element_size()
    return max(dense, ROW_MEMORY // (kept_bytes(model, "cache") + 2 * keys * (width + 1)))


def kept_bytes(model: PreTrainedModel, kept: Kept) -> int:
    """Return the memory of what is kept of a token, see :func:`token_budget`."""
    config = model.config.get_text_config()
    layers, hidden, heads = config.num_hidden_layers, config.hidden_size, config.num_attention_heads
    size = getattr(config, "head_dim", None) or hidden // heads
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    one_layer = 10 * hidden + 4 * inner
    numbers = {
        "activations": layers * one_layer,
        "checkpoints": layers * hidden + one_layer,
        "cache": 2 * layers * (getattr(config, "num_key_value_heads", None) or heads) * size + one_layer,
    }[kept]
    return int(model.get_input_embeddings().weight.element_size() * numbers)


def active_weights(model: PreTrainedModel) -> int:
    """Return how many weights of linear layers a token meets on its way to the last hidden state."""
    output = model.get_output_embeddings()
    # Quantised layers pack their weights, so the sizes are read from the layers.
    linear = sum(
        module.in_features * module.out_features
        for module in model.modules()
        if isinstance(module, nn.Linear) and module is not output
    )
    config = model.config.get_text_config()
    routed = getattr(config, "num_experts_per_tok", None) or 0
    experts = [parameter for parameter in model.parameters() if parameter.ndim == 3]
    return linear + sum(routed * parameter[0].numel() for parameter in experts)
