from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.domain.duplicates import normalise_text
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
    parts = Counter(zip(labels, splits, strict=True))
    for label, n in (("a", n_a), ("b", n_b)):
        for split in ("train", "validation"):
            assert abs(parts[label, split] - n * fractions[split]) < 1
        held = parts[label, "calibration"] + parts[label, "test"]
        assert abs(held - n * (fractions["calibration"] + fractions["test"])) < 1
    sizes = Counter(splits)
    held = sizes["calibration"] + sizes["test"]
    whole = fractions["calibration"] + fractions["test"]
    assert whole == 0 or abs(sizes["test"] - held * fractions["test"] / whole) < 1


def test_exact_fractions_are_not_lost_to_binary_arithmetic() -> None:
    splits = assign_splits(numbered(10), ["a"] * 10, {"train": 0.7, "validation": 0.1, "test": 0.2}, seed=3)
    assert Counter(splits) == {"train": 7, "validation": 1, "test": 2}


def test_splits_are_the_same_on_every_platform() -> None:
    splits = assign_splits(numbered(12), ["a", "b"] * 6, FRACTIONS, seed=7)
    assert "".join(split[0] + split[1] for split in splits) == "trtecatrtrtrtetrvacatrva"


def test_seeds_differ() -> None:
    divisions = {tuple(assign_splits(numbered(30), ["a"] * 30, FRACTIONS, seed)) for seed in range(20)}
    assert len(divisions) == 20


def test_calibration_and_test_rows_are_exchangeable_between_labels() -> None:
    # The one rare row is always held out, whatever its first hash; were that hash used again, or the block
    # cut label by label, the row would be in test in 3 of 10 divisions, or in none.
    texts, labels = numbered(41), ["rare"] + ["common"] * 40
    in_test = []
    for seed in range(1500):
        splits = assign_splits(texts, labels, {"train": 0.4, "calibration": 0.3, "test": 0.3}, seed)
        in_test += [split == "test" for split, label in zip(splits, labels, strict=True)
                    if label == "rare" and split in ("calibration", "test")]  # fmt: skip
    assert len(in_test) == 1500
    assert abs(np.mean(in_test) - 0.5) < 4 * 0.5 / np.sqrt(1500)


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({"train": 0.5}, "do not sum to 1"),
        ({"train": 1.0 + 1e-8}, "not in"),
        ({"train": 1.5, "test": -0.5}, "not in"),
        ({"train": float("nan")}, "not in"),
        ({"train": 0.5, "dev": 0.5}, "unknown split"),
        ({}, "do not sum to 1"),
    ],
)
def test_bad_fractions(fractions: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        assign_splits(["a"], ["x"], fractions, 0)


def test_bad_rows() -> None:
    with pytest.raises(InvalidInput, match="labels and texts differ"):
        assign_splits(["a"], [], FRACTIONS, 0)
    with pytest.raises(InvalidInput, match="row 1: unknown split"):
        assign_splits(["a", "b"], ["x", "x"], FRACTIONS, 0, [None, "dev"])
    with pytest.raises(InvalidInput, match="splits and texts differ"):
        detect_leakage(["a"], [])


@given(
    st.lists(st.text(max_size=6), unique_by=normalise_text),
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
    assert detect_leakage(texts, ["train", "train", "test", "test"]) == [
        Leak(0, 2, "train", "test", 1.0),
        Leak(1, 2, "train", "test", 1.0),
    ]


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
    assert report.conflicting == []


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
