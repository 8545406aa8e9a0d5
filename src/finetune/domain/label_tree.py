"""The tokens of all labels as a tree, walked from the likely to the unlikely."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from finetune.domain.checks import BoolArray, FloatArray, IntArray
from finetune.domain.errors import InvalidInput
from finetune.domain.token_tree import TokenTree


class Run(NamedTuple):
    """Tokens to run behind a prompt; ``nodes`` are those of the last ``len(nodes)`` of them."""

    tokens: tuple[int, ...]
    nodes: IntArray


class LabelTree:
    """The token paths of K labels behind one prompt.

    Node 0 is the end of the prompt; each other node is the last token of a beginning that labels share.
    Parents have smaller numbers than their children.

    Parameters
    ----------
    paths
        K token sequences, of which none begins another.

    Attributes
    ----------
    ids, parents
        Token and parent of each node, ``(N,)``; -1 for node 0.
    leaves
        The node that completes each label, ``(K,)``.
    inner
        Whether a node has children, ``(N,)``: their probabilities need its logits.
    counts
        How many labels lie below each node, itself included, ``(N,)``.

    Raises
    ------
    InvalidInput
        A path is empty, or begins another.

    Examples
    --------
    >>> labels = LabelTree([(5, 6), (5, 7, 8), (9,)])
    >>> labels.ids.tolist(), labels.parents.tolist(), labels.leaves.tolist()
    ([-1, 5, 6, 7, 8, 9], [-1, 0, 1, 1, 3, 0], [2, 4, 5])
    >>> labels.runs(labels.below(np.array([1])))
    [Run(tokens=(5, 7), nodes=array([1, 3]))]
    """

    def __init__(self, paths: Sequence[Sequence[int]]) -> None:
        tree = TokenTree()
        nodes = [tree.add(path) + 1 for path in paths]
        self.ids: IntArray = np.concatenate([[-1], tree.ids])
        self.parents: IntArray = np.concatenate([[-1], tree.parents + 1])
        self.leaves: IntArray = np.array([path[-1] if len(path) else 0 for path in nodes], dtype=np.int64)
        size = len(self.ids)
        below: list[list[int]] = [[] for _ in range(size)]
        for node, parent in enumerate(self.parents[1:].tolist(), start=1):
            below[parent].append(node)
        self._children: list[IntArray] = [np.array(nodes, dtype=np.int64) for nodes in below]
        self.inner: BoolArray = np.array([len(nodes) > 0 for nodes in below])
        wrong = np.flatnonzero(self.inner[self.leaves] | (np.bincount(self.leaves)[self.leaves] > 1))
        if len(wrong):
            raise InvalidInput(
                "the tokens of a label are none, or begin those of another",
                where=f"label {wrong[0]}",
                seen=list(paths[int(wrong[0])]),
                remedy="end each label with a token that closes it",
            )
        tour = tree.tour()
        self._enter: IntArray = np.concatenate([[0], tour.enter + 1])
        self._exit: IntArray = np.concatenate([[size], tour.exit + 1])
        self._order = np.argsort(self._enter[self.leaves])
        places = self._enter[self.leaves][self._order]
        self._first = np.searchsorted(places, self._enter)
        self.counts: IntArray = np.searchsorted(places, self._exit) - self._first
        # Where the stretch without branches begins that a node lies in; below node 0 always a new one.
        self._heads: IntArray = np.arange(size)
        self._paths: list[tuple[int, ...]] = [()] * size
        for node, parent in enumerate(self.parents[1:].tolist(), start=1):
            if parent and len(below[parent]) == 1:
                self._heads[node] = self._heads[parent]
            self._paths[node] = (*self._paths[parent], int(self.ids[node]))

    def below(self, nodes: IntArray) -> IntArray:
        """Return all inner nodes at and below some nodes, ascending."""
        inside = np.zeros(len(self.ids), dtype=np.bool_)
        for node in nodes:
            inside[self._enter[node] : self._exit[node]] = True
        return np.flatnonzero(inside[self._enter] & self.inner)

    def stretch(self, nodes: IntArray) -> IntArray:
        """Return the inner nodes from some nodes down to the next branch, ascending."""
        return np.flatnonzero(np.isin(self._heads, self._heads[nodes]) & self.inner)

    def edges(self, nodes: IntArray) -> IntArray:
        """Return the children of some nodes, ascending."""
        return np.sort(np.concatenate([self._children[node] for node in nodes]))

    def labels(self, node: int) -> IntArray:
        """Return the labels that lie at or below a node."""
        first = int(self._first[node])
        return self._order[first : first + int(self.counts[node])]

    def runs(self, nodes: IntArray) -> list[Run]:
        """Return the token sequences that visit each of some nodes once.

        Parameters
        ----------
        nodes
            Ascending; of the ancestors of each, those that are missing must be above all that are there.
        """
        left = set(nodes.tolist())
        runs = []
        for end in np.setdiff1d(nodes, self.parents[nodes]).tolist():
            visited, node = [], end
            while node in left:
                left.remove(node)
                visited.append(node)
                node = int(self.parents[node])
            runs.append(Run(self._paths[end], np.array(visited[::-1], dtype=np.int64)))
        return runs


class LabelWalk:
    r"""What is known of the labels of one text, and what is to be run next.

    The probability of a node, that the answer begins with its tokens, is known as soon as its parent was run,
    and bounds that of all labels below it.  At each step the least likely nodes whose probabilities sum to at
    most ``prune`` times the total are left alone.  That total is the probability of everything known so far,
    and falls, so that nodes which were left alone may be taken up later.

    Parameters
    ----------
    labels
        The tree of the labels.
    prune
        Largest share of the label mass that may be left out, in [0, 1); 0 runs everything.
    room
        What is wanted of subtrees is run to their ends as long as that takes no more nodes; else only to the
        next branch, so that the branches can be judged first.

    Notes
    -----
    A label that was not reached gets an equal share of its subtree's probability, so that every score is
    finite.  With ``e`` the mass of the labels that were reached and ``r`` that of the subtrees that were
    not, which is at least that of their labels, the normalised scores are at a total variation distance of at
    most :math:`r / (e + r) \le` ``prune`` from the exact ones; it is reached where the subtrees hold no label
    mass.  Rounding may decide whether a node at the limit is run: what that moves has the same bound.

    Examples
    --------
    >>> walk = LabelWalk(LabelTree([(5, 6), (5, 7, 8), (9, 6), (9, 7)]), prune=0.01, room=10)
    >>> walk.wanted().tolist()
    [0]
    >>> walk.learn(np.array([1, 5]), np.log([0.5, 0.001]))
    >>> walk.wanted().tolist()
    [1, 3]
    >>> walk.learn(np.array([2, 3]), np.log([0.25, 0.5]))
    >>> walk.learn(np.array([4]), np.log([1.0]))
    >>> walk.wanted().tolist()
    []
    >>> np.exp(walk.scores()).round(4).tolist(), round(walk.left_out(), 4)
    ([0.125, 0.25, 0.0005, 0.0005], 0.0027)
    """

    def __init__(self, labels: LabelTree, prune: float, room: int) -> None:
        self._labels = labels
        self._prune = prune
        self._room = room
        size = len(labels.ids)
        self._mass = np.zeros(size)
        self._known = np.arange(size) == 0
        self._run = np.zeros(size, dtype=np.bool_)

    def wanted(self) -> IntArray:
        """Return the nodes that must be run next, ascending; none where all that matters is known."""
        if not self._run[0]:
            return np.zeros(1, dtype=np.int64)
        nodes = np.flatnonzero(self._open())
        if self._prune > 0.0 and len(nodes):
            nodes = nodes[np.argsort(self._mass[nodes], kind="stable")]
            # Not "greater": what is not a number must show.
            nodes = nodes[~(np.cumsum(self._shares(nodes)) <= self._prune)]
        whole = self._labels.below(nodes)
        return whole if self._prune == 0.0 or len(whole) <= self._room else self._labels.stretch(nodes)

    def learn(self, nodes: IntArray, log_probabilities: FloatArray) -> None:
        """Take the log-probabilities of all children of some nodes, given their parents.

        Parameters
        ----------
        nodes
            The children, ascending; a parent must be known before, or stand before them.
        log_probabilities
            Theirs, of the same shape.
        """
        parents = self._labels.parents[nodes]
        for node, parent, edge in zip(
            nodes.tolist(), parents.tolist(), log_probabilities.tolist(), strict=True
        ):
            self._mass[node] = self._mass[parent] + edge
        self._known[nodes] = True
        self._run[parents] = True

    def scores(self) -> FloatArray:
        """Return the log-probability of each label, ``(K,)``; those left out share that of their subtree."""
        scores = self._mass[self._labels.leaves]
        for node in np.flatnonzero(self._open()).tolist():
            scores[self._labels.labels(node)] = self._mass[node] - np.log(self._labels.counts[node])
        return scores

    def left_out(self) -> float:
        """Return the share of all mass that lies on subtrees that were not run, 0 where there are none."""
        return float(self._shares(np.flatnonzero(self._open())).sum())

    def _open(self) -> BoolArray:
        shut: BoolArray = self._known & self._labels.inner & ~self._run
        return shut

    def _shares(self, nodes: IntArray) -> FloatArray:
        """Return the probabilities of nodes as shares of that of everything known so far."""
        with np.errstate(invalid="ignore"):
            total = np.logaddexp.reduce(self._mass[self._known & ~self._run])
            shares: FloatArray = np.exp(self._mass[nodes] - total)
        return shares
