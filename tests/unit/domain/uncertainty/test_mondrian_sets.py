"""Thresholds by label, by group and by cluster of labels."""

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.domain.conformal import (
    METHODS,
    ClassConditionalPredictor,
    ClusteredPredictor,
    ConformalPredictor,
    GroupConditionalPredictor,
    conformal_quantile,
    conformal_rank,
    conformal_scores,
    fewest_rows,
)
from finetune.domain.conformal.clustering import weighted_k_means
from finetune.domain.errors import CoverageWarning, InvalidInput

K = 6


def draw(seed, n=400, k=K):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, size=(n, k))
    labels = rng.integers(0, k, n)
    logits[np.arange(n), labels] += np.linspace(0, 3, k)[labels]
    return logits, labels, rng.choice(["north", "south", "west"], p=[0.6, 0.3, 0.1], size=n)


def every_kind(logits, labels, groups, method="lac", alpha=0.1, inputs="logits"):
    """Each predictor, calibrated, with what its predict needs beside the rows."""
    return [
        (ClassConditionalPredictor(method, inputs=inputs).calibrate(logits, labels, alpha), ()),
        (
            GroupConditionalPredictor(method, inputs=inputs).calibrate(logits, labels, groups, alpha),
            (groups,),
        ),
        (
            ClusteredPredictor(method, inputs=inputs, n_clusters=2, clustering_fraction=0.4).calibrate(
                logits, labels, alpha, rng=np.random.default_rng(0)
            ),
            (),
        ),
    ]


@pytest.mark.parametrize("method", METHODS)
def test_each_label_has_the_threshold_of_its_own_rows(method):
    logits, labels, _ = draw(0)
    predictor = ClassConditionalPredictor(method, inputs="logits").calibrate(logits, labels, 0.2)
    scores = conformal_scores(logits, method, inputs="logits")
    thresholds = [conformal_quantile(scores[labels == y, y], 0.2) for y in range(K)]
    assert [category.threshold for category in predictor.categories] == thresholds
    assert [category.n for category in predictor.categories] == np.bincount(labels).tolist()
    np.testing.assert_array_equal(predictor.predict(logits), scores <= np.array(thresholds))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("names", [["a", "bb", "c"], [-5, 0, 7]])
def test_each_group_has_the_sets_of_a_predictor_of_its_own(method, names):
    logits, labels, groups = draw(1)
    groups = np.array(names)[np.searchsorted(["north", "south", "west"], groups)]
    predictor = GroupConditionalPredictor(method, inputs="logits").calibrate(logits, labels, groups, 0.2)
    sets = predictor.predict(logits, groups)
    for category, name in zip(predictor.categories, sorted(names), strict=True):
        own = groups == name
        alone = ConformalPredictor(method, inputs="logits").calibrate(logits[own], labels[own], 0.2)
        assert category == (name, own.sum(), alone.rank, alone.threshold)
        assert category.law == alone.law
        np.testing.assert_array_equal(sets[own], alone.predict(logits[own]))


def test_the_clusters_are_calibrated_on_rows_that_did_not_make_them():
    logits, labels, _ = draw(2, n=3000)
    # Without a second half of the rows nothing is left but 300 rows for the thresholds.
    predictor = ClusteredPredictor(inputs="logits", n_clusters=2, clustering_fraction=0.9).calibrate(
        logits, labels, rng=np.random.default_rng(0)
    )
    *clusters, null = predictor.categories
    assert null.n == 300
    assert sum(category.n for category in clusters) == 300
    thresholds = np.array([clusters[cluster].threshold for cluster in predictor.clusters])
    expected = conformal_scores(logits, "lac", inputs="logits") <= thresholds
    np.testing.assert_array_equal(predictor.predict(logits), expected)


def test_clusters_join_labels_that_behave_alike():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 12, 6000)
    logits = rng.normal(size=(6000, 12))
    logits[np.arange(6000), labels] += np.where(labels % 2, 0.5, 5.0)
    predictor = ClusteredPredictor("aps", inputs="logits", n_clusters=2).calibrate(logits, labels, rng=rng)
    assert len(set(predictor.clusters[::2])) == len(set(predictor.clusters[1::2])) == 1
    assert predictor.clusters[0] != predictor.clusters[1]


