import time
from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.domain.duplicates import normalise_text, similarity
from finetune.domain.errors import InvalidInput
from finetune.domain.splits import (
    SPLITS,
    Leak,
    Removed,
    assign_splits,
    detect_leakage,
    remove_duplicates,
    split_calibration,
)

FRACTIONS = {"train": 0.5, "validation": 0.1, "calibration": 0.2, "test": 0.2}

rows = st.lists(
    st.tuples(st.text(min_size=1, max_size=8), st.sampled_from(["a", "b", None])),
    max_size=40,
    unique_by=lambda row: normalise_text(row[0]),
)
weights = st.lists(st.integers(0, 10), min_size=4, max_size=4).filter(any)


def numbered(n: int) -> list[str]:
    return [f"message {i}" for i in range(n)]


@given(rows, weights, st.integers(0, 100), st.randoms(use_true_random=False))
def test_splits_do_not_depend_on_the_order_of_rows(data, share, seed, rng) -> None:
    fractions = {name: weight / sum(share) for name, weight in zip(SPLITS, share, strict=True)}
    presets = [rng.choice([None, None, *SPLITS]) for _ in data]
    order = list(range(len(data)))
    rng.shuffle(order)
    texts, labels = [text for text, _ in data], [label for _, label in data]
    splits = assign_splits(texts, labels, fractions, seed, presets)
    shuffled = assign_splits(
        [texts[i] for i in order], [labels[i] for i in order], fractions, seed, [presets[i] for i in order]
    )
    assert shuffled == [splits[i] for i in order]
    for split, preset in zip(splits, presets, strict=True):
        assert split in SPLITS
        assert preset is None or split == preset
        assert preset is not None or fractions[split] > 0


@given(st.integers(0, 60), st.integers(0, 60), weights)
def test_sizes_are_the_fractions_to_the_next_row(n_a: int, n_b: int, share: list[int]) -> None:
    fractions = {name: weight / sum(share) for name, weight in zip(SPLITS, share, strict=True)}
    labels = ["a"] * n_a + ["b"] * n_b
    splits = assign_splits(numbered(n_a + n_b), labels, fractions, seed=1)
    sizes, parts = Counter(splits), Counter(zip(labels, splits, strict=True))
    for pair in (("train", "validation"), ("calibration", "test")):
        both, whole = sizes[pair[0]] + sizes[pair[1]], fractions[pair[0]] + fractions[pair[1]]
        assert abs(both - len(labels) * whole) < 1 + 1e-9
        assert whole == 0 or pair[0] == "train" or abs(sizes["test"] - both * fractions["test"] / whole) < 1
    for label in "ab":
        both = parts[label, "train"] + parts[label, "validation"]
        if both:
            share_of_train = fractions["train"] / (fractions["train"] + fractions["validation"])
            assert abs(parts[label, "train"] - both * share_of_train) < 1


@given(rows, weights, st.integers(0, 100), st.randoms(use_true_random=False))
def test_labels_have_no_say_in_what_is_held_out(data, share, seed, rng) -> None:
    fractions = {name: weight / sum(share) for name, weight in zip(SPLITS, share, strict=True)}
    texts, labels = [text for text, _ in data], [label for _, label in data]
    splits = assign_splits(texts, labels, fractions, seed)
    rng.shuffle(labels)
    others = assign_splits(texts, labels, fractions, seed)
    for one, other in zip(splits, others, strict=True):
        assert one == other or {one, other} == {"train", "validation"}


def test_exact_fractions_are_not_lost_to_binary_arithmetic() -> None:
    splits = assign_splits(numbered(10), ["a"] * 10, {"train": 0.7, "validation": 0.1, "test": 0.2}, seed=3)
    assert Counter(splits) == {"train": 7, "validation": 1, "test": 2}


def test_splits_are_the_same_on_every_platform() -> None:
    splits = assign_splits(numbered(12), ["a", "b"] * 6, FRACTIONS, seed=7)
    assert "".join(split[0] + split[1] for split in splits) == "tevatrtrcatrcatecatrtrtr"


def test_seeds_differ() -> None:
    divisions = {tuple(assign_splits(numbered(30), ["a"] * 30, FRACTIONS, seed)) for seed in range(20)}
    assert len(divisions) == 20


