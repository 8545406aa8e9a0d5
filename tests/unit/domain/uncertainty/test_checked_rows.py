"""Rows that are checked once, and rows that are checked while they are read."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.domain import CheckedRows, ClassConditionalPredictor, ConformalPredictor, compute_ece
from finetune.domain.calibration import compute_brier_score, compute_log_loss
from finetune.domain.calibration.confidence import claimed_confidence, confidence_and_hits
from finetune.domain.conformal import METHODS
from finetune.domain.conformal.categories import calibrate_categories
from finetune.domain.errors import InvalidInput
from finetune.domain.probabilities import as_rows
from finetune.domain.row_reader import open_rows, row_blocks


def probabilities(rng, n, n_labels, dtype=np.float32):
    return rng.dirichlet(np.ones(n_labels), size=n).astype(dtype)


@pytest.mark.parametrize("n_labels", [2, 31, 32, 100])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_everything_gives_the_same_for_rows_that_were_checked_before(n_labels, dtype):
    rng = np.random.default_rng(0)
    rows, labels = probabilities(rng, 300, n_labels, dtype), np.arange(300) % n_labels
    checked = CheckedRows(rows)
    assert checked.shape == rows.shape
    assert len(checked) == 300
    for measure in (compute_ece, compute_brier_score, compute_log_loss):
        assert measure(checked, labels) == measure(rows, labels)
    for kind in (ConformalPredictor, ClassConditionalPredictor):
        for method in ("lac", "aps", "raps", "topk"):
            once, again = (kind(method).calibrate(each, labels, 0.5) for each in (checked, rows))
            assert np.array_equal(once.predict(checked), again.predict(rows))


def test_they_are_looked_at_once_only():
    rows = np.array([[0.5, 0.5], [0.25, 0.75]])
    checked = CheckedRows(rows)
    rows[1] = np.nan
    assert np.isnan(open_rows(checked).read(slice(0, 2))[1]).all()
    with pytest.raises(ValueError, match="read-only"):
        np.asarray(checked)[0] = 1.0


def test_bad_rows_are_no_checked_rows():
    with pytest.raises(InvalidInput, match=r"cal_probs\[1\]: the row sums to 1.1"):
        CheckedRows([[0.5, 0.5], [0.5, 0.6]], name="cal_probs")
    with pytest.raises(InvalidInput, match="were checked as probabilities, and are taken for logits"):
        as_rows(CheckedRows([[0.5, 0.5]]), inputs="logits")
    logits = CheckedRows([[900.0, -900.0]], inputs="logits")
    assert ConformalPredictor("lac", inputs="logits").calibrate(logits, [0]).predict(logits).all()


BAD = [np.nan, -np.nan, -0.25, np.inf, -np.inf, 1.5]


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("n_labels", [3, 31, 32, 64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("place", [0, 1, -1])
def test_a_bad_number_is_found_while_rows_are_read(value, n_labels, dtype, place):
    rng = np.random.default_rng(1)
    rows = probabilities(rng, 9, n_labels, dtype)
    rows[6, place] = value
    if np.isfinite(value):  # a sum of 1 does not hide it
        rows[6, (place + 1) % n_labels] += 1.0 - rows[6].sum()
    labels = np.zeros(9, dtype=int)
    fitted = ConformalPredictor("lac").calibrate(rows[:6], labels[:6], 0.3)
    for read in (
        lambda: compute_ece(rows, labels),
        lambda: claimed_confidence(rows),
        lambda: fitted.predict(rows),
        lambda: ConformalPredictor("lac").calibrate(rows, labels),
    ):
        with pytest.raises(InvalidInput, match=r"\[6\]"):
            read()


@pytest.mark.parametrize("method", METHODS)
def test_a_bad_row_behind_the_first_blocks_is_named_and_changes_nothing(method):
    n, n_labels = 30_000, 40
    rows, labels = np.full((n, n_labels), 1 / n_labels, dtype=np.float32), np.arange(n) % n_labels
    bad = rows.copy()
    bad[n - 2] *= 1.01
    assert len(list(row_blocks(rows))) > 1
    for kind in (ConformalPredictor, ClassConditionalPredictor):
        predictor = kind(method).calibrate(rows, labels)
        before = predictor.to_dict()
        with pytest.raises(InvalidInput, match=rf"cal_probs\[{n - 2}\]: the row sums to 1.01"):
            predictor.calibrate(bad, labels)
        assert predictor.to_dict() == before


@settings(deadline=None)
@given(
    n_labels=st.sampled_from([2, 5, 31, 32, 40]),
    levels=st.integers(1, 6),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_prediction_is_the_first_maximum_also_among_ties_and_negative_zeros(
    n_labels, levels, dtype, seed
):
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, levels + 1, size=(12, n_labels)).astype(dtype)
    weights[:, rng.integers(n_labels)] += 1
    rows = (weights / weights.sum(axis=1, keepdims=True)).astype(dtype)
    if rng.random() < 0.5:
        rows[rows == 0.0] = -0.0
    labels = rng.integers(n_labels, size=12)
    confidence, hits = confidence_and_hits(rows, labels)
    assert np.array_equal(confidence, np.minimum(rows.max(axis=1), 1.0))
    assert np.array_equal(hits, rows.argmax(axis=1) == labels)
    assert np.array_equal(claimed_confidence(rows), np.minimum(rows.max(axis=1), 1.0))


@given(
    n=st.integers(1, 3000),
    n_labels=st.integers(2, 200),
    bytes_made=st.integers(1, 100),
)
def test_blocks_follow_each_other_and_hold_every_row(n, n_labels, bytes_made):
    rows = np.broadcast_to(np.float32(0), (n, n_labels))
    blocks = list(row_blocks(rows, bytes_made=bytes_made))
    assert [b.start for b in blocks[1:]] == [b.stop for b in blocks[:-1]]
    assert (blocks[0].start, blocks[-1].stop) == (0, n)
    assert all(b.stop > b.start for b in blocks)


def test_categories_of_more_rows_than_are_put_in_order_at_a_time():
    rng = np.random.default_rng(2)
    scores, codes = rng.random(150_000), rng.integers(0, 5, size=150_000)
    codes[codes == 3] = 2  # a category without rows
    for category in calibrate_categories(scores, codes, range(5), 0.1):
        own = np.sort(scores[codes == category.name])
        assert category.n == len(own)
        assert category.threshold == (own[category.rank - 1] if len(own) else np.inf)
