from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from benchmarks.objective_tasks import CONDITIONS, drawn, load_rows, thinned, with_noise
from hypothesis import given, settings
from hypothesis import strategies as st


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 20), st.integers(1, 300))
def test_noise_gives_exactly_a_share_another_label(seed, n_labels, n):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_labels, size=n)
    noisy = with_noise(labels, n_labels, 0.2, rng)
    assert (noisy != labels).sum() == round(0.2 * n)
    assert noisy.min() >= 0
    assert noisy.max() < n_labels


def test_every_other_label_is_as_likely_as_noise():
    labels = np.full(60_000, 2)
    noisy = with_noise(labels, 4, 0.5, np.random.default_rng(0))
    counts = np.bincount(noisy, minlength=4)
    assert counts[2] == 30_000
    assert np.abs(counts[[0, 1, 3]] - 10_000).max() < 5 * math.sqrt(30_000 * 2 / 9)


def test_frequencies_fall_geometrically():
    labels = np.repeat(np.arange(5), 1000)
    kept = thinned(labels, 5, 10.0, np.random.default_rng(0))
    counts = sorted(np.bincount(labels[kept]), reverse=True)
    assert counts == [1000, 562, 316, 178, 100]
    assert (np.diff(kept) > 0).all()


def test_labels_keep_their_order_of_frequency():
    labels = np.repeat(np.arange(3), [50, 200, 100])
    counts = np.bincount(labels[thinned(labels, 3, 16.0, np.random.default_rng(0))])
    assert counts.tolist() == [12, 200, 50]


@settings(deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(1, 40), min_size=2, max_size=8))
def test_thinning_leaves_each_label_a_row_and_repeats_none(seed, sizes):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    kept = thinned(labels, len(sizes), 10.0, np.random.default_rng(seed))
    assert len(set(kept.tolist())) == len(kept)
    assert set(labels[kept].tolist()) == set(range(len(sizes)))


def test_parts_are_drawn_apart_and_evenly():
    labels = np.repeat(np.arange(4), 10)
    parts = drawn(labels, [5, 2, 3], np.random.default_rng(0))
    assert sorted(np.concatenate(parts).tolist()) == list(range(40))
    assert [np.bincount(labels[part]).tolist() for part in parts] == [[5] * 4, [2] * 4, [3] * 4]
    # Rows of one label behind another would be none of the others where only the first are taken.
    assert len(set(labels[parts[0][:5]].tolist())) > 1


def test_too_few_rows_of_a_label_are_an_error():
    with pytest.raises(ValueError, match="label 1 has 2 rows; 3 are needed"):
        drawn(np.array([0, 0, 0, 1, 1]), [2, 1], np.random.default_rng(0))


def test_conditions_spoil_the_rows_that_train_and_leave_those_that_test():
    clean, noise, imbalance = (load_rows("demo", condition, 3, Path()) for condition in CONDITIONS)
    for part in ("calibration", "test"):
        assert clean.parts[part] == noise.parts[part] == imbalance.parts[part]
    for part in ("train", "validation"):
        pairs = list(zip(clean.parts[part], noise.parts[part], strict=True))
        assert all(a.text == b.text for a, b in pairs)
        assert sum(a.label != b.label for a, b in pairs) == round(0.2 * len(pairs))
    assert imbalance.parts["validation"] == clean.parts["validation"]
    assert {row.id for row in imbalance.parts["train"]} < {row.id for row in clean.parts["train"]}
