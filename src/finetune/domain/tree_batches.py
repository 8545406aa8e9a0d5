"""Rows into trees under a token budget: as few trees as fit, so that shared beginnings are computed once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from finetune.domain.errors import InvalidInput


def pack(sequences: Sequence[Sequence[int]], budget: int, added: int = 0) -> list[list[int]]:
    """Divide rows into trees of at most ``budget`` nodes each.

    Rows are taken in descending lexicographic order, and each joins the tree in which it needs the fewest new
    nodes among those with room for them, else it begins one.  In that order the longest beginning that a row
    shares with a tree is the one it shares with the row that joined last, so each node count is exact.

    Parameters
    ----------
    sequences
        ``n`` rows of token ids.
    budget
        Nodes of a tree, at least 1.  A row that is longer has a tree of its own, which only rows that it
        begins with can share.
    added
        Nodes that each row that is not part of another brings beside its own tokens, at most.

    Returns
    -------
    list[list[int]]
        Row numbers of each tree, ascending, the trees by their first row: each row exactly once.  Which rows
        stand together depends on their tokens only, except that equal rows may stand for one another.
        The number of trees is not guaranteed to be the smallest, which would be bin packing.

    Raises
    ------
    InvalidInput
        The budget is less than one node.

    References
    ----------
    Johnson, D. S. (1974). Fast algorithms for bin packing. J. Computer and System Sciences 8 (best fit).

    Examples
    --------
    >>> pack([[1, 2, 3], [7, 8], [1, 2, 4], [7, 9]], budget=4)
    [[0, 2], [1, 3]]
    """
    if budget < 1:
        raise InvalidInput(
            "a tree needs room for one node at least", where="budget", seen=budget, remedy="raise the budget"
        )
    rows = [np.asarray(sequence, dtype=np.int64) for sequence in sequences]
    trees: list[list[int]] = []
    sizes: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: list(sequences[i]), reverse=True):
        own = [len(rows[i]) - shared_length(rows[i], rows[tree[-1]]) for tree in trees]
        needs = [need and need + added for need in own]
        fitting = [k for k, need in enumerate(needs) if need == 0 or sizes[k] + need <= budget]
        if fitting:
            best = min(fitting, key=needs.__getitem__)
            trees[best].append(i)
            sizes[best] += needs[best]
        else:
            trees.append([i])
            sizes.append(len(rows[i]) + added)
    return sorted(sorted(tree) for tree in trees)


def shared_length(first: npt.ArrayLike, second: npt.ArrayLike) -> int:
    """Return how many tokens two sequences have in common from the start.

    Examples
    --------
    >>> shared_length([1, 2, 3], [1, 2, 9, 3])
    2
    """
    one, other = np.asarray(first), np.asarray(second)
    both = min(len(one), len(other))
    differs = one[:both] != other[:both]
    return int(differs.argmax()) if differs.any() else both
