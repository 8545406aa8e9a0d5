"""Rows into trees: nothing is dropped, and no tree is larger than it may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.domain.errors import InvalidInput
from finetune.domain.token_tree import TokenTree
from finetune.domain.tree_batches import pack, shared_length

sequences = st.lists(st.lists(st.integers(0, 2), max_size=7), max_size=10)
budgets = st.integers(1, 20)


def nodes(rows: list[list[int]]) -> int:
    tree = TokenTree()
    for row in rows:
        tree.add(row)
    return len(tree)


@given(sequences, budgets)
def test_each_row_is_in_one_tree(rows: list[list[int]], budget: int) -> None:
    assert sorted(i for tree in pack(rows, budget) for i in tree) == list(range(len(rows)))


@given(sequences, budgets)
def test_only_a_row_that_is_too_long_alone_exceeds_the_budget(rows: list[list[int]], budget: int) -> None:
    for tree in pack(rows, budget):
        members = [rows[i] for i in tree]
        assert nodes(members) <= max(budget, *map(len, members))


@given(sequences)
def test_what_fits_into_one_tree_is_one_tree(rows: list[list[int]]) -> None:
    assert len(pack(rows, max(1, nodes(rows)))) == min(1, len(rows))


@given(sequences, budgets, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_makes_no_difference(rows: list[list[int]], budget: int, random) -> None:
    def divided(given_rows: list[list[int]]) -> list[list[list[int]]]:
        return sorted(sorted(given_rows[i] for i in tree) for tree in pack(given_rows, budget))

    shuffled = random.sample(rows, len(rows))
    assert divided(shuffled) == divided(rows)


@given(sequences, budgets)
def test_a_tree_is_begun_only_by_a_row_that_fits_into_none(rows: list[list[int]], budget: int) -> None:
    trees = [[rows[i] for i in tree] for tree in pack(rows, budget)]
    for tree in trees:
        beginner = max(tree)
        for other in trees:
            if other is not tree and max(other) > beginner:
                assert nodes([*other, beginner]) > budget


@given(st.lists(st.integers(0, 2), max_size=7), st.lists(st.integers(0, 2), max_size=7))
def test_the_shared_length_counts_equal_tokens_from_the_start(one: list[int], other: list[int]) -> None:
    n = shared_length(one, other)
    assert one[:n] == other[:n]
    assert n == min(len(one), len(other)) or one[n] != other[n]


def test_rows_stand_with_those_they_share_most_with() -> None:
    cards, mail = [1] * 20, [2] * 20
    rows = [[*cards, 3], [*mail, 3], [*cards, 4], [*mail, 4], [*cards, 5], [*mail, 5]]
    assert pack(rows, budget=24) == [[0, 2, 4], [1, 3, 5]]


def test_a_row_that_is_too_long_takes_in_what_it_begins_with_only() -> None:
    assert pack([[1, 2], [1, 2, 3, 4, 5], [1, 9]], budget=3) == [[0, 1], [2]]


def test_no_rows_make_no_trees() -> None:
    assert pack([], budget=5) == []


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidInput, match="budget"):
        pack([[1]], budget=0)


@given(sequences, budgets, st.integers(0, 9))
def test_what_rows_bring_beside_their_tokens_has_room_too(
    rows: list[list[int]], budget: int, added: int
) -> None:
    for tree in pack(rows, budget, added):
        members = {tuple(rows[i]) for i in tree}
        ends = [row for row in members if not any(row != one and one[: len(row)] == row for one in members)]
        assert nodes([list(row) for row in members]) + added * len(ends) <= budget or len(ends) == 1
