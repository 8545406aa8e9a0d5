"""Rows in parts, in any order, give what they give at once: laws of every accumulator."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.domain.accumulators import (
    AccuracyAccumulator,
    BrierAccumulator,
    ClasswiseAccumulator,
    ConfusionAccumulator,
    CoverageAccumulator,
    GroupedAccumulator,
    LogLossAccumulator,
    Mean,
    Proportion,
    ReliabilityAccumulator,
    SelectionAccumulator,
    SmoothErrorAccumulator,
)
from finetune.domain.calibration import (
    brier_parts,
    classwise_bins,
    compute_brier_score,
    compute_log_loss,
    compute_smooth_ece,
    reliability_bins,
)
from finetune.domain.errors import InvalidInput
from finetune.domain.statistics import clopper_pearson_interval, wilson_interval
from finetune.domain.sums import Sums

K = 4


def rows_over_labels(rng, n):
    return rng.dirichlet(np.full(K, 0.3), size=n), rng.integers(K, size=n)


def event(rng, n):
    return rng.random(n), rng.integers(2, size=n)


def labels_twice(rng, n):
    return rng.integers(K, size=n), rng.integers(K, size=n)


def prediction_sets(rng, n):
    return rng.random((n, K)) < 0.5, rng.integers(K, size=n)


def decisions(rng, n):
    return rng.random(n) < 0.7, rng.random(n) < 0.2, rng.lognormal(0, 3, size=n) * rng.choice([-1, 1], n)


KINDS = {
    "reliability": (lambda: ReliabilityAccumulator(7), rows_over_labels),
    "reliability of an event": (ReliabilityAccumulator, event),
    "classwise": (lambda: ClasswiseAccumulator(K, 5), rows_over_labels),
    "smooth": (SmoothErrorAccumulator, event),
    "brier": (lambda: BrierAccumulator(K), rows_over_labels),
    "brier of an event": (BrierAccumulator, event),
    "log loss": (LogLossAccumulator, rows_over_labels),
    "accuracy": (AccuracyAccumulator, labels_twice),
    "confusion": (lambda: ConfusionAccumulator(K), labels_twice),
    "coverage": (lambda: CoverageAccumulator(K), prediction_sets),
    "selection": (SelectionAccumulator, decisions),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def filled(kind, columns):
    accumulator = KINDS[kind][0]()
    accumulator.update(*columns)
    return accumulator


def assert_same(one, other, scale=1.0):
    one, other = one.to_dict(), other.to_dict()
    assert one["counts"] == other["counts"]
    assert one["settings"] == other["settings"]
    half = len(one["sums"]) // 2
    totals = [np.add(state["sums"][:half], state["sums"][half:]) for state in (one, other)]
    np.testing.assert_allclose(*totals, rtol=1e-12, atol=1e-12 * scale)


@every_kind
@given(seed=st.integers(0, 10**6), n=st.integers(3, 300), n_parts=st.integers(2, 6))
@settings(max_examples=15, deadline=None)
def test_parts_in_any_order_and_grouping_give_what_all_rows_give(kind, seed, n, n_parts):
    rng = np.random.default_rng(seed)
    columns = KINDS[kind][1](rng, n)
    scale = np.abs(columns[-1]).sum() ** 2 if kind == "selection" else n
    whole = filled(kind, columns)
    parts = [
        filled(kind, [column[rows] for column in columns])
        for rows in np.array_split(rng.permutation(n), n_parts)
        if len(rows)
    ]
    while len(parts) > 1:  # a random tree of merges
        one, other = (parts.pop(rng.integers(len(parts))) for _ in range(2))
        parts.append(one.merge(other))
    assert_same(parts[0], whole, scale)
    in_turn = KINDS[kind][0]()
    for rows in np.array_split(np.arange(n), n_parts):
        if len(rows):
            in_turn.update(*(column[rows] for column in columns))
    assert_same(in_turn, whole, scale)


@every_kind
@given(seed=st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_merge_is_associative_and_commutative_and_empty_is_neutral(kind, seed):
    rng = np.random.default_rng(seed)
    a, b, c = (filled(kind, KINDS[kind][1](rng, 50)) for _ in range(3))
    before = a.to_dict()
    scale = 1e7 if kind == "selection" else 1.0
    assert_same(a.merge(b).merge(c), a.merge(b.merge(c)), scale)
    assert a.merge(b).to_dict()["counts"] == b.merge(a).to_dict()["counts"]
    assert_same(a.merge(b), b.merge(a), scale)
    assert_same(a.merge(a.empty()), a)
    assert a.to_dict() == before


@every_kind
def test_state_survives_json(kind):
    accumulator = filled(kind, KINDS[kind][1](np.random.default_rng(0), 100))
    text = json.dumps(accumulator.to_dict(), allow_nan=False)
    read = type(accumulator).from_dict(json.loads(text))
    assert read.to_dict() == accumulator.to_dict()
    more = KINDS[kind][1](np.random.default_rng(1), 20)
    read.update(*more)
    accumulator.update(*more)
    assert read.to_dict() == accumulator.to_dict()


@every_kind
def test_nothing_is_estimable_before_the_first_row(kind):
    result = KINDS[kind][0]().result()
    values = {
        "confusion": lambda: result.accuracy.value,
        "coverage": lambda: result.share.value or result.size.value or result.size_of_label[0].value,
        "selection": lambda: result.answered.value or result.errors.value or result.cost.value,
    }.get(kind, lambda: getattr(result, "value", None))()
    assert values is None
    assert (
        KINDS[kind][0]().to_dict()
        == filled(kind, KINDS[kind][1](np.random.default_rng(0), 5)).empty().to_dict()
    )


@every_kind
def test_records_that_contradict_themselves_are_refused(kind):
    accumulator = filled(kind, KINDS[kind][1](np.random.default_rng(0), 30))
    good, cls = accumulator.to_dict(), type(accumulator)
    name = next(iter(good["counts"]))
    changes = [
        {"kind": "another"},
        {"version": 2},
        {"settings": {"rows": 3}},
        {"counts": {}},
        {"counts": {**good["counts"], name: good["counts"][name] + [1]}},
        {"counts": {**good["counts"], name: [-1] * len(good["counts"][name])}},
        {"counts": {**good["counts"], name: [1.5] * len(good["counts"][name])}},
        {"sums": [*good["sums"], 0.0]},
        {"sums": [math.nan] * len(good["sums"]) or [0.0]},
        {"more": 1},
    ]
    if kind != "confusion":  # any table of confusions can come about
        changes.append({"counts": {**good["counts"], name: [0] * len(good["counts"][name])}})
    for change in changes:
        with pytest.raises(InvalidInput):
            cls.from_dict({**good, **change})
    for key in good:
        with pytest.raises(InvalidInput):
            cls.from_dict({k: v for k, v in good.items() if k != key})
    with pytest.raises(InvalidInput):
        cls.from_dict([])


@every_kind
def test_what_counts_something_else_does_not_merge(kind):
    accumulator = KINDS[kind][0]()
    others = [make() for name, (make, _) in KINDS.items() if type(make()) is not type(accumulator)]
    for other in (*others, None, ReliabilityAccumulator(99), CoverageAccumulator(99), BrierAccumulator(99)):
        with pytest.raises(InvalidInput, match="merge accumulators that were made alike"):
            accumulator.merge(other)


BAD_LAST_ROW = {
    "reliability": ([[0.25] * K, [0.3] * K], [0, 1]),
    "reliability of an event": ([0.5, 1.5], [0, 1]),
    "classwise": ([[0.25] * K, [0.25] * K], [0, K]),
    "smooth": ([0.5, np.nan], [0, 1]),
    "brier": ([[0.5, 0.5], [0.5, 0.5]], [0, 1]),
    "brier of an event": ([[0.5, 0.5], [0.5, 0.5]], [0, 1]),
    "log loss": ([[0.25] * K, [0.25] * K], [0, -1]),
    "accuracy": ([0, 1], [0]),
    "confusion": ([0, K], [0, 1]),
    "coverage": ([[0.2] * K, [0.3] * K], [0, 1]),
    "selection": ([True, False], [True, False], [1.0, np.inf]),
}


@every_kind
def test_an_update_that_is_refused_changes_nothing(kind):
    accumulator = filled(kind, KINDS[kind][1](np.random.default_rng(0), 30))
    before = accumulator.to_dict()
    good = KINDS[kind][1](np.random.default_rng(1), 5000)
    cut = [column[:-1] for column in good[1:]]
    for columns in (BAD_LAST_ROW[kind], (good[0], *cut), (None, *good[1:]), (good[0], None)):
        with pytest.raises(InvalidInput):
            accumulator.update(*columns)
    assert accumulator.to_dict() == before


def test_results_are_those_of_the_functions():
    rng = np.random.default_rng(5)
    rows, labels = rows_over_labels(rng, 9000)
    p, y = event(rng, 9000)
    bins = filled("reliability", (rows, labels)).result()
    assert bins.to_dict() == reliability_bins(rows, labels, 7).to_dict()
    classwise = filled("classwise", (rows, labels)).result()
    assert classwise.ece == classwise_bins(rows, labels, 5).ece
    assert brier_parts(classwise).score == pytest.approx(compute_brier_score(rows, labels))
    assert filled("smooth", (p, y)).result() == compute_smooth_ece(p, y)
    assert filled("brier", (rows, labels)).result().value == pytest.approx(compute_brier_score(rows, labels))
    assert filled("brier of an event", (p, y)).result().value == pytest.approx(compute_brier_score(p, y))
    found = filled("log loss", (rows, labels)).result()
    assert found.value == pytest.approx(compute_log_loss(rows, labels))
    losses = -np.log(rows[np.arange(9000), labels])
    low, high, _ = found.interval(0.9)
    half = 1.6448536269514722 * losses.std(ddof=1) / math.sqrt(9000)
    assert (low, high) == pytest.approx((losses.mean() - half, losses.mean() + half))


def test_log_loss_is_infinite_as_soon_as_one_row_is():
    accumulator = LogLossAccumulator()
    accumulator.update([[1.0, 0.0], [0.5, 0.5]], [1, 0])
    assert accumulator.result().value == math.inf
    assert accumulator.result().interval() is None
    json.dumps(accumulator.to_dict(), allow_nan=False)
    accumulator = LogLossAccumulator("logits")
    accumulator.update([[800.0, 0.0]], [1])
    assert accumulator.result().value == pytest.approx(800.0)


def test_a_million_rows_in_ten_files_give_what_one_file_gives():
    rng = np.random.default_rng(9)
    p = rng.random(1_000_000, dtype=np.float32)
    y = rng.random(1_000_000) < p
    parts = []
    for rows in np.array_split(np.arange(1_000_000), 10):
        parts.append(ReliabilityAccumulator())
        parts[-1].update(p[rows], y[rows])
    merged = ReliabilityAccumulator()
    for i in rng.permutation(10):
        merged = merged.merge(ReliabilityAccumulator.from_dict(parts[i].to_dict()))
    bins = merged.result()
    assert bins.counts.sum() == 1_000_000
    assert_same(merged, filled("reliability of an event", (p, y)))
    first = p[p <= np.float32(0.1)].astype(np.float64)
    assert bins.counts[0] == len(first)
    assert bins.confidence_sums[0] == pytest.approx(math.fsum(first), rel=1e-12)


def test_a_repeated_number_loses_nothing():
    p = np.full(200_000, 0.1)
    accumulator = ReliabilityAccumulator()
    for _ in range(2):
        accumulator.update(p, np.zeros(len(p), int))
    exact = 0.1 * 400_000
    assert accumulator.result().confidence_sums[0] == pytest.approx(exact, rel=1e-12)


@given(st.lists(st.floats(-1e15, 1e15), max_size=60))
@settings(deadline=None)
def test_sums_are_those_of_exact_arithmetic(terms):
    sums, halves = Sums(), (Sums(), Sums())
    for i, term in enumerate(terms):
        sums.add(term)
        halves[i % 2].add(term)
    halves[0].include(halves[1])
    for found in (sums, halves[0]):
        assert float(found.value) == pytest.approx(math.fsum(terms), rel=1e-15, abs=1e-14)


def test_confusions():
    accumulator = ConfusionAccumulator(3)
    accumulator.update([0, 0, 1, 1], [0, 1, 1, 1])
    table = accumulator.result()
    assert table.matrix.tolist() == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]
    assert table.accuracy == Proportion(3, 4)
    assert table.recall(1) == Proportion(2, 3)
    assert table.precision(0) == Proportion(1, 2)
    assert table.recall(2).value is None
    assert table.precision(2).interval() is None


def test_coverage_and_sizes():
    rng = np.random.default_rng(6)
    sets, labels = prediction_sets(rng, 6000)
    found = filled("coverage", (sets, labels)).result()
    held, sizes = sets[np.arange(6000), labels], sets.sum(axis=1)
    assert found.share == Proportion(held.sum(), 6000)
    assert found.share_of_label[2] == Proportion(held[labels == 2].sum(), (labels == 2).sum())
    assert found.empty == Proportion((sizes == 0).sum(), 6000)
    assert found.size.value == pytest.approx(sizes.mean())
    assert found.size_of_label[1].value == pytest.approx(sizes[labels == 1].mean())
    half = 1.959963984540054 * sizes.std(ddof=1) / math.sqrt(6000)
    assert found.size.interval().high == pytest.approx(sizes.mean() + half)
    for bad in (sets.astype(int), sets[:, :2], sets[0]):
        with pytest.raises(InvalidInput):
            CoverageAccumulator(K).update(bad, labels)


def test_selection():
    answered, wrong, costs = decisions(np.random.default_rng(7), 500)
    found = filled("selection", (answered, wrong, costs)).result()
    assert found.answered == Proportion(answered.sum(), 500)
    assert found.errors == Proportion((answered & wrong).sum(), answered.sum())
    assert found.cost.value == pytest.approx(costs.mean())
    without = SelectionAccumulator()
    without.update([0, 0], [1, 1])
    assert without.result().errors.value is None  # nothing was answered: 0 / 0
    assert without.result().cost.value is None


def test_intervals_of_estimates():
    assert Proportion(8, 10).interval(0.9) == wilson_interval(8, 10, 0.9)
    assert Proportion(8, 10).interval(0.9, exact=True) == clopper_pearson_interval(8, 10, 0.9)
    assert Proportion(0, 0).interval() is None
    assert Mean(1, 2.0, 4.0).interval() is None
    assert Mean(3, 0.3, 3 * 0.1**2).interval().low == pytest.approx(0.1)
    with pytest.raises(InvalidInput):
        Mean(3, 0.3, 0.1).interval(95)


@pytest.mark.parametrize("kind", ["reliability", "coverage", "selection", "log loss"])
def test_groups_are_the_rows_of_each_group(kind):
    rng = np.random.default_rng(8)
    columns = KINDS[kind][1](rng, 400)
    names = rng.choice(["a", "b", "ü"], size=400)
    grouped = GroupedAccumulator(KINDS[kind][0]())
    for rows in np.array_split(rng.permutation(400), 3):
        part = GroupedAccumulator(KINDS[kind][0]())
        part.update(names[rows].tolist(), *(column[rows] for column in columns))
        grouped = grouped.merge(part)
    state = json.loads(json.dumps(grouped.to_dict(), allow_nan=False))
    grouped = GroupedAccumulator.from_dict(state, type(KINDS[kind][0]()))
    assert grouped.to_dict() == state
    for name in ("a", "b", "ü"):
        alone = filled(kind, [column[names == name] for column in columns])
        same = type(alone).from_dict(state["groups"][name])
        assert_same(same, alone, 1e6)
    assert_same(type(alone).from_dict(state["overall"]), filled(kind, columns), 1e6)
    assert sorted(grouped.result().groups) == ["a", "b", "ü"]


def test_groups_that_are_no_names_are_refused_and_nothing_is_added():
    grouped = GroupedAccumulator(AccuracyAccumulator())
    for groups in (["a"], [1, 2], ["a", 1], ["a", None], None, "ab", [["a", "b"]]):
        with pytest.raises(InvalidInput):
            grouped.update(groups, [0, 1], [0, 1])
    with pytest.raises(InvalidInput):
        grouped.update(["a", "b"], [0, 1], [0])
    assert grouped.result().overall == Proportion(0, 0)
    with pytest.raises(InvalidInput):
        grouped.merge(AccuracyAccumulator())
    with pytest.raises(InvalidInput):
        grouped.merge(GroupedAccumulator(ConfusionAccumulator(2)))
    record = grouped.to_dict()
    record["groups"]["a"] = ReliabilityAccumulator().to_dict()
    with pytest.raises(InvalidInput):
        GroupedAccumulator.from_dict(record, AccuracyAccumulator)


def test_costs_may_be_left_out_of_groups():
    grouped = GroupedAccumulator(SelectionAccumulator())
    grouped.update(["a", "b"], [True, False], [False, False], None)
    assert grouped.result().groups["a"].answered == Proportion(1, 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ReliabilityAccumulator(0),
        lambda: ClasswiseAccumulator(1),
        lambda: ClasswiseAccumulator(3, 0),
        lambda: BrierAccumulator(1),
        lambda: LogLossAccumulator("scores"),
        lambda: ConfusionAccumulator("3"),
        lambda: CoverageAccumulator(True),
        lambda: GroupedAccumulator("accuracy"),
    ],
)
def test_bad_settings_are_refused(make):
    with pytest.raises(InvalidInput):
        make()


@pytest.mark.parametrize("label", [-1, 2, 0.0, "a"])
def test_labels_that_a_confusion_does_not_have_are_refused(label):
    accumulator = ConfusionAccumulator(2)
    accumulator.update([0, 1], [0, 1])
    for share in (accumulator.result().recall, accumulator.result().precision):
        with pytest.raises(InvalidInput):
            share(label)
