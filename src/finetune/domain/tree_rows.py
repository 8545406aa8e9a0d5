"""Attention over a token tree row by row: each branch beside what all branches begin with, and no other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from finetune.domain.checks import BoolArray, IntArray
from finetune.domain.token_tree import TokenTree, Tour


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
    """

    queries: IntArray
    keys: IntArray
    sees: BoolArray


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
        Rows are grouped so that the shortest has at least half as many queries as the longest.

    Examples
    --------
    >>> tree = TokenTree()
    >>> paths = [tree.add(ids) for ids in ([5, 6, 7], [5, 6, 8, 9], [5, 6, 4])]
    >>> rows = lay_out(tree, np.arange(len(tree)))
    >>> [group.keys.tolist() for group in rows.groups]
    [[[0, 1, 0, 0], [0, 1, 3, 4], [0, 1, 2, 0], [0, 1, 5, 0]]]
    >>> rows.groups[0].sees[1].astype(int)
    array([[1, 1, 1, 0],
           [1, 1, 1, 1]])
    """
    tour = tree.tour()
    rows = sorted(_rows(tree, tour, run), key=lambda row: -len(row.queries))
    groups: list[RowGroup] = []
    places = np.zeros(len(run), dtype=np.int64)
    before = first = 0
    while first < len(rows):
        longest = len(rows[first].queries)
        part = [row for row in rows[first:] if 2 * len(row.queries) >= longest]
        groups.append(_rectangle(part, tour, run))
        for row in part:
            places[row.queries] = before + np.arange(len(row.queries))
            before += longest
        first += len(part)
    return TreeRows(groups, places)


class _Row(NamedTuple):
    """Which of the tokens that are run, and the nodes they may see."""

    queries: IntArray
    keys: IntArray


def _rows(tree: TokenTree, tour: Tour, run: IntArray) -> list[_Row]:
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
    return rows


def _rectangle(rows: list[_Row], tour: Tour, run: IntArray) -> RowGroup:
    longest, widest = (max(map(len, column)) for column in zip(*rows, strict=True))
    queries = np.stack([np.pad(q, (0, longest - len(q)), constant_values=q[0]) for q, _ in rows])
    keys = np.stack([np.pad(k, (0, widest - len(k))) for _, k in rows])
    filled = np.arange(widest) < np.array([[len(k)] for _, k in rows])
    begin, end = tour.enter[keys][:, None], tour.exit[keys][:, None]
    entered = tour.enter[run[queries]][:, :, None]
    return RowGroup(queries, keys, (begin <= entered) & (entered < end) & filled[:, None])
