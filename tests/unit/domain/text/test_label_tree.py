"""The tree of the labels, and what pruning it can move."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.domain.errors import InvalidInput
from finetune.domain.label_tree import LabelTree, LabelWalk

TOKENS = 5
END = 0
# Few tokens, so that labels share beginnings; the last one closes them, so that none begins another.
bodies = st.lists(st.lists(st.integers(1, TOKENS - 1), max_size=4).map(tuple), min_size=1, max_size=12)
label_sets = bodies.map(lambda found: [(*body, END) for body in dict.fromkeys(found)])
seeds = st.integers(0, 2**32 - 1)


class Language:
    """A model that gives each beginning a fixed distribution over the next token."""

    def __init__(self, seed: int, sharpness: float) -> None:
        self._seed = seed
        self._sharpness = sharpness

    def next(self, prefix: tuple[int, ...]) -> np.ndarray:
        rng = np.random.default_rng([self._seed, len(prefix), *prefix])
        logits = self._sharpness * rng.normal(size=TOKENS)
        return logits - np.logaddexp.reduce(logits)

    def score(self, path) -> float:
        return float(sum(self.next(tuple(path[:i]))[token] for i, token in enumerate(path)))


def finish(walk: LabelWalk, labels: LabelTree, paths, language: Language) -> int:
    """Run what is wanted until nothing is; return how many nodes were run."""
    prefixes = {0: ()}
    for node in range(1, len(labels.ids)):
        prefixes[node] = (*prefixes[int(labels.parents[node])], int(labels.ids[node]))
    count = 0
    while len(wanted := walk.wanted()):
        for run in labels.runs(wanted):
            assert prefixes[int(run.nodes[-1])] == run.tokens
            below = labels.edges(run.nodes)
            walk.learn(
                below,
                np.array([language.next(prefixes[int(labels.parents[n])])[labels.ids[n]] for n in below]),
            )
            count += len(run.nodes)
    return count


def normalised(scores: np.ndarray) -> np.ndarray:
    return np.exp(scores - np.logaddexp.reduce(scores))


@given(paths=label_sets)
def test_the_tree_gives_each_label_back(paths):
    labels = LabelTree(paths)
    assert len(labels.ids) == 1 + len({path[:n] for path in paths for n in range(1, len(path) + 1)})
    for path, leaf in zip(paths, labels.leaves, strict=True):
        tokens, node = [], int(leaf)
        while node:
            tokens.append(int(labels.ids[node]))
            node = int(labels.parents[node])
        assert tuple(tokens[::-1]) == path
        assert not labels.inner[leaf]
    assert (labels.parents[1:] < np.arange(1, len(labels.ids))).all()


@given(paths=label_sets)
def test_labels_are_counted_below_each_node(paths):
    labels = LabelTree(paths)
    below = {0: set(range(len(paths)))} | {node: set() for node in range(1, len(labels.ids))}
    for k, leaf in enumerate(labels.leaves.tolist()):
        node = leaf
        while node:
            below[node].add(k)
            node = int(labels.parents[node])
    for node, expected in below.items():
        assert set(labels.labels(node).tolist()) == expected
        assert labels.counts[node] == len(expected)


@given(paths=label_sets)
def test_runs_visit_each_node_once_and_parents_first(paths):
    labels = LabelTree(paths)
    inner = np.flatnonzero(labels.inner)
    np.testing.assert_array_equal(labels.below(np.zeros(1, dtype=np.int64)), inner)
    seen = {-1}
    for run in labels.runs(inner):
        for node in run.nodes.tolist():
            assert int(labels.parents[node]) in seen
            assert node not in seen
            seen.add(node)
    assert seen - {-1} == set(inner.tolist())


@given(paths=label_sets, seed=seeds, room=st.integers(0, 30))
def test_without_pruning_every_score_is_exact_and_every_node_is_run_once(paths, seed, room):
    labels, language = LabelTree(paths), Language(seed, 2.0)
    walk = LabelWalk(labels, prune=0.0, room=room)
    assert finish(walk, labels, paths, language) == labels.inner.sum()
    np.testing.assert_allclose(
        walk.scores(), [language.score(path) for path in paths], rtol=1e-12, atol=1e-12
    )
    assert walk.left_out() == 0.0


@given(
    paths=label_sets,
    seed=seeds,
    prune=st.sampled_from([1e-6, 1e-3, 0.05, 0.5]),
    room=st.integers(0, 30),
    sharpness=st.sampled_from([1.0, 4.0, 10.0]),
)
def test_pruning_moves_no_more_than_it_says_and_that_no_more_than_it_may(paths, seed, prune, room, sharpness):
    labels, language = LabelTree(paths), Language(seed, sharpness)
    walk = LabelWalk(labels, prune, room)
    count = finish(walk, labels, paths, language)
    exact, found = np.array([language.score(path) for path in paths]), walk.scores()
    assert np.isfinite(found).all()
    moved = 0.5 * np.abs(normalised(found) - normalised(exact)).sum()
    assert moved <= walk.left_out() + 1e-12
    assert walk.left_out() <= prune + 1e-12
    assert (walk.left_out() == 0.0) == (count == labels.inner.sum())
    # The mass on all labels is never too small, and too large by what was left out at most.
    excess = np.logaddexp.reduce(found) - np.logaddexp.reduce(exact)
    assert -1e-12 <= excess <= -np.log1p(-walk.left_out()) + 1e-12


@given(seed=seeds)
def test_the_bound_is_reached_where_what_was_left_out_holds_no_label(seed):
    p = np.random.default_rng(seed).uniform(0.2, 0.4, 2)
    labels = LabelTree([(1, END), (2, END), (3, 1, END), (3, 2, END)])
    walk = LabelWalk(labels, prune=0.01, room=10)
    walk.wanted()
    walk.learn(labels.edges(np.zeros(1, dtype=np.int64)), np.log([*p, 0.001]))
    [first, second] = walk.wanted().tolist()
    walk.learn(labels.edges(np.array([first, second])), np.zeros(2))
    assert len(walk.wanted()) == 0
    exact = np.array([*p, 0.0, 0.0]) / p.sum()
    moved = 0.5 * np.abs(normalised(walk.scores()) - exact).sum()
    assert walk.left_out() == pytest.approx(moved, rel=1e-9)
    assert walk.left_out() == pytest.approx(0.001 / (p.sum() + 0.001))


def test_what_was_left_alone_is_taken_up_once_the_likelier_turns_out_to_be_no_label():
    labels = LabelTree([(1, 1, END), (2, 2, END)])
    walk = LabelWalk(labels, prune=1e-3, room=10)
    walk.wanted()
    walk.learn(np.array([1, 4]), np.log([0.9, 1e-5]))
    assert walk.wanted().tolist() == [1, 2]
    walk.learn(np.array([2]), np.array([-30.0]))
    walk.learn(np.array([3]), np.array([-1.0]))
    assert walk.wanted().tolist() == [4, 5]
    walk.learn(np.array([5, 6]), np.array([-1.0, -1.0]))
    assert len(walk.wanted()) == 0
    assert walk.left_out() == 0.0


def test_without_room_a_walk_stops_at_each_branch():
    paths = [(1, 2, 1, END), (1, 2, 2, END), (1, 2, 3, END)]
    labels = LabelTree(paths)
    whole, steps = (LabelWalk(labels, prune=1e-6, room=room) for room in (100, 0))
    for walk in (whole, steps):
        walk.wanted()
        walk.learn(np.array([1]), np.zeros(1))
    assert len(whole.wanted()) == 5
    assert steps.wanted().tolist() == [1, 2]
    steps.learn(np.array([2, 3, 5, 7]), np.log([1.0, 1.0 - 2e-8, 1e-8, 1e-8]))
    assert steps.wanted().tolist() == [3]


def test_a_label_of_one_token_is_known_with_the_first_step():
    walk = LabelWalk(LabelTree([(1,), (2,)]), prune=0.0, room=0)
    walk.wanted()
    walk.learn(np.array([1, 2]), np.log([0.25, 0.5]))
    assert len(walk.wanted()) == 0
    np.testing.assert_allclose(np.exp(walk.scores()), [0.25, 0.5])


def test_what_is_not_a_number_is_not_left_out():
    walk = LabelWalk(LabelTree([(1, END), (2, END)]), prune=0.01, room=10)
    walk.wanted()
    walk.learn(np.array([1, 3]), np.array([-0.1, np.nan]))
    assert walk.wanted().tolist() == [1, 3]


@pytest.mark.parametrize("paths", [[(1, 2), (1,)], [(1, 2), ()], [(1, 2), (1, 2)]])
def test_a_path_that_begins_another_is_refused(paths):
    with pytest.raises(InvalidInput, match=r"label \d") as caught:
        LabelTree(paths)
    assert caught.value.remedy