def test_labels_with_few_rows_get_the_threshold_of_all_rows():
    rng = np.random.default_rng(4)
    labels = np.concatenate([rng.integers(0, 3, 3000), np.full(5, 3)])
    logits = rng.normal(size=(3005, 4)) + 3 * np.eye(4)[labels]
    predictor = ClusteredPredictor(inputs="logits", clustering_fraction=0.5).calibrate(
        logits, labels, rng=rng
    )
    assert predictor.clusters[3] == "null"
    null = predictor.categories[-1]
    assert (null.name, null.n) == ("null", 1503)
    scores = conformal_scores(logits, inputs="logits")
    np.testing.assert_array_equal(predictor.predict(logits)[:, 3], scores[:, 3] <= null.threshold)
    assert "labels 3 had too few cases" in predictor.statement


def test_where_all_labels_have_few_rows_the_promise_is_the_marginal_one():
    logits, labels, _ = draw(5, n=40)
    predictor = ClusteredPredictor(inputs="logits").calibrate(logits, labels, rng=np.random.default_rng(0))
    assert set(predictor.clusters) == {"null"}
    assert predictor.statement.startswith("On average over all labels")
    assert "of a cluster" not in predictor.statement


def test_an_unseen_label_is_in_every_set_and_it_is_said():
    logits, labels, _ = draw(6)
    labels[labels == 4] = 2
    with pytest.warns(CoverageWarning, match="labels 4: they are in every set"):
        predictor = ClassConditionalPredictor(inputs="logits").calibrate(logits, labels)
    assert predictor.categories[4] == (4, 0, 1, np.inf)
    assert predictor.categories[4].law is None
    assert predictor.predict(logits)[:, 4].all()
    assert not predictor.predict(logits)[:, 3].all()
    assert "fewer: 4. They are in every set" in predictor.statement
    with pytest.warns(CoverageWarning, match="labels 4"):
        clustered = ClusteredPredictor(inputs="logits").calibrate(
            logits, labels, rng=np.random.default_rng(0)
        )
    assert clustered.clusters[4] == "unseen"
    assert clustered.predict(logits)[:, 4].all()
    assert "no case of the labels 4" in clustered.statement


def test_an_unseen_group_gets_every_label_and_it_is_said():
    logits, labels, groups = draw(7)
    predictor = GroupConditionalPredictor(inputs="logits").calibrate(logits, labels, groups)
    with pytest.warns(CoverageWarning, match="groups east"):
        sets = predictor.predict(logits[:2], ["east", "north"])
    assert sets[0].all()
    np.testing.assert_array_equal(sets[1:], predictor.predict(logits[1:2], ["north"]))
    assert "did not see gets every label" in predictor.statement


@pytest.mark.parametrize("alpha", [0.3, 0.1, 0.01])
def test_categories_with_too_few_rows_have_no_threshold(alpha):
    n = fewest_rows(alpha)
    rng = np.random.default_rng(8)
    labels = np.repeat([0, 1], [n, max(n - 1, 1)])
    logits = rng.normal(size=(len(labels), 2))
    predictor = ClassConditionalPredictor(inputs="logits").calibrate(logits, labels, alpha)
    enough, few = predictor.categories
    assert enough.threshold < np.inf
    assert few.threshold == np.inf
    assert few.rank == few.n + 1
    assert few.law.expected == 1.0
    assert "fewer: 1." in predictor.statement


@pytest.mark.parametrize("method", METHODS)
@given(seed=st.integers(0, 10**6), alphas=st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99)))
@settings(max_examples=10, deadline=None)
def test_sets_are_nested_in_alpha(method, seed, alphas):
    data = draw(seed, n=120)
    narrow, wide = ([*every_kind(*data, method, alpha)] for alpha in sorted(alphas, reverse=True))
    for (small, more), (large, _) in list(zip(narrow, wide, strict=True))[:2]:  # clusters depend on alpha
        assert not (small.predict(data[0], *more) & ~large.predict(data[0], *more)).any()


@pytest.mark.parametrize("method", METHODS)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_sets_move_with_the_labels(method, seed):
    logits, labels, groups = draw(seed, n=120)
    order = np.random.default_rng(seed).permutation(K)
    moved = np.argsort(order)[labels]
    ours, theirs = (
        every_kind(logits, labels, groups, method),
        every_kind(logits[:, order], moved, groups, method),
    )
    for (one, more), (other, _) in list(zip(ours, theirs, strict=True))[:2]:  # k-means starts by chance
        np.testing.assert_array_equal(
            one.predict(logits, *more)[:, order], other.predict(logits[:, order], *more)
        )


