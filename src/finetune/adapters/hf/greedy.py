"""Greedy decoding on a token tree: all rows grow together, one node each at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

from finetune.adapters.hf.trees import CachedTree


def continue_greedily(
    cached: CachedTree,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    ends: AbstractSet[int],
    finished: Callable[[list[int]], bool],
) -> list[list[int]]:
    """Continue prompts by the most probable token each time.

    Parameters
    ----------
    cached
        The tree that prompts and new tokens are added to; the caller cuts it back.
    prompts
        Token ids, from a root on.
    max_new_tokens
        Cap on the tokens of each, at least 1.
    ends
        Tokens that end a text, and are no part of it.
    finished
        Whether a text ends behind the tokens given to it.

    Returns
    -------
    list[list[int]]
        The new tokens of each prompt: what ``generate`` without sampling writes, but for rounding.
    """
    written: list[list[int]] = [[] for _ in prompts]
    active = list(range(len(prompts)))
    grown = cached.extend(prompts)
    while True:
        places = [path[-1] for path in grown.paths]
        best = grown.logits[grown.rows(places)].argmax(dim=-1).tolist()
        going = []
        for i, token, place in zip(active, best, places, strict=True):
            if token in ends:
                continue
            written[i].append(token)
            if len(written[i]) < max_new_tokens and not finished(written[i]):
                going.append((i, place))
        if not going:
            return written
        active = [i for i, _ in going]
        grown = cached.extend([[written[i][-1]] for i in active], starts=[place for _, place in going])
