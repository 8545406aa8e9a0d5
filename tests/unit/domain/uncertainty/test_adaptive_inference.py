"""The adaptive level, and prediction sets of a stream at that level."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.domain.conformal.adaptive import HISTORIES, AdaptiveConformalPredictor
from finetune.domain.conformal.online import AdaptiveLevel
from finetune.domain.conformal.quantile import conformal_quantile
from finetune.domain.conformal.scores import conformal_scores
from finetune.domain.errors import InvalidInput

levels = st.floats(0.01, 0.99)


@given(levels, st.floats(0.001, 3.0), levels, st.lists(st.booleans(), max_size=300))
def test_bound_holds_for_every_sequence(alpha, gamma, start, hits):
    level = AdaptiveLevel(alpha, gamma=gamma, start=start)
    assert level.bound == math.inf
    assert level.miscoverage is None
    recursive = start
    for hit in hits:
        covered = level.value <= 0 or (hit and level.value < 1)
        level.update(covered)
        recursive += gamma * (alpha - (not covered))
        assert level.value == pytest.approx(recursive, abs=1e-9)
        assert -gamma - 1e-9 <= level.value <= 1 + gamma + 1e-9
        assert abs(level.miscoverage - alpha) <= level.bound + 1e-9
    if hits:
        # Not only a bound: what is missing to alpha is what the level has moved.
        moved = (start - level.value) / (gamma * level.n)
        assert level.miscoverage - alpha == pytest.approx(moved, abs=1e-9)


def test_bound_is_that_of_the_paper():
    level = AdaptiveLevel(0.1, gamma=0.05)
    for _ in range(1000):
        level.update(covered=level.value <= 0)
    assert level.bound == pytest.approx((0.9 + 0.05) / (0.05 * 1000))
    assert level.miscoverage == pytest.approx(0.1, abs=0.019)


def test_impossible_outcomes_are_refused():
    level = AdaptiveLevel(0.5, gamma=1.0)
    level.update(covered=False)
    assert level.value <= 0
    with pytest.raises(InvalidInput, match="set of all labels was missed"):
        level.update(covered=False)
    level = AdaptiveLevel(0.5, gamma=1.0)
    level.update(covered=True)
    assert level.value >= 1
    with pytest.raises(InvalidInput, match="set without labels held"):
        level.update(covered=True)
    assert level.n == 1


def test_statement_of_the_level():
    level = AdaptiveLevel(0.1, gamma=0.05)
    assert "tends to 0.1" in level.statement
    assert "After" not in level.statement
    level.update(covered=True)
    assert "says nothing yet" in level.statement
    for _ in range(999):
        level.update(covered=level.value <= 0)
    assert "After 1000 cases the share is 0.1" in level.statement
    assert "0.019" in level.statement


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 0.0},
        {"alpha": 1},
        {"gamma": 0.0},
        {"gamma": -1},
        {"gamma": math.inf},
        {"gamma": math.nan},
        {"gamma": None},
        {"gamma": 10**400},
        {"start": 1.0},
        {"start": "a"},
    ],
)
def test_bad_options_of_the_level(options):
    with pytest.raises(InvalidInput):
        AdaptiveLevel(**options)


@pytest.mark.parametrize("covered", [1, 0.0, None, "yes", [True]])
def test_covered_is_a_bool(covered):
    with pytest.raises(InvalidInput):
        AdaptiveLevel().update(covered)


@given(levels, st.floats(0.001, 3.0), st.lists(st.booleans(), max_size=50))
def test_level_survives_a_restart(alpha, gamma, hits):
    level = AdaptiveLevel(alpha, gamma=gamma)
    for hit in hits:
        level.update(level.value <= 0 or (hit and level.value < 1))
    again = AdaptiveLevel.from_dict(json.loads(json.dumps(level.to_dict(), allow_nan=False)))
    assert again.to_dict() == level.to_dict()
    assert (again.value, again.bound) == (level.value, level.bound)


@pytest.mark.parametrize(
    "change",
    [{"n": -1}, {"n_missed": 2}, {"n": 10**6}, {"n": 10**400}, {"gamma": 0.0}, {"start": 2.0}, {"kind": 0}],
)
def test_bad_records_of_the_level(change):
    level = AdaptiveLevel()
    level.update(covered=True)
    with pytest.raises(InvalidInput):
        AdaptiveLevel.from_dict(level.to_dict() | change)


def draw(seed, n=120, k=4):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(k), size=n), rng.integers(0, k, size=n)


@pytest.mark.parametrize("history", HISTORIES)
def test_sets_equal_the_definition(history):
    rows, labels = draw(0, n=200)
    before = 30
    predictor = AdaptiveConformalPredictor(gamma=0.1, history=history)
    predictor.calibrate(rows[:before], labels[:before], alpha=0.3)
    scores = conformal_scores(rows, "lac")
    known = scores[np.arange(before), labels[:before]].tolist()
    alpha_t = 0.3
    for row, label, score in zip(rows[before:], labels[before:], scores[before:], strict=True):
        if alpha_t <= 0:
            threshold = math.inf
        elif alpha_t >= 1:
            threshold = -math.inf
        else:
            threshold = conformal_quantile(known, alpha_t)
        np.testing.assert_array_equal(predictor.predict(row), score <= threshold)
        covered = predictor.update(label)
        assert covered == (score[label] <= threshold)
        alpha_t += 0.1 * (0.3 - (not covered))
        if history != "fixed":
            known.append(score[label])
        if history == "sliding":
            known.pop(0)
    assert predictor.level.value == pytest.approx(alpha_t)
    assert predictor.level.n == 170


@pytest.mark.parametrize("history", HISTORIES)
@given(st.integers(0, 10**6))
@settings(max_examples=10)
def test_misses_stay_within_the_bound_against_an_adversary(history, seed):
    rows, labels = draw(seed, n=300, k=3)
    rng = np.random.default_rng(seed)
    predictor = AdaptiveConformalPredictor("aps", gamma=0.2, history=history, randomized=True, rng=rng)
    predictor.calibrate(rows[:20], labels[:20], alpha=0.2)
    for row in rows[20:]:
        in_set = predictor.predict(row)
        assert predictor.update(int(in_set.argmin())) == in_set.all()  # a label that is missing, if one is
    assert predictor.level.bound < 0.02
    assert abs(predictor.level.miscoverage - 0.2) <= predictor.level.bound + 1e-12
    assert "After 280 cases" in predictor.statement


@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize("waiting", [False, True])
def test_predictor_survives_a_restart_even_between_predict_and_update(history, waiting):
    rows, labels = draw(1)
    rows[::3] = np.eye(4)[rows[::3].argmax(axis=1)]  # scores of +inf
    rng = np.random.default_rng(0)
    predictor = AdaptiveConformalPredictor("aps", gamma=0.1, history=history, randomized=True, rng=rng)
    predictor.calibrate(rows[:20], labels[:20], alpha=0.2)
    for row, label in zip(rows[20:70], labels[20:70], strict=True):
        predictor.predict(row)
        predictor.update(label)
    if waiting:
        predictor.predict(rows[70])
    record = json.loads(json.dumps(predictor.to_dict(), allow_nan=False))
    again = AdaptiveConformalPredictor.from_dict(record, rng=np.random.default_rng(5))
    rng.bit_generator.state = np.random.default_rng(5).bit_generator.state
    assert again.to_dict() == predictor.to_dict()
    for row, label in zip(rows[70:], labels[70:], strict=True):
        if waiting:
            waiting = False
        else:
            np.testing.assert_array_equal(again.predict(row), predictor.predict(row))
        assert again.update(label) == predictor.update(label)
    assert again.to_dict() == predictor.to_dict()


def test_predict_and_update_alternate():
    rows, labels = draw(2)
    predictor = AdaptiveConformalPredictor(gamma=0.1)
    with pytest.raises(InvalidInput, match="not calibrated"):
        predictor.predict(rows[0])
    with pytest.raises(InvalidInput, match="call predict first"):
        predictor.update(0)
    predictor.calibrate(rows, labels, alpha=0.2)
    predictor.predict(rows[0])
    with pytest.raises(InvalidInput, match="was not told"):
        predictor.predict(rows[1])
    predictor.discard()
    assert predictor.level.n == 0
    predictor.predict(rows[1])
    for label in (4, -1, 0.0, None, True):
        with pytest.raises(InvalidInput):
            predictor.update(label)
    predictor.update(0)
    assert predictor.level.n == 1


@pytest.mark.parametrize(
    "row", [[0.5, 0.5], 0.5, [[0.25] * 4], [0.5, 0.5, 0.5, 0.5], [math.nan] * 4, None, [[1], 2]]
)
def test_bad_rows(row):
    rows, labels = draw(3)
    predictor = AdaptiveConformalPredictor().calibrate(rows, labels)
    with pytest.raises(InvalidInput):
        predictor.predict(row)
    assert predictor.predict(rows[0]).shape == (4,)


@pytest.mark.parametrize("options", [{"history": "all"}, {"gamma": 0}, {"start": 0.0}, {"method": "x"}])
def test_bad_options_of_the_predictor(options):
    with pytest.raises(InvalidInput):
        AdaptiveConformalPredictor(**options)


@pytest.mark.parametrize(
    "change",
    [
        {"scores": []},
        {"scores": [math.nan]},
        {"pending": [0.0]},
        {"pending": []},
        {"n_labels": 1},
        {"level": {}},
        {"history": "x"},
    ],
)
def test_bad_records_of_the_predictor(change):
    rows, labels = draw(4)
    record = AdaptiveConformalPredictor().calibrate(rows, labels).to_dict()
    with pytest.raises(InvalidInput):
        AdaptiveConformalPredictor.from_dict(record | change)


def test_reading_a_record_takes_no_room_for_its_number_of_labels():
    rows, labels = draw(4)
    record = AdaptiveConformalPredictor().calibrate(rows, labels).to_dict() | {"n_labels": 10**400}
    with pytest.raises(InvalidInput, match="was calibrated with"):
        AdaptiveConformalPredictor.from_dict(record).predict(rows[0])
