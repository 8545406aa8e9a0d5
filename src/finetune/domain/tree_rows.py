"""Attention over a token tree row by row: each branch beside what lies above it, and no other."""

from __future__ import annotations

from bisect import bisect_left
from itertools import groupby
from typing import NamedTuple

import numpy as np

from finetune.domain.checks import BoolArray, IntArray
from finetune.domain.token_tree import TokenTree, Tour

# Pairs of a query and a key that take the time of copying a key and its value, forwards and backwards.
_COPY = 8
# The same for what a row costs beside its keys: it may need a rectangle of its own.
_ROW = 256
# Keys of one rectangle, at most, if it has more than one row: each is a copy, of all heads.
_KEYS = 1 << 14


class RowGroup(NamedTuple):
    """Branches that are run as one rectangle.

    Parameters
    ----------
    queries
        Which of the tokens that are run, ``(B, O)``; a short row repeats its first one.
    keys
        Nodes of the tree, ``(B, L)``; a short row is filled up with node 0, which ``sees`` hides.
    sees
        Whether a query sees a key: its node is the query's or above it, ``(B, O, L)``.
    shared
        With how many nodes, from node 0 on, the keys of all rows begin.
    """

    queries: IntArray
    keys: IntArray
    sees: BoolArray
    shared: int


class TreeRows(NamedTuple):
    """How tokens of a tree attend in rows.

    Parameters
    ----------
    groups
        Rectangles in which each token that is run is a query.
    places
        Where each token that is run stands among the queries of all groups, flattened one after another,
        ``(Q,)``.
    """

    groups: list[RowGroup]
    places: IntArray

    @property
    def pairs(self) -> int:
        """Pairs of a query and a key that are computed, the hidden ones included."""
        return sum(group.sees.size for group in self.groups)

    @property
    def copies(self) -> int:
        """Keys of all rows."""
        return sum(group.keys.size for group in self.groups)


def lay_out(tree: TokenTree, run: IntArray) -> TreeRows:
    """Divide tokens of a tree into rows for attention.

    A row is a chain of nodes that ends at a branching, or a whole subtree; its keys are its own nodes and
    those above them.  A mask over the whole tree would also compute every branch against every other, to
    throw it away: of ``B`` branches, about ``B`` times as many pairs.  But each row has a copy of the keys
    above it.  So a subtree is divided exactly where that costs less than running it as one row.

    Parameters
    ----------
    tree
        The tree, all of whose nodes have keys.
    run
        The nodes that are run, ``(Q,)``, in any order; one may come twice.

    Returns
    -------
    TreeRows
        In a group the shortest row has more than half of the queries and of the keys of the longest.

    Examples
    --------
    >>> tree = TokenTree()
    >>> paths = [tree.add([*range(30), branch, *range(20)]) for branch in (101, 102)]
    >>> rows = lay_out(tree, np.arange(len(tree)))
    >>> [(group.queries.shape, group.keys.shape, group.shared) for group in rows.groups]
    [((2, 21), (2, 51), 30), ((1, 30), (1, 30), 30)]
    >>> rows.pairs, len(tree) ** 2
    (3042, 5184)
    """
    tour = tree.tour()
    rows, shared = _rows(tree, tour, run)
    groups: list[RowGroup] = []
    places = np.zeros(len(run), dtype=np.int64)
    before = 0
    for _, similar in groupby(sorted(rows, key=_size, reverse=True), key=_size):
        for part in _parts(list(similar)):
            groups.append(_rectangle(part, tour, run, shared))
            longest = groups[-1].queries.shape[1]
            for row in part:
                places[row.queries] = before + np.arange(len(row.queries))
                before += longest
    return TreeRows(groups, places)


class _Row(NamedTuple):
    """Which of the tokens that are run, and the nodes they may see."""

    queries: IntArray
    keys: IntArray


def _size(row: _Row) -> tuple[int, int]:
    """Return the powers of two that queries and keys lie under."""
    return len(row.queries).bit_length(), len(row.keys).bit_length()


