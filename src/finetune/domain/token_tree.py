"""The radix tree of a batch: equal beginnings of token sequences are kept, and computed, once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import BoolArray, FloatArray, IntArray
from finetune.domain.errors import InvalidInput


class Tour(NamedTuple):
    """Where a depth-first walk enters and leaves each node, ``(T,)`` each.

    ``a`` is ``b`` or an ancestor of it exactly if ``enter[a] <= enter[b] < exit[a]``: ancestry from two
    numbers a node, for attention kernels that take a rule instead of a mask.
    """

    enter: IntArray
    exit: IntArray


class Targets(NamedTuple):
    """Nodes whose tokens carry a loss, ascending, and how many (sequence, token) pairs lie on each.

    Where sequences have weights, these are summed instead of counted.
    """

    nodes: IntArray
    counts: IntArray | FloatArray


class TokenTree:
    """A forest of token sequences that share a node wherever they share a beginning.

    Nodes are numbered in the order in which they were added, so that what was computed for them, such as a
    key-value cache, stays in place while the tree grows.  A parent always comes before its children.

    Notes
    -----
    A forward over all ``T`` nodes with ``position_ids = depths`` and :meth:`mask` gives each node what a
    plain forward over its path gives its last token, for models whose tokens exchange information through
    masked attention only.  Sequences are compared by token ids: tokenise whole strings and share afterwards.

    References
    ----------
    Morrison, D. R. (1968). PATRICIA: Practical Algorithm To Retrieve Information Coded in Alphanumeric.
    Journal of the ACM 15, 514-534 (radix trees).
    Miao, X. et al. (2024). SpecInfer. ASPLOS, sec. 4.2 (attention over a token tree).

    Examples
    --------
    >>> tree = TokenTree()
    >>> tree.add([5, 6, 7]).tolist(), tree.add([5, 6, 8, 9]).tolist()
    ([0, 1, 2], [0, 1, 3, 4])
    >>> tree.parents.tolist(), tree.depths.tolist()
    ([-1, 0, 1, 1, 3], [0, 1, 2, 2, 3])
    >>> tree.mask(first=3).astype(int)
    array([[1, 1, 0, 1, 0],
           [1, 1, 0, 1, 1]])
    """

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._parents: list[int] = []
        self._depths: list[int] = []
        self._children: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        """Return the number of nodes, T: that of the distinct beginnings of all sequences."""
        return len(self._ids)

    @property
    def ids(self) -> IntArray:
        """Token of each node, ``(T,)``; a copy."""
        return np.array(self._ids, dtype=np.int64)

    @property
    def parents(self) -> IntArray:
        """Parent of each node, -1 for a root, ``(T,)``; a copy."""
        return np.array(self._parents, dtype=np.int64)

    @property
    def depths(self) -> IntArray:
        """Position of each node in its sequences, from 0, ``(T,)``; a copy."""
        return np.array(self._depths, dtype=np.int64)

    def add(self, sequence: Sequence[int] | npt.NDArray[np.integer], *, start: int = -1) -> IntArray:
        """Add a sequence; only what no earlier one begins with becomes new nodes.

        Parameters
        ----------
        sequence
            L token ids, 0 or larger; may be empty.
        start
            The node it continues; -1 begins at a root.

        Returns
        -------
        IntArray
            The node of each token, ``(L,)``.  New nodes are the last of them, in order and without a gap.

        Raises
        ------
        InvalidInput
            ``start`` is no node, or a token id is negative.
        """
        if not -1 <= start < len(self):
            raise InvalidInput(
                f"a sequence can hang from one of {len(self)} nodes, or from -1",
                where="start",
                seen=start,
                remedy="take it from what add returned since the last truncate",
            )
        tokens = sequence.tolist() if isinstance(sequence, np.ndarray) else list(sequence)
        if tokens and min(tokens) < 0:
            raise InvalidInput(
                "a token id is negative",
                where="sequence",
                seen=min(tokens),
                remedy="pass input ids, without padding or ignored labels",
            )
        path, node = [], start
        for token in tokens:
            child = self._children.get((node, token))
            if child is None:
                break
            path.append(child)
            node = child
        new = tokens[len(path) :]
        nodes = range(len(self), len(self) + len(new))
        parents = [node, *nodes][: len(new)]
        depth = self._depths[node] + 1 if node >= 0 else 0
        self._ids += new
        self._parents += parents
        self._depths += range(depth, depth + len(new))
        self._children.update(zip(zip(parents, new, strict=True), nodes, strict=True))
        return np.array([*path, *nodes], dtype=np.int64)

    def count_new(self, sequences: Sequence[Sequence[int]], starts: Sequence[int]) -> int:
        """Return how many nodes these sequences would add together, each to its start, and add none."""
        size = len(self)
        for sequence, start in zip(sequences, starts, strict=True):
            self.add(sequence, start=start)
        new = len(self) - size
        self.truncate(size)
        return new

    def truncate(self, size: int) -> None:
        """Forget all nodes but the first ``size``, as if what came later had never been added.

        Raises
        ------
        InvalidInput
            The tree is smaller than that.
        """
        if not 0 <= size <= len(self):
            raise InvalidInput(
                f"a tree of {len(self)} nodes cannot be cut to that size",
                where="size",
                seen=size,
                remedy="pass a length that the tree had before",
            )
        for edge in zip(self._parents[size:], self._ids[size:], strict=True):
            del self._children[edge]
        del self._ids[size:], self._parents[size:], self._depths[size:]

    def mask(self, first: int = 0) -> BoolArray:
        """Return who sees whom, ``(T - first, T)``: row ``i`` is true at node ``first + i`` and above it.

        Takes one byte for each entry, and time for each chain of nodes that continue one another, not for
        each node.
        """
        size = len(self)
        nodes, parents = np.arange(size), self.parents
        begins = parents != nodes - 1
        heads = np.maximum.accumulate(np.where(begins, nodes, 0))
        begins[first : first + 1] = True
        mask = np.zeros((size - first, size), dtype=np.bool_)
        chains = [*(np.flatnonzero(begins[first:]) + first).tolist(), size]
        for head, stop in pairwise(chains):
            rows = mask[head - first : stop - first]
            parent = int(parents[head])
            if parent >= first:
                rows[:, : parent + 1] = mask[parent - first, : parent + 1]
            while 0 <= parent < first:
                rows[:, heads[parent] : parent + 1] = True
                parent = int(parents[heads[parent]])
            steps = np.arange(stop - head)
            np.greater_equal.outer(steps, steps, out=rows[:, head:stop])
        return mask

    def tour(self) -> Tour:
        """Return the numbers of a depth-first walk, which tell ancestors without a mask."""
        # The list's last place, which is index -1, stands for what holds the roots together.
        sizes = [1] * (len(self) + 1)
        for node in range(len(self) - 1, -1, -1):
            sizes[self._parents[node]] += sizes[node]
        enter, free = [0] * len(self), [0] * (len(self) + 1)
        for node, parent in enumerate(self._parents):
            enter[node] = free[parent]
            free[parent] += sizes[node]
            free[node] = enter[node] + 1
        entered = np.array(enter, dtype=np.int64)
        return Tour(entered, entered + np.array(sizes[:-1], dtype=np.int64))


def target_counts(
    paths: Sequence[IntArray], starts: Sequence[int], weights: Sequence[float] | None = None
) -> Targets:
    """Return which nodes carry a loss, and for how many sequences.

    Two sequences may share tokens that both are trained on: the node is computed once and counts twice, as in
    a padded batch.

    Parameters
    ----------
    paths
        The nodes of each sequence, from its root.
    starts
        The place in each sequence from which its tokens are targets, 1 to its length.
    weights
        What each sequence counts, at least 0; None: once each, in whole numbers.

    Returns
    -------
    Targets
        ``counts.sum()`` is the number of target tokens of the padded batch.

    Raises
    ------
    InvalidInput
        A target has no token before it, or lies behind the end.

    Examples
    --------
    >>> tree = TokenTree()
    >>> paths = [tree.add([1, 2, 7]), tree.add([1, 2, 7]), tree.add([1, 2, 8])]
    >>> target_counts(paths, starts=[2, 2, 1])
    Targets(nodes=array([1, 2, 3]), counts=array([1, 2, 1]))
    """
    for row, (path, start) in enumerate(zip(paths, starts, strict=True)):
        if not 1 <= start <= len(path):
            raise InvalidInput(
                f"targets of a sequence of {len(path)} tokens begin at 1 or later, and not behind its end",
                where=f"row {row}",
                seen=start,
                remedy="begin behind the first token: nothing predicts it",
            )
    chosen = [path[start:] for path, start in zip(paths, starts, strict=True)]
    together = np.concatenate(chosen) if chosen else np.zeros(0, dtype=np.int64)
    if weights is None:
        nodes, counts = np.unique(together, return_counts=True)
        return Targets(nodes, counts.astype(np.int64))
    nodes, places = np.unique(together, return_inverse=True)
    each = np.repeat(np.asarray(weights, dtype=np.float64), [len(part) for part in chosen])
    return Targets(nodes, np.bincount(places, weights=each, minlength=len(nodes)))