def test_json_round_trips_reproduce_the_sets():
    logits, labels, groups = draw(9)
    labels[labels == 5] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CoverageWarning)
        fitted = every_kind(logits, labels, groups, "raps")
    for predictor, more in fitted:
        record = json.loads(json.dumps(predictor.to_dict(), allow_nan=False))
        again = type(predictor).from_dict(record)
        np.testing.assert_array_equal(again.predict(logits, *more), predictor.predict(logits, *more))
        assert again.statement == predictor.statement
        assert again.to_dict() == record
        assert (again.alpha, again.categories) == (predictor.alpha, predictor.categories)


def test_integer_groups_survive_json():
    logits, labels, _ = draw(9)
    groups = labels % 3 - 1
    predictor = GroupConditionalPredictor(inputs="logits").calibrate(logits, labels, groups)
    again = GroupConditionalPredictor.from_dict(json.loads(json.dumps(predictor.to_dict())))
    np.testing.assert_array_equal(again.predict(logits, groups), predictor.predict(logits, groups))


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize(
    "change",
    [
        {"kind": "conformal_predictor"},
        {"version": 2},
        {"alpha": 0.0},
        {"alpha": 0.2},
        {"n_labels": 1},
        {"n_labels": 7},
        {"n_labels": 10**400},
        {"categories": []},
        {"categories": None},
        {"method": "naive"},
        {"options": {"penalty": 1.0}},
        {"more": 1},
    ],
)
def test_damaged_records_are_refused(which, change):
    predictor, _ = every_kind(*draw(10))[which]
    if which == 1 and change.get("n_labels", 0) > K:
        return  # groups know nothing of the number of labels; predict refuses the rows
    with pytest.raises(InvalidInput):
        type(predictor).from_dict({**predictor.to_dict(), **change})


def test_damaged_categories_are_refused():
    (labels, _), (groups, _), (clusters, _) = every_kind(*draw(10))

    def refuse(predictor, edit):
        record = json.loads(json.dumps(predictor.to_dict()))
        edit(record)
        with pytest.raises(InvalidInput):
            type(predictor).from_dict(record)

    for predictor, name in ((labels, "z"), (groups, 1), (clusters, "z")):
        refuse(predictor, lambda record: record["categories"][0].update(rank=3))
        refuse(predictor, lambda record: record["categories"][0].update(n=-1))
        refuse(predictor, lambda record: record["categories"][0].update(threshold=None))
        refuse(predictor, lambda record: record["categories"][0].update(n=1, rank=2))
        refuse(predictor, lambda record, name=name: record["categories"][0].update(name=name))
        refuse(predictor, lambda record: record["categories"].reverse())
    refuse(clusters, lambda record: record["clusters"].pop())
    refuse(clusters, lambda record: record["clusters"].__setitem__(0, 9))
    refuse(clusters, lambda record: record.pop("clusters"))


BAD_GROUPS = [
    ["a"] * 399,
    [["a"]] * 400,
    [0.5] * 400,
    [True] * 400,
    [None] * 400,
    ["a"] * 399 + [None],
    "a",
    np.full(400, 2**63, np.uint64),
    [b"a"] * 400,
]


@pytest.mark.parametrize("bad", BAD_GROUPS)
def test_bad_groups(bad):
    logits, labels, groups = draw(11)
    predictor = GroupConditionalPredictor(inputs="logits")
    with pytest.raises(InvalidInput):
        predictor.calibrate(logits, labels, bad)
    predictor.calibrate(logits, labels, groups)
    with pytest.raises(InvalidInput):
        predictor.predict(logits, bad)
    with pytest.raises(InvalidInput, match="type that they had"):
        predictor.predict(logits, labels)


@pytest.mark.parametrize("other", [np.nan, 1, 1.5, True, None])
@pytest.mark.parametrize("kind", [list, tuple, lambda values: np.array(values, dtype=object)])
def test_what_is_missing_among_names_is_no_group(other, kind):
    # numpy makes the group "nan" of it
    logits, labels, groups = draw(11)
    mixed = kind([*groups[:-1].tolist(), other])
    predictor = GroupConditionalPredictor(inputs="logits")
    with pytest.raises(InvalidInput, match=r"groups\[399\]: the group is no string"):
        predictor.calibrate(logits, labels, mixed)
    predictor.calibrate(logits, labels, groups)
    with pytest.raises(InvalidInput, match="no string"):
        predictor.predict(logits, mixed)


