"""The radix tree: what it holds, who sees whom, and what counts in a loss."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.domain.errors import InvalidInput
from finetune.domain.token_tree import TokenTree, target_counts

# Few different tokens, so that sequences often share beginnings, repeat, or continue one another.
sequences = st.lists(st.lists(st.integers(0, 2), max_size=7), max_size=8)


def grow(rows: list[list[int]]) -> tuple[TokenTree, list[np.ndarray]]:
    tree = TokenTree()
    return tree, [tree.add(row) for row in rows]


def ancestors(tree: TokenTree, node: int) -> set[int]:
    """The node and what stands above it, one parent at a time."""
    above = {node}
    while (node := int(tree.parents[node])) >= 0:
        above.add(node)
    return above


def contents(tree: TokenTree) -> tuple[list[int], ...]:
    return tree.ids.tolist(), tree.parents.tolist(), tree.depths.tolist()


@given(sequences)
def test_each_path_reads_back_the_sequence(rows: list[list[int]]) -> None:
    tree, paths = grow(rows)
    for row, path in zip(rows, paths, strict=True):
        assert tree.ids[path].tolist() == row
        assert tree.depths[path].tolist() == list(range(len(row)))
        assert tree.parents[path].tolist() == [-1, *path.tolist()][: len(row)]


@given(sequences)
def test_there_is_one_node_for_each_distinct_beginning(rows: list[list[int]]) -> None:
    tree, _ = grow(rows)
    assert len(tree) == len({tuple(row[:n]) for row in rows for n in range(1, len(row) + 1)})
    assert (tree.parents < np.arange(len(tree))).all()


@given(sequences, st.data())
def test_a_row_of_the_mask_shows_a_node_and_its_ancestors(rows: list[list[int]], data: st.DataObject) -> None:
    tree, _ = grow(rows)
    first = data.draw(st.integers(0, len(tree)))
    mask = tree.mask(first)
    assert mask.shape == (len(tree) - first, len(tree))
    for row, node in zip(mask, range(first, len(tree)), strict=True):
        assert set(np.flatnonzero(row).tolist()) == ancestors(tree, node)


@given(sequences)
def test_the_tour_tells_ancestors(rows: list[list[int]]) -> None:
    tree, _ = grow(rows)
    enter, leave = tree.tour()
    assert sorted(enter.tolist()) == list(range(len(tree)))
    assert np.array_equal((enter <= enter[:, None]) & (enter[:, None] < leave), tree.mask())


@given(sequences, sequences, sequences)
def test_a_truncated_tree_is_as_it_was(
    kept: list[list[int]], gone: list[list[int]], later: list[list[int]]
) -> None:
    tree, _ = grow(kept)
    size, before = len(tree), contents(tree)
    for row in gone:
        tree.add(row)
    tree.truncate(size)
    assert contents(tree) == before
    fresh, _ = grow(kept)
    for row in later:
        assert tree.add(row).tolist() == fresh.add(row).tolist()
    assert contents(tree) == contents(fresh)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=5), sequences)
def test_a_sequence_may_hang_from_a_node(head: list[int], rows: list[list[int]]) -> None:
    hanging, whole = TokenTree(), TokenTree()
    last = int(hanging.add(head)[-1])
    for row in rows:
        assert hanging.add(row, start=last).tolist() == whole.add(head + row)[len(head) :].tolist()
    # `whole` is what it would be without any hanging, apart from a first row that is never added.
    whole.add(head)
    assert contents(hanging) == contents(whole)


@given(sequences)
def test_the_tokens_of_both_of_two_equal_answers_count(rows: list[list[int]]) -> None:
    rows = [row for row in rows if row]
    tree, paths = grow(rows)
    starts = [1 + len(row) // 2 if len(row) > 1 else 1 for row in rows]
    targets = target_counts(paths, starts)
    expected = Counter(
        int(node) for path, start in zip(paths, starts, strict=True) for node in path[start:].tolist()
    )
    assert dict(zip(targets.nodes.tolist(), targets.counts.tolist(), strict=True)) == expected
    assert targets.nodes.tolist() == sorted(expected)
    assert targets.counts.sum() == sum(len(row) - start for row, start in zip(rows, starts, strict=True))
    assert (tree.parents[targets.nodes] >= 0).all()


@given(sequences, st.data())
def test_weights_are_summed_where_whole_numbers_are_counted(rows: list[list[int]], data) -> None:
    _, paths = grow([row for row in rows if row])
    starts = [1] * len(paths)
    weights = data.draw(
        st.lists(st.integers(0, 4).map(float), min_size=len(paths), max_size=len(paths)), label="weights"
    )
    repeated = [i for i, weight in enumerate(weights) for _ in range(int(weight))]
    counted = target_counts([paths[i] for i in repeated], [1] * len(repeated))
    weighed = target_counts(paths, starts, weights)
    expected = dict(zip(counted.nodes.tolist(), counted.counts.tolist(), strict=True))
    found = dict(zip(weighed.nodes.tolist(), weighed.counts.tolist(), strict=True))
    assert {node: count for node, count in found.items() if count} == expected


def test_an_empty_tree_has_empty_arrays() -> None:
    tree, paths = grow([[], []])
    assert contents(tree) == ([], [], [])
    assert [path.shape for path in paths] == [(0,), (0,)]
    assert tree.mask().shape == (0, 0)
    assert tree.tour().enter.shape == (0,)
    assert target_counts([], []).nodes.shape == (0,)


def test_one_token_and_its_duplicate_are_one_node() -> None:
    tree, paths = grow([[4], [4]])
    assert contents(tree) == ([4], [-1], [0])
    assert [path.tolist() for path in paths] == [[0], [0]]
    assert tree.mask().tolist() == [[True]]


def test_a_sequence_that_begins_another_shares_its_nodes_whichever_comes_first() -> None:
    assert [path.tolist() for path in grow([[1, 2], [1, 2, 3]])[1]] == [[0, 1], [0, 1, 2]]
    assert [path.tolist() for path in grow([[1, 2, 3], [1, 2]])[1]] == [[0, 1, 2], [0, 1]]


def test_nodes_are_numbered_as_they_come_so_that_a_cache_can_grow() -> None:
    tree, _ = grow([[1, 2, 3], [9], [1, 2, 4], [1, 2, 3, 5]])
    assert tree.parents.tolist() == [-1, 0, 1, -1, 1, 2]


def test_arrays_are_taken_like_lists() -> None:
    tree = TokenTree()
    assert tree.add(np.array([3, 4], dtype=np.int32)).tolist() == tree.add([3, 4]).tolist()


@pytest.mark.parametrize("start", [-2, 2, 7])
def test_a_start_that_is_no_node_is_refused(start: int) -> None:
    tree, _ = grow([[1, 2]])
    with pytest.raises(InvalidInput, match="start"):
        tree.add([3], start=start)
    assert len(tree) == 2


def test_an_ignored_label_among_the_ids_is_refused() -> None:
    tree = TokenTree()
    with pytest.raises(InvalidInput, match="negative"):
        tree.add([1, -100])
    assert len(tree) == 0


@pytest.mark.parametrize("size", [-1, 3])
def test_a_tree_is_never_cut_to_more_than_it_has(size: int) -> None:
    tree, _ = grow([[1, 2]])
    with pytest.raises(InvalidInput, match="size"):
        tree.truncate(size)


@pytest.mark.parametrize("start", [0, 4])
def test_a_token_that_nothing_predicts_is_no_target(start: int) -> None:
    _, paths = grow([[1, 2, 3]])
    with pytest.raises(InvalidInput, match="row 0"):
        target_counts(paths, [start])