def _parts(rows: list[_Row]) -> list[list[_Row]]:
    count = max(1, _KEYS // max(len(row.keys) for row in rows))
    return [rows[i : i + count] for i in range(0, len(rows), count)]


class _Chains(NamedTuple):
    """The tree as chains of nodes without a branching in between, in the order of a depth-first walk.

    In that order the nodes of a chain come one after another, and below it those of its subtree.  Chain 0 is
    empty and above all roots, so that its subtree is the whole tree.
    """

    begin: list[int]
    """Where the nodes of a chain begin in the walk."""
    end: list[int]
    below: list[int]
    """Where those of its subtree end."""
    above: list[int]
    """How many nodes lie above it."""
    parent: list[int]


def _chains(tree: TokenTree, tour: Tour) -> _Chains:
    size, walk = len(tree), np.argsort(tour.enter)
    parents, depths = tree.parents[walk], tree.depths[walk]
    # In a walk an only child comes right behind its parent, and has a parent with no other child.
    children = np.bincount(parents + 1, minlength=size + 1)
    heads = np.flatnonzero((children[parents + 1] > 1) | (parents < 0))
    chain_of = np.zeros(size + 1, dtype=np.int64)
    chain_of[walk] = np.searchsorted(heads, np.arange(size), side="right")
    return _Chains(
        [0, *heads.tolist()],
        [0, *heads[1:].tolist(), size][: len(heads) + 1],
        [size, *tour.exit[walk[heads]].tolist()],
        [0, *depths[heads].tolist()],
        # Index -1, what is above a root, is the last place, which stands for chain 0.
        [-1, *chain_of[parents[heads]].tolist()],
    )


def _rows(tree: TokenTree, tour: Tour, run: IntArray) -> tuple[list[_Row], int]:
    """Return the rows that cost the least, and how many nodes they all begin with."""
    walk, chains = np.argsort(tour.enter), _chains(tree, tour)
    entered = tour.enter[run]
    queries = np.argsort(entered, kind="stable")
    # How many of the tokens that are run come before a place in the walk.
    before = np.searchsorted(entered[queries], np.arange(len(tree) + 1)).tolist()

    def cost(chain: int, end: int) -> int:
        asked = before[end] - before[chains.begin[chain]]
        keys = chains.above[chain] + end - chains.begin[chain]
        return keys * (asked + _COPY) + _ROW if asked else 0

    count = len(chains.begin)
    # Of a subtree's cheapest rows; those below a chain are known before it.
    divided, whole = [0] * count, [False] * count
    for chain in range(count - 1, -1, -1):
        divided[chain] += cost(chain, chains.end[chain])
        together = cost(chain, chains.below[chain])
        whole[chain] = together <= divided[chain]
        if chain:
            divided[chains.parent[chain]] += min(together, divided[chain])
    rows = []
    chain = 0
    while chain < count:
        begin, end = chains.begin[chain], chains.below[chain] if whole[chain] else chains.end[chain]
        if before[end] > before[begin]:
            above: list[IntArray] = []
            parent = chains.parent[chain]
            while parent > 0:
                above.append(walk[chains.begin[parent] : chains.end[parent]])
                parent = chains.parent[parent]
            keys = np.concatenate([*reversed(above), walk[begin:end]])
            rows.append(_Row(queries[before[begin] : before[end]], keys))
        chain = bisect_left(chains.begin, end, chain + 1) if whole[chain] else chain + 1
    # With one root, all rows begin with its chain, whose nodes came first.
    one_root = count > 1 and chains.below[1] == len(tree)
    return rows, chains.end[1] if one_root and not whole[0] else 0


def _rectangle(rows: list[_Row], tour: Tour, run: IntArray, shared: int) -> RowGroup:
    longest, widest = (max(map(len, column)) for column in zip(*rows, strict=True))
    queries = np.stack([np.pad(q, (0, longest - len(q)), constant_values=q[0]) for q, _ in rows])
    keys = np.stack([np.pad(k, (0, widest - len(k))) for _, k in rows])
    filled = np.arange(widest) < np.array([[len(k)] for _, k in rows])
    begin, end = tour.enter[keys][:, None], tour.exit[keys][:, None]
    entered = tour.enter[run[queries]][:, :, None]
    sees = begin <= entered
    sees &= entered < end
    sees &= filled[:, None]
    return RowGroup(queries, keys, sees, shared)
