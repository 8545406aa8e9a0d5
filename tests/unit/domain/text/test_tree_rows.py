"""Rows of a tree: each token meets its ancestors once, whatever the tree looks like."""

from __future__ import annotations

from itertools import chain, product
from unittest import mock

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from finetune.domain import tree_rows
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
    copy, row = data.draw(st.sampled_from([(-50, 0), (0, 0), (0, 20), (8, 256)]))
    with mock.patch.object(tree_rows, "_COPY", copy), mock.patch.object(tree_rows, "_ROW", row):
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


def divisions(tree: TokenTree, run: list[int], above: int) -> list[list[tuple[int, int]]]:
    """Return each way to divide what begins with a node into rows, as numbers of their nodes and keys."""
    parents = tree.parents.tolist()
    while (children := [node for node, parent in enumerate(parents) if parent == run[-1]]) and not children[
        1:
    ]:
        run = [*run, children[0]]
    below = [divisions(tree, [child], above + len(run)) for child in children]
    size = int(tree.mask()[:, run[0]].sum())
    apart = [[(len(run), above + len(run)), *chain.from_iterable(rows)] for rows in product(*below)]
    return [[(size, above + size)], *(apart if children else [])]


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=6), min_size=1, max_size=5), st.data())
def test_no_other_division_costs_less(sequences, data):
    tree = TokenTree()
    for sequence in sequences:
        tree.add([7, *sequence])
    copy, row = data.draw(st.sampled_from([(0, 0), (0, 3), (1, 0), (2, 5)]))
    with mock.patch.object(tree_rows, "_COPY", copy), mock.patch.object(tree_rows, "_ROW", row):
        rows, _ = tree_rows._rows(tree, tree.tour(), np.arange(len(tree)))

    def cost(division: list[tuple[int, int]]) -> int:
        return sum(keys * (queries + copy) + row for queries, keys in division)

    found = cost([(len(each.queries), len(each.keys)) for each in rows])
    assert found == min(map(cost, divisions(tree, [0], 0)))


def test_branches_of_branches_do_not_meet():
    tree = TokenTree()
    for name in range(3):
        for text in range(20):
            tree.add([*range(50), 100 + name, 200 + text, *range(60)])
    rows = lay_out(tree, np.arange(len(tree)))
    assert rows.pairs == 50 * 50 + 3 * 51 + 60 * 61 * 112
    assert {group.shared for group in rows.groups} == {50}


def test_branches_do_not_meet():
    tree = TokenTree()
    head = list(range(100))
    for branch in range(40):
        tree.add([*head, 1000 + branch, *range(10)])
    rows = lay_out(tree, np.arange(len(tree)))
    assert rows.pairs == 100 * 100 + 40 * 11 * 111
    assert rows.copies == 100 + 40 * 111
    assert {group.shared for group in rows.groups} == {100}
    assert rows.pairs < len(tree) ** 2 / 4


def test_a_large_branch_does_not_widen_small_ones():
    tree = TokenTree()
    tree.add([1, 2, *range(100, 400)])
    for branch in range(20):
        tree.add([1, 2, *range(1000 + 30 * branch, 1030 + 30 * branch)])
    rows = lay_out(tree, np.arange(2, len(tree)))
    assert [group.queries.shape for group in rows.groups] == [(1, 300), (20, 30)]
    assert rows.pairs == 300 * 302 + 20 * 30 * 32


def test_a_long_text_does_not_widen_the_keys_of_short_ones():
    tree = TokenTree()
    ends = [tree.add([1, 2, 100 + i, *range(500 if i == 0 else 20)])[-1] for i in range(10)]
    first = len(tree)
    for end in ends:
        for label in range(20):
            tree.add([label, 1, 2, 3], start=int(end))
    rows = lay_out(tree, np.arange(first, len(tree)))
    assert sorted(group.keys.shape for group in rows.groups) == [(1, 583), (9, 103)]


def test_many_branches_of_one_token_are_one_row():
    tree = TokenTree()
    end = tree.add(range(600))[-1]
    for label in range(80):
        tree.add([1000 + label], start=int(end))
    (group,) = lay_out(tree, np.arange(600, len(tree))).groups
    assert group.keys.shape == (1, 680)
    assert group.shared == 0


def test_copies_of_one_rectangle_are_bounded():
    tree = TokenTree()
    head = list(range(1000))
    for branch in range(50):
        tree.add([*head, *range(2000 + 100 * branch, 2100 + 100 * branch)])
    groups = lay_out(tree, np.arange(1000, len(tree))).groups
    assert sum(len(group.keys) for group in groups) == 50
    assert max(group.keys.size for group in groups) <= 1 << 14


def test_an_empty_tree_has_no_rows():
    assert lay_out(TokenTree(), np.zeros(0, dtype=np.int64)).groups == []