def test_a_rare_row_is_held_out_as_often_as_any_other() -> None:
    # Stratified, the one row of its label is always in training, and calibration never meets such a label.
    texts, labels, runs = numbered(41), ["rare"] + ["common"] * 40, 1500
    seen = Counter(assign_splits(texts, labels, FRACTIONS, seed)[0] for seed in range(runs))
    for split, share in FRACTIONS.items():
        if split in ("calibration", "test"):
            size = round(41 * share) / 41
            assert abs(seen[split] / runs - size) < 4 * np.sqrt(size * (1 - size) / runs)


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({"train": 0.5}, "do not sum to 1"),
        ({"train": 1.0 + 1e-8}, "not in"),
        ({"train": 1.5, "test": -0.5}, "not in"),
        ({"train": float("nan")}, "not in"),
        ({"train": 0.5, "dev": 0.5}, "unknown split"),
        ({}, "do not sum to 1"),
        ({"train": "1"}, "not in"),
        ({"train": True}, "not in"),
        (["train"], "no table"),
    ],
)
def test_bad_fractions(fractions: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        assign_splits(["a"], ["x"], fractions, 0)


def test_bad_rows() -> None:
    with pytest.raises(InvalidInput, match="labels and texts differ"):
        assign_splits(["a"], [], FRACTIONS, 0)
    with pytest.raises(InvalidInput, match="row 1: unknown split"):
        assign_splits(["a", "b"], ["x", "x"], FRACTIONS, 0, [None, "dev"])
    with pytest.raises(InvalidInput, match="splits and texts differ"):
        detect_leakage(["a"], [])


@pytest.mark.parametrize(
    "call",
    [
        lambda texts: assign_splits(texts, ["x"] * 2, FRACTIONS, 0),
        lambda texts: detect_leakage(texts, ["train", "test"]),
        lambda texts: remove_duplicates(texts, ["x"] * 2),
        lambda texts: split_calibration(texts, 0),
    ],
)
def test_what_is_not_text_is_named_by_its_row(call: Any) -> None:
    with pytest.raises(InvalidInput, match="row 1: a text is not a string"):
        call(["a", None])


def test_keys_of_the_calibration_halves_are_all_different() -> None:
    with pytest.raises(InvalidInput, match=r"twice.*'b'"):
        split_calibration(["a", "b", "c", "b"], 0)


@given(
    st.lists(st.text(max_size=6), unique=True),
    st.integers(0, 9),
    st.randoms(use_true_random=False),
)
def test_calibration_halves(keys, seed, rng) -> None:
    mask = split_calibration(keys, seed)
    assert mask.sum() == (len(keys) + 1) // 2
    order = list(range(len(keys)))
    rng.shuffle(order)
    assert split_calibration([keys[i] for i in order], seed).tolist() == [bool(mask[i]) for i in order]


def test_leaks_are_found_across_splits_only() -> None:
    texts = ["my card was stolen today", "My card was stolen today!", "my card was stolen, today", "else"]
    assert detect_leakage(texts, ["train", "train", "test", "test"]) == [Leak(0, 2, "train", "test", 1.0)]
    assert detect_leakage(texts, ["test", "train", "validation", "test"]) == [
        Leak(0, 1, "test", "train", 1.0),
        Leak(0, 2, "test", "validation", 1.0),
        Leak(1, 2, "train", "validation", 1.0),
    ]


leak_rows = st.lists(st.tuples(st.text("ab", max_size=9), st.sampled_from(SPLITS)), max_size=15)


@given(leak_rows)
def test_leaks_equal_brute_force_over_the_texts_of_each_split(data) -> None:
    firsts: dict[tuple[str, str], int] = {}
    for row, (text, split) in enumerate(data):
        firsts.setdefault((normalise_text(text), split), row)
    expected = []
    for a, b in combinations(firsts.values(), 2):
        value = similarity(data[a][0], data[b][0])
        if value >= 0.85 and data[a][1] != data[b][1]:
            expected.append(Leak(a, b, data[a][1], data[b][1], value))
    assert detect_leakage([text for text, _ in data], [split for _, split in data]) == sorted(expected)


def test_many_copies_and_texts_of_one_template_are_quick() -> None:
    template = "Dear sir or madam, my order with the number {:05d} is still not here and I wonder why"
    texts = ["please help me, my card was stolen today"] * 4000 + [template.format(i) for i in range(1500)]
    splits = ["test"] * len(texts)
    started = time.process_time()
    assert detect_leakage(texts, splits) == []
    assert remove_duplicates(texts, ["x"] * len(texts)).largest_group == 4000
    assert time.process_time() - started < 5


A, NEAR_A, B = (
    "please help me, my card was stolen today",
    "please help me, my card was stolen todayy",
    "other",
)


def test_one_row_of_each_group_stays() -> None:
    report = remove_duplicates([A, A.upper(), NEAR_A, B], ["x", "x", "x", "x"])
    assert (report.exact, report.near) in [(1, 1), (0, 2)]
    assert report.keep.sum() == 2
    assert report.keep[3]
    assert report.conflicting == report.near_conflicting == []
    assert report.largest_group == 3
    assert remove_duplicates([A, B], ["x", "x"]).largest_group == 0


def test_the_most_protected_split_stands_for_the_group() -> None:
    preset = ["train", "test", "test", "calibration", None, "train"]
    report = remove_duplicates([A, A, NEAR_A, A, NEAR_A, B], ["x"] * 6, preset)
    assert report.keep.tolist() == [False, True, True, False, False, True]
    assert report.removed == [Removed(0, 1, 1.0), Removed(3, 1, 1.0), Removed(4, 2, 1.0)]
    assert (report.exact, report.near) == (3, 0)


def test_a_chain_names_a_row_that_stays_and_how_similar_it_is() -> None:
    words = [f"word{i:02d}" for i in range(40)]
    texts = [" ".join(words[start : start + 36]) for start in range(5)]
    report = remove_duplicates(texts, ["x"] * 5, [None, None, None, None, "test"], threshold=0.9)
    assert report.keep.tolist() == [False, False, False, False, True]
    assert [entry.kept_row for entry in report.removed] == [4, 4, 4, 4]
    values = [entry.similarity for entry in report.removed]
    assert values == sorted(values)
    assert values[0] < 0.9 < values[-1]


def test_conflicting_labels_are_reported() -> None:
    report = remove_duplicates([A, A + "!", B, B, NEAR_A, NEAR_A], ["x", "y", "x", "x", "y", None])
    assert report.conflicting == [(0, 1)]
    assert report.near_conflicting == [(0, 1, 4, 5)]


@pytest.mark.parametrize(
    ("labels", "exact", "near"),
    [
        (["x", "x", "y"], [], [(0, 1, 2)]),
        (["x", "y", None], [(0, 1)], []),
        (["x", None, "x"], [], []),
        (["x", "y", "x"], [(0, 1)], [(0, 1, 2)]),
    ],
)
def test_near_duplicates_with_different_labels_are_told_from_exact_ones(labels, exact, near) -> None:
    report = remove_duplicates([A, A + "!", NEAR_A], labels)
    assert (report.conflicting, report.near_conflicting) == (exact, near)


near_rows = st.lists(
    st.tuples(st.text("ab", max_size=9), st.sampled_from(["x", "y", None]), st.sampled_from([None, *SPLITS])),
    max_size=15,
)


@given(near_rows)
@settings(max_examples=200)
def test_what_stays_is_free_of_duplicates_and_what_goes_is_accounted_for(data) -> None:
    texts, labels, preset = ([row[i] for row in data] for i in range(3))
    report = remove_duplicates(texts, labels, preset)
    assert report.exact + report.near == len(report.removed) == (~report.keep).sum()
    kept = np.flatnonzero(report.keep)
    splits = [preset[row] or "unassigned" for row in kept]
    assert detect_leakage([texts[row] for row in kept], splits) == []
    free = [row for row in kept if preset[row] is None]
    assert len({normalise_text(texts[row]) for row in free}) == len(free)
    for entry in report.removed:
        assert not report.keep[entry.row]
        assert report.keep[entry.kept_row]
        mine, other = preset[entry.row], preset[entry.kept_row]
        assert mine is None or SPLITS.index(other) > SPLITS.index(mine)
