"""Attention of token trees in rows, registered with transformers as an attention implementation."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from finetune.domain.tree_rows import TreeRows

#: The name under which transformers knows it.
ROW_ATTENTION = "token_tree_rows"
# What an attention layer may say beside its scaling that makes the result another one.
_UNKNOWN = ("softcap", "s_aux", "sinks", "position_bias", "indices", "block_indices", "cache")
# Attention scores of a group, all heads, up to which they stay in a processor's cache.
_SMALL = 1 << 19


class _Group(NamedTuple):
    """A :class:`~finetune.domain.tree_rows.RowGroup` on the device; the mask is added, ``(B, 1, O, L)``."""

    queries: torch.Tensor
    own: torch.Tensor
    mask: torch.Tensor
    shared: int


class DeviceRows(NamedTuple):
    """:class:`~finetune.domain.tree_rows.TreeRows` on the device of a model."""

    groups: list[_Group]
    places: torch.Tensor


def to_device(rows: TreeRows, dtype: torch.dtype, device: torch.device) -> DeviceRows:
    """Move rows to a device, with masks in the precision of attention there."""
    groups = [
        _Group(
            torch.from_numpy(group.queries).to(device),
            torch.from_numpy(group.keys[:, group.shared :]).to(device),
            additive(torch.from_numpy(~group.sees).to(device)[:, None], dtype),
            group.shared,
        )
        for group in rows.groups
    ]
    return DeviceRows(groups, torch.from_numpy(rows.places).to(device))


def additive(hidden: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a mask to be added to attention scores, of the shape of ``hidden``.

    Not a boolean one: scaled_dot_product_attention would turn it into this once a layer, and keep each copy
    for the backward pass.
    """
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
    # Rows of a multiple of 8 entries: CUDA's memory-efficient attention copies others once a layer.
    *shape, width = hidden.shape
    whole = torch.zeros((*shape, -(-width // 8) * 8), dtype=dtype, device=hidden.device)
    return whole[..., :width].masked_fill_(hidden, torch.finfo(dtype).min)


def attend_in_rows(model: PreTrainedModel, *, enabled: bool) -> None:
    """Let a model run trees in rows, or take that back.

    For good, not for one forward: activation checkpointing calls attention again in the backward pass.  What
    is no tree runs as before, by scaled_dot_product_attention.
    """
    model.set_attn_implementation(ROW_ATTENTION if enabled else "sdpa")


def attends_in_rows(model: nn.Module) -> bool:
    """Return whether :func:`attend_in_rows` is on."""
    return bool(model.config.get_text_config()._attn_implementation == ROW_ATTENTION)


def row_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    tree_rows: DeviceRows | None = None,
    **arguments: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as transformers' attention functions do; with ``tree_rows``, each row to its own keys.

    Parameters
    ----------
    module, query, key, value, attention_mask, dropout, scaling, **arguments
        As in ``transformers.AttentionInterface``: the query ``(1, H, Q, D)``, keys and values
        ``(1, K, T or more, D)``.
    tree_rows
        Handed down from the model's forward.

    Returns
    -------
    tuple
        The outputs ``(1, Q, H, D)``, and None for the weights.

    Raises
    ------
    ValueError
        The layer asks for a kind of attention that this is not.
    """
    if tree_rows is None:
        found, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **arguments
        )
        return found, None
    unknown = [name for name in _UNKNOWN if arguments.get(name) is not None]
    if unknown:
        raise ValueError(f"attention in rows does not know {', '.join(unknown)}")
    if attention_mask is None or attention_mask.numel() != 1:
        # Only the placeholder: what a layer put into a mask of its own would be lost.
        raise ValueError("attention in rows does not know the mask of this layer")
    heads = query.shape[1]
    found = []
    for group in tree_rows.groups:
        states = _take(query, group.queries), _of_rows(key, group), _of_rows(value, group)
        part = _attend(*states, group.mask, dropout, query.shape[3] ** -0.5 if scaling is None else scaling)
        found.append(part.transpose(1, 2).reshape(-1, heads, part.shape[3]))
    return torch.cat(found).index_select(0, tree_rows.places)[None], None


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    dropout: float,
    scaling: float,
) -> torch.Tensor:
    """Attend in rows of queries ``(B, H, O, D)`` and keys ``(B, K, L, D)``, where ``K`` divides ``H``."""
    heads, kinds = query.shape[1], key.shape[1]
    on_cpu = query.device.type == "cpu"
    plain = on_cpu and query.dtype == torch.float32 and not torch.is_grad_enabled()
    if plain and heads * mask.numel() <= _SMALL:
        return attend_by_products(query, key, value, mask, scaling)
    # On other devices the kernels that take a mask want as many heads of keys as of queries.
    if not on_cpu and heads > kinds:
        key, value = (states.repeat_interleave(heads // kinds, 1) for states in (key, value))
    return scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        dropout_p=dropout,
        scale=scaling,
        enable_gqa=on_cpu and heads > kinds,
    )


def attend_by_products(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Attend as scaled_dot_product_attention does in float32, faster for short rows on a processor.

    Its kernel works in tiles for long rows; ``python -m benchmarks.row_kernels`` compares the two.  In
    bfloat16 the kernel is better: it keeps scores in float32.

    Parameters
    ----------
    query
        ``(B, H, O, D)``.
    key, value
        ``(B, K, L, D)``, where ``K`` divides ``H``.
    mask
        ``(B, 1, O, L)``, added to the scores.
    scaling
        Of the scores.

    Returns
    -------
    torch.Tensor
        ``(B, H, O, D)``.
    """
    batch, heads, length, _ = query.shape
    kinds = key.shape[1]
    # Queries that share a head of keys are rows of one product: nothing is repeated.
    folded = (query * scaling).reshape(batch, kinds, -1, query.shape[3])
    scores = (folded @ key.transpose(2, 3)).view(batch, heads, length, -1) + mask
    weights = torch.softmax(scores, dim=-1)
    return (weights.view(batch, kinds, -1, key.shape[2]) @ value).view(batch, heads, length, -1)


def _of_rows(states: torch.Tensor, group: _Group) -> torch.Tensor:
    """Return keys or values of each row, ``(B, K, L, D)``."""
    # Not gathered: the gradient of what all rows share is one sum, in a fixed order.
    shared = states[:, :, : group.shared].expand(len(group.own), -1, -1, -1)
    return torch.cat([shared, _take(states, group.own)], dim=2)


def _take(states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Gather ``(1, H, T, D)`` at places ``(B, N)`` into ``(B, H, N, D)``."""
    taken = states[0].index_select(1, places.flatten())
    return taken.unflatten(1, tuple(places.shape)).transpose(0, 1)


AttentionInterface.register(ROW_ATTENTION, row_attention)
AttentionMaskInterface.register(ROW_ATTENTION, sdpa_mask)
