"""Attention over a token tree row by row: each branch beside what all branches begin with, and no other."""

from __future__ import annotations

from itertools import groupby
from typing import NamedTuple

import numpy as np

from finetune.domain.checks import BoolArray, IntArray
from finetune.domain.token_tree import TokenTree, Tour

# Pairs of a query and a key that take the time of copying a key and its value, forwards and backwards.
_COPY = 8
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

    The trunk is what comes before the first branching; each subtree that hangs from it is a row, whose keys
    are the trunk and the subtree.  A mask over the whole tree would also compute every branch against every
    other, to throw it away: of ``B`` branches, about ``B`` times as many pairs.

    Parameters
    ----------
    tree
        The tree, all of whose nodes have keys.
    run
        The nodes that are run, ``(Q,)``, in any order; one may come twice.

    Returns
    -------
    TreeRows
        In a group the shortest row has more than half of the queries and of the keys of the longest.  Where
        copying keys for rows would take longer than it saves, as for many branches of one token each, there
        is one row of everything.

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
    if sum(len(keys) * (len(queries) + _COPY) for queries, keys in rows) > len(run) * len(tree):
        rows, shared = [_Row(np.arange(len(run)), np.arange(len(tree)))], 0
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


def _rows(tree: TokenTree, tour: Tour, run: IntArray) -> tuple[list[_Row], int]:
    """Return the rows, and the nodes of the trunk."""
    parents, size = tree.parents, len(tree)
    branchings = parents[1:][parents[1:] != np.arange(size - 1)]
    trunk = int(branchings.min()) + 1 if len(branchings) else size
    # A walk visits the nodes of a branch one after another.
    tops = trunk + np.flatnonzero(parents[trunk:] < trunk)
    branches = np.full(size, -1)
    branches[trunk:] = np.searchsorted(np.sort(tour.enter[tops]), tour.enter[trunk:], side="right") - 1
    of_run = branches[run]
    rows = []
    for branch in np.unique(of_run):
        # Of the trunk itself nothing but the trunk is seen.
        keys = np.flatnonzero((branches == branch) | (branches == -1))
        rows.append(_Row(np.flatnonzero(of_run == branch), keys))
    return rows, trunk


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
