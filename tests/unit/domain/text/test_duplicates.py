import random
import time
from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.domain.duplicates import (
    NearPair,
    distinct_texts,
    near_duplicate_groups,
    near_duplicate_pairs,
    normalise_text,
    similarity,
)
from finetune.domain.errors import InvalidInput

texts = st.lists(st.text("ab c.", max_size=12) | st.text(max_size=6), max_size=12)
thresholds = st.sampled_from([0.05, 0.2, 1 / 3, 0.5, 0.6, 2 / 3, 0.75, 0.85, 1.0])


def brute_force(rows: list[str], threshold: float, shingle: int) -> list[NearPair]:
    def grams(text: str) -> set[str]:
        text = normalise_text(text)
        return {text[i : i + shingle] for i in range(len(text) - shingle + 1)} or {text}

    sets = [grams(row) for row in rows]
    found = []
    for a, b in combinations(range(len(rows)), 2):
        both, either = len(sets[a] & sets[b]), len(sets[a] | sets[b])
        if Fraction(both, either) >= Fraction(str(threshold)):
            found.append(NearPair(a, b, both / either))
    return found


def connected(pairs: list[NearPair]) -> list[tuple[int, ...]]:
    groups: list[set[int]] = []
    for a, b, _ in pairs:
        touched = [group for group in groups if a in group or b in group]
        groups = [group for group in groups if group not in touched] + [{a, b}.union(*touched)]
    return sorted(tuple(sorted(group)) for group in groups)


@given(texts, thresholds, st.integers(1, 6))
def test_the_join_equals_brute_force(rows: list[str], threshold: float, shingle: int) -> None:
    expected = brute_force(rows, threshold, shingle)
    assert sorted(near_duplicate_pairs(rows, threshold, shingle)) == expected
    assert near_duplicate_groups(rows, threshold, shingle) == connected(expected)
    for pair in expected:
        assert similarity(rows[pair.row_a], rows[pair.row_b], shingle) == pair.similarity


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.3, 0.6, 0.85]))
def test_the_join_equals_brute_force_on_edited_sentences(seed: int, threshold: float) -> None:
    rng = random.Random(seed)
    words = ["card", "lost", "stolen", "my", "please", "help", "account", "the"]
    rows = [" ".join(rng.choices(words, k=rng.randint(1, 12))) for _ in range(12)]
    rows += [row.replace("card", "cards", 1) for row in rows]
    expected = brute_force(rows, threshold, 5)
    assert sorted(near_duplicate_pairs(rows, threshold)) == expected
    assert near_duplicate_groups(rows, threshold) == connected(expected)
    odd = near_duplicate_pairs(rows, threshold, skip=lambda a, b: (a + b) % 2 == 0)
    assert sorted(odd) == [pair for pair in expected if (pair.row_a + pair.row_b) % 2]


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("  Hello,\n\tWORLD!! ", "hello world"),
        ("ﬁne—Straße", "fine strasse"),
        ("it's", "it s"),
        ("a_b-c", "a b c"),
        ("c++ 5€", "c++ 5€"),
        ("की", "की"),
        ("?!", "?!"),
        (" ", ""),
        ("a\x00b", "a\x00b"),
    ],
)
def test_normalise_text(text: str, normalised: str) -> None:
    assert normalise_text(text) == normalised


def test_distinct_texts() -> None:
    assert distinct_texts(["b", "A!", "a", "B", "c", "a."]) == [(0, 3), (1, 2, 5), (4,)]


def test_a_similarity_equal_to_the_threshold_counts() -> None:
    # 17 of 20 shingles: 0.85 exactly, which 17/20 >= 0.85 in binary arithmetic need not be.
    a, b = "abcdefghijklmnopqrstuvw", "abcdefghijklmnopqrstu"
    assert similarity(a, b, 4) == 0.9
    assert [pair.similarity for pair in near_duplicate_pairs([a, b], 0.9, 4)] == [0.9]
    assert list(near_duplicate_pairs([a, b], 0.9000001, 4)) == []


def test_bad_arguments() -> None:
    for threshold in (0.0, -1.0, 1.1, float("nan"), "0.85", None):
        with pytest.raises(InvalidInput, match="threshold"):
            near_duplicate_pairs(["a"], threshold)
    with pytest.raises(InvalidInput, match="shingle"):
        near_duplicate_pairs(["a"], 0.5, 0)
    with pytest.raises(InvalidInput, match="row 1"):
        near_duplicate_pairs(["a", None])


def test_progress_is_reported_to_the_end() -> None:
    calls: list[tuple[int, int]] = []
    texts = [f"text number {i}" for i in range(1100)]
    near_duplicate_groups([*texts, *texts], on_progress=lambda *call: calls.append(call))
    assert calls == [(0, 1100), (512, 1100), (1024, 1100), (1100, 1100)]


def test_many_short_texts_and_a_long_one_are_quick() -> None:
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(2000)]
    rows = [" ".join(rng.choices(words, k=rng.randint(3, 20))) for _ in range(4000)]
    rows += [row + " indeed so" for row in rows[:50] if len(row) > 80] + [
        " ".join(rng.choices(words, k=15_000))
    ]
    started = time.process_time()
    pairs = list(near_duplicate_pairs(rows))
    assert time.process_time() - started < 10
    assert len(pairs) >= 20