def test_groups_of_pandas_are_taken():
    logits, labels, groups = draw(11)
    plain = GroupConditionalPredictor(inputs="logits").calibrate(logits, labels, groups)
    objects = GroupConditionalPredictor(inputs="logits").calibrate(logits, labels, groups.astype(object))
    assert objects.categories == plain.categories
    np.testing.assert_array_equal(objects.predict(logits, groups.tolist()), plain.predict(logits, groups))


@pytest.mark.parametrize("bad", [[[np.nan] * K], [[0.0] * K] * 2 + [[np.inf] * K], [], None, [[0.0]]])
def test_bad_rows_and_labels(bad):
    logits, labels, groups = draw(12)
    for predictor, more in every_kind(logits, labels, groups):
        with pytest.raises(InvalidInput):
            predictor.predict(bad, *more)
        with pytest.raises(InvalidInput, match="6 labels"):
            predictor.predict(logits[:, :3], *more)
    for fit in (
        lambda rows, truth: ClassConditionalPredictor(inputs="logits").calibrate(rows, truth),
        lambda rows, truth: GroupConditionalPredictor(inputs="logits").calibrate(rows, truth, groups),
        lambda rows, truth: ClusteredPredictor(inputs="logits").calibrate(
            rows, truth, rng=np.random.default_rng(0)
        ),
    ):
        with pytest.raises(InvalidInput):
            fit(bad, labels)
        with pytest.raises(InvalidInput):
            fit(logits, labels + 1)
        with pytest.raises(InvalidInput):
            fit(logits, labels[:-1])


def test_misuse():
    logits, labels, _ = draw(13)
    for kind in (ClassConditionalPredictor, GroupConditionalPredictor, ClusteredPredictor):
        with pytest.raises(InvalidInput, match="calibrate first"):
            _ = kind().statement
        with pytest.raises(InvalidInput, match="calibrate first"):
            _ = kind().categories
        with pytest.raises(InvalidInput, match="calibrate first"):
            kind().to_dict()
        with pytest.raises(InvalidInput, match="takes none"):
            kind("lac", penalty=1)
        with pytest.raises(InvalidInput, match="generator"):
            kind("aps", randomized=True)
    for wrong in ({"n_clusters": 0}, {"n_clusters": 2.0}, {"clustering_fraction": 1.0}):
        with pytest.raises(InvalidInput):
            ClusteredPredictor(**wrong)
    with pytest.raises(InvalidInput, match="calibrate first"):
        _ = ClusteredPredictor().clusters
    with pytest.raises(InvalidInput, match="generator"):
        ClusteredPredictor(inputs="logits").calibrate(logits, labels, rng=0)


def test_randomised_forms_draw_in_calibration_and_prediction():
    logits, labels, groups = draw(14)
    for kind, more in ((ClassConditionalPredictor, ()), (GroupConditionalPredictor, (groups,))):
        predictor = kind("aps", inputs="logits", randomized=True, rng=np.random.default_rng(0))
        predictor.calibrate(logits, labels, *more)
        assert (predictor.predict(logits, *more) != predictor.predict(logits, *more)).any()


def test_weighted_k_means_finds_what_is_apart_and_minds_the_weights():
    rng = np.random.default_rng(15)
    points = np.concatenate([rng.normal(centre, 0.1, size=(20, 2)) for centre in (0, 3, 9)])
    clusters = weighted_k_means(points, rng.random(60) + 0.1, 3, rng)
    assert [len(set(part)) for part in np.split(clusters, 3)] == [1, 1, 1]
    assert set(clusters.tolist()) == {0, 1, 2}
    line = np.array([[0.0], [1.0], [2.2]])
    assert weighted_k_means(line, np.array([1.0, 1.0, 1.0]), 2, rng).tolist() in ([0, 0, 1], [1, 1, 0])
    assert weighted_k_means(line, np.array([100.0, 100.0, 1e-3]), 2, rng).tolist() in ([0, 1, 1], [1, 0, 0])
    assert set(weighted_k_means(np.zeros((5, 2)), np.ones(5), 3, rng).tolist()) == {0}


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.floats(0.01, 0.99))
@settings(deadline=None)
def test_ranks_of_categories_are_conformal_ranks(labels, alpha):
    labels = np.array(labels)
    logits = np.random.default_rng(0).normal(size=(len(labels), K))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CoverageWarning)
        predictor = ClassConditionalPredictor(inputs="logits").calibrate(logits, labels, alpha)
    for category in predictor.categories:
        assert category.rank == (conformal_rank(category.n, alpha) if category.n else 1)
        assert (category.threshold == np.inf) == (category.rank > category.n)
