"""Rows of a tree: each token meets its ancestors once, whatever the tree looks like."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from finetune.domain.token_tree import TokenTree
from finetune.domain.tree_rows import lay_out

SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=12)


@given(SEQUENCES, st.data())
def test_each_token_sees_itself_and_its_ancestors_once(sequences, data):
    tree = TokenTree()
    for sequence in sequences:
        tree.add(sequence)
    first = data.draw(st.integers(0, len(tree) - 1))
    again = data.draw(st.lists(st.integers(0, first - 1), unique=True)) if first else []
    run = np.array([*range(first, len(tree)), *again])
    rows = lay_out(tree, run)
    mask = tree.mask()
    queries = np.concatenate([group.queries.ravel() for group in rows.groups])
    assert np.array_equal(queries[rows.places], np.arange(len(run)))
    seen = [sight for group in rows.groups for sight in group.sees.reshape(-1, group.sees.shape[2])]
    keys = [
        row
        for group in rows.groups
        for row, _ in zip(group.keys, group.queries, strict=True)
        for _ in range(group.queries.shape[1])
    ]
    for token, place in zip(run, rows.places, strict=True):
        found = keys[place][seen[place]]
        assert len(np.unique(found)) == len(found)
        assert np.array_equal(np.sort(found), np.flatnonzero(mask[token]))
    assert all(group.sees.any(axis=2).all() for group in rows.groups), "a softmax over nothing is no number"


def test_branches_do_not_meet():
    tree = TokenTree()
    head = list(range(100))
    for branch in range(40):
        tree.add([*head, 1000 + branch, *range(10)])
    rows = lay_out(tree, np.arange(len(tree)))
    assert rows.pairs == 100 * 100 + 40 * 11 * 111
    assert rows.pairs < len(tree) ** 2 / 4


def test_a_large_branch_does_not_widen_small_ones():
    tree = TokenTree()
    tree.add([1, 2, *range(100, 200)])
    for branch in range(20):
        tree.add([1, 2, 300 + branch])
    rows = lay_out(tree, np.arange(2, len(tree)))
    assert [group.queries.shape for group in rows.groups] == [(1, 100), (20, 1)]
    assert rows.pairs == 100 * 102 + 20 * 3


def test_an_empty_tree_has_no_rows():
    assert lay_out(TokenTree(), np.zeros(0, dtype=np.int64)).groups == []
