"""Attention over a token tree row by row: each branch beside what all branches begin with, and no other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from finetune.domain.checks import BoolArray, IntArray
from finetune.domain.token_tree import TokenTree


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
    parents, (enter, leave) = tree.parents, tree.tour()
    size = len(tree)
    branchings = parents[1:][parents[1:] != np.arange(size - 1)]
    trunk = int(branchings.min()) + 1 if len(branchings) else size
    # A walk visits the nodes of a branch one after another.
    tops = trunk + np.flatnonzero(parents[trunk:] < trunk)
    tops = tops[np.argsort(enter[tops])]
    of_nodes = np.searchsorted(enter[tops], enter[trunk:], side="right") - 1
    members = np.split(
        trunk + np.argsort(of_nodes, kind="stable"), np.cumsum(np.bincount(of_nodes, minlength=len(tops)))
    )
    branches = np.full(len(run), -1)
    behind = run >= trunk
    branches[behind] = of_nodes[run[behind] - trunk]
    common = np.arange(trunk)
    rows = [
        (queries, common if branch < 0 else np.concatenate([common, members[branch]]))
        for branch in np.unique(branches).tolist()
        for queries in (np.flatnonzero(branches == branch),)
    ]
    rows.sort(key=lambda row: -len(row[0]))
    groups: list[RowGroup] = []
    places = np.zeros(len(run), dtype=np.int64)
    first = before = 0
    while first < len(rows):
        longest = len(rows[first][0])
        stop = next((i for i in range(first, len(rows)) if 2 * len(rows[i][0]) < longest), len(rows))
        part = rows[first:stop]
        queries = np.stack([np.pad(row, (0, longest - len(row)), constant_values=row[0]) for row, _ in part])
        width = max(len(keys) for _, keys in part)
        keys = np.stack([np.pad(keys, (0, width - len(keys))) for _, keys in part])
        filled = np.arange(width) < np.array([[len(keys)] for _, keys in part])
        entered = enter[run[queries]][:, :, None]
        sees = (enter[keys][:, None] <= entered) & (entered < leave[keys][:, None]) & filled[:, None]
        groups.append(RowGroup(queries, keys, sees))
        for i, (row, _) in enumerate(part):
            places[row] = before + i * longest + np.arange(len(row))
        before, first = before + queries.size, stop
    return TreeRows(groups, places)
