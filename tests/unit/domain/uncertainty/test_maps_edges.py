"""Separated labels, unseen labels, one row, constant scores, excluded labels, saturation, many labels."""

import numpy as np
import pytest
from scipy.special import log_softmax

from finetune.domain.calibration.maps import (
    MAPS,
    BetaMap,
    DirichletMap,
    HistogramMap,
    IsotonicMap,
    MatrixMap,
    PlattMap,
    Temperature,
    VectorMap,
    fit_histogram,
    fit_isotonic,
    fit_matrix,
    fit_platt,
    fit_temperature,
    fit_vector,
    map_from_dict,
)
from finetune.domain.errors import InvalidInput

KINDS = list(MAPS)
EXCLUDING = ["identity", "temperature", "platt", "vector", "beta"]
LINEAR = ["dirichlet", "matrix"]


def fit(kind, rows, labels, **options):
    return MAPS[kind].fit(rows, labels, **options)


def probabilities(log_probs):
    p = np.exp(log_probs)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-12)
    return p


def draw(seed, n=200, k=3):
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1.5, size=(n, k))
    return z, (z + rng.gumbel(size=z.shape)).argmax(axis=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [2, 3, 30])
def test_one_row(kind, k):
    p = probabilities(fit(kind, np.arange(float(k))[None], [k - 1]).apply(np.zeros((1, k))))
    assert p.min() > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [2, 3])
def test_labels_told_apart_perfectly(kind, k):
    rng = np.random.default_rng(0)
    labels = rng.integers(k, size=60)
    rows = rng.normal(size=(60, k)) + 30 * np.eye(k)[labels]
    p = probabilities(fit(kind, rows, labels).apply(rows))
    # With 20 rows of a label, a binary map promises no more than (20 + 1) / (20 + 2) of it; a bin of a
    # histogram may hold rows of both sides.
    assert p[np.arange(60), labels].min() > (0.1 if kind == "histogram" else 0.9)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("identity", "temperature")])
@pytest.mark.parametrize("k", [2, 4])
def test_constant_scores_give_nearly_the_frequencies(kind, k):
    labels = np.repeat(np.arange(k), np.arange(1, k + 1) * 100)
    p = probabilities(fit(kind, np.zeros((len(labels), k)), labels).apply(np.zeros((1, k))))
    np.testing.assert_allclose(p[0], np.bincount(labels) / len(labels), atol=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_a_label_without_rows_keeps_a_small_probability(kind):
    z, labels = draw(1, n=300)
    z, labels = z[labels < 2], labels[labels < 2]
    p = probabilities(fit(kind, z, labels).apply(z))
    assert p.min() > 0
    if kind not in ("identity", "temperature"):
        assert p[:, 2].mean() < 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_one_label_alone(kind):
    z = draw(2)[0]
    p = probabilities(fit(kind, z, np.zeros(len(z), dtype=int)).apply(z))
    if kind not in ("identity", "temperature"):
        assert p[:, 0].mean() > 0.95


@pytest.mark.parametrize("kind", EXCLUDING)
@pytest.mark.parametrize("k", [2, 4])
def test_excluded_labels_stay_excluded(kind, k):
    z, labels = draw(3, k=k)
    masked = z.copy()
    masked[::3, :][np.arange(k) != labels[::3, None]] = -np.inf  # nothing but the truth is left
    masked[1::3, (labels[1::3] + 1) % k] = masked[1::3, (labels[1::3] + 1) % k]
    masked[1, (labels[1] + 1) % k] = -np.inf
    p = probabilities(fit(kind, masked, labels).apply(masked))
    np.testing.assert_array_equal(p == 0, np.isneginf(masked))


def test_an_always_excluded_label_changes_nothing_for_the_others():
    z, labels = draw(4)
    wide = np.column_stack([z, np.full(len(z), -np.inf)])
    for kind in ("temperature", "vector", "platt", "beta"):
        np.testing.assert_allclose(
            fit(kind, wide, labels).apply(wide)[:, :3], fit(kind, z, labels).apply(z), atol=1e-6
        )


@pytest.mark.parametrize("kind", [kind for kind in EXCLUDING if kind != "identity"])
def test_an_excluded_true_label_is_an_error(kind):
    with pytest.raises(InvalidInput, match=r"rows\[1\]"):
        fit(kind, [[0.5, 0.5], [1.0, 0.0]], [0, 1], inputs="probabilities")


@pytest.mark.parametrize("kind", LINEAR)
def test_linear_maps_refuse_probability_zero(kind):
    rows = [[0.5, 0.5], [1.0, 0.0]]
    with pytest.raises(InvalidInput, match=r"rows\[1\]"):
        fit(kind, rows, [0, 0], inputs="probabilities")
    fitted = fit(kind, rows[:1] * 2, [0, 1], inputs="probabilities")
    with pytest.raises(InvalidInput, match=r"rows\[1\]"):
        fitted.apply(rows, inputs="probabilities")


@pytest.mark.parametrize("kind", ["isotonic", "histogram"])
@pytest.mark.parametrize("k", [2, 3])
def test_claims_of_zero_and_one_get_their_frequencies(kind, k):
    labels = np.tile([0, 0, 0, 1], 100)
    rows = np.zeros((400, k))
    rows[:, 0] = 1.0
    p = probabilities(fit(kind, rows, labels, inputs="probabilities").apply(rows, inputs="probabilities"))
    assert p.min() > 0
    np.testing.assert_allclose(p[:, 0], 0.75, atol=0.01)


def test_unsmoothed_isotonic_gives_zero_where_it_says_so_and_never_nan():
    rows = np.array([[5.0, 0, 0], [0, 5.0, 0], [0, 0, 5.0]])
    fitted = fit_isotonic(rows, [0, 1, 2], smoothing=False)
    np.testing.assert_array_equal(np.exp(fitted.apply(rows)), np.eye(3))
    np.testing.assert_allclose(np.exp(fitted.apply([[0.0, 0, 0]])), 1 / 3)  # between the blocks of all three
    nothing = IsotonicMap(3 * [[0.0]], 3 * [[0.0]])
    np.testing.assert_allclose(np.exp(nothing.apply([[0.0, 1, 2]])), 1 / 3)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "identity"])
@pytest.mark.parametrize("scale", [40.0, 100.0])
@pytest.mark.parametrize("k", [2, 5])
def test_saturated_logits_are_mended(kind, scale, k):
    z, labels = draw(5, n=2000, k=k)
    fitted = fit(kind, scale * z, labels)
    z, labels = draw(6, n=2000, k=k)

    def loss(log_probs):
        return -log_probs[np.arange(len(labels)), labels].mean()

    best = loss(log_softmax(z, axis=1))
    assert loss(log_softmax(scale * z, axis=1)) > 10 * best
    assert loss(fitted.apply(scale * z)) < best + (0.15 if kind in ("histogram", "isotonic") else 0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_two_hundred_labels(kind):
    z, labels = draw(7, n=400, k=200)
    p = probabilities(fit(kind, 2 * z, labels).apply(2 * z))
    assert p.shape == (400, 200)
    assert p.min() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_at_the_end_of_the_range(kind):
    rows = [[1e308, -1e308, 0.0], [0.0, 1e-308, -1e308], [1.0, 2.0, 3.0]]
    probabilities(fit(kind, rows, [0, 1, 2]).apply(rows))
    probabilities(fit(kind, *draw(8)).apply(rows))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1e-300, 1e-60, 1e-10, 1e10, 1e60])
@pytest.mark.parametrize("k", [2, 3])
def test_scales_beyond_reason(kind, scale, k):
    z, labels = draw(16, n=50, k=k)
    probabilities(fit(kind, scale * z, labels).apply(scale * z))
    z[::7] *= scale
    probabilities(fit(kind, z, labels).apply(z))


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision(kind):
    z, labels = draw(9)
    p = np.exp(log_softmax(z, axis=1)).astype(np.float16)
    probabilities(fit(kind, p, labels, inputs="probabilities").apply(p, inputs="probabilities"))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("identity", "temperature")])
def test_another_number_of_labels_is_an_error(kind):
    fitted = fit(kind, *draw(10))
    with pytest.raises(InvalidInput, match="fitted with 3 labels"):
        fitted.apply(np.zeros((2, 4)))


@pytest.mark.parametrize("fit_map", [fit_vector, fit_matrix])
def test_maps_of_logits_take_logits(fit_map):
    z, labels = draw(11)
    fitted = fit_map(z, labels)
    with pytest.raises(InvalidInput, match="fitted on logits"):
        fitted.apply(np.full((1, 3), 1 / 3), inputs="probabilities")
    log_probs = log_softmax(z, axis=1)
    on_log_probs = fit_map(log_probs, labels, inputs="log_probabilities")
    np.testing.assert_allclose(on_log_probs.apply(z), on_log_probs.apply(log_probs), atol=1e-9)


def test_ties_that_differ_by_rounding_are_ties():
    # 0.6 against {0.3, 0.1} and against {0.2, 0.2}: the same claim, other roundings of its log-odds.
    rows = np.tile([[0.6, 0.3, 0.1], [0.6, 0.2, 0.2], [0.6, 0.1, 0.3]], (20, 1))
    labels = np.tile([0, 0, 0, 1, 2, 0], 10)
    for kind in ("isotonic", "histogram"):
        fitted = fit(kind, rows, labels, inputs="probabilities")
        first = fitted.to_dict()["values"][0]
        assert max(first) - min(first) < 1e-12


@pytest.mark.parametrize("value", [0.0, -1.0, np.inf, np.nan, None, "1"])
def test_weights_of_priors_are_positive(value):
    z, labels = draw(12)
    with pytest.raises(InvalidInput, match="shrinkage"):
        fit_vector(z, labels, shrinkage=value)
    with pytest.raises(InvalidInput, match="prior_weight"):
        fit_histogram(z, labels, prior_weight=value)
    if value is not None:
        with pytest.raises(InvalidInput, match="off_diagonal"):
            fit_matrix(z, labels, off_diagonal=value)
        with pytest.raises(InvalidInput, match="intercept"):
            fit_matrix(z, labels, intercept=value)


@pytest.mark.parametrize("options", [{"n_bins": 0}, {"n_bins": 2.0}, {"binning": "depth"}])
def test_options_of_the_histogram(options):
    with pytest.raises(InvalidInput):
        fit_histogram(*draw(13), **options)


def test_one_bin_gives_the_frequencies():
    z, labels = draw(14)
    p = np.exp(fit_histogram(z, labels, n_bins=1, prior_weight=1e-9).apply(z))
    np.testing.assert_allclose(p, np.tile(np.bincount(labels) / len(labels), (len(z), 1)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: VectorMap([1.0, np.nan], [0.0, 0.0]),
        lambda: VectorMap([1.0, 1.0], [0.0]),
        lambda: VectorMap([1.0, 1.0], [0.0, 0.0], "odds"),
        lambda: MatrixMap([[1.0, 0.0]], [0.0, 0.0]),
        lambda: DirichletMap([[1.0, 0.0], [0.0]], [0.0, 0.0]),
        lambda: PlattMap([], []),
        lambda: PlattMap([np.inf], [0.0]),
        lambda: BetaMap([-1.0], [1.0], [0.0]),
        lambda: IsotonicMap([[0.0, 1.0]], [[0.5, 0.4]]),
        lambda: IsotonicMap([[1.0, 0.0]], [[0.4, 0.5]]),
        lambda: IsotonicMap(7, 8),
        lambda: HistogramMap([[0.0]], [[0.5]]),
        lambda: HistogramMap([[0.0]], [[0.5, 1.5]]),
        lambda: HistogramMap([[0.0], [0.0]], [[0.5, 0.5], [0.5, 0.5]]),
        lambda: map_from_dict({"kind": "spline"}),
        lambda: map_from_dict(None),
        lambda: map_from_dict({**Temperature(1.0).to_dict(), "version": 2}),
    ],
)
def test_impossible_maps(make):
    with pytest.raises(InvalidInput):
        make()


def test_fitted_numbers_cannot_be_changed():
    fitted = fit_platt(*draw(15))
    with pytest.raises(ValueError, match="read-only"):
        fitted.slopes[0] = 2.0


def test_a_vector_of_probabilities_is_refused():
    with pytest.raises(InvalidInput, match="shape"):
        fit_temperature([0.2, 0.8], [0, 1], inputs="probabilities")


@pytest.mark.parametrize("fit", [fit_temperature, fit_vector, fit_platt])
def test_probabilities_that_are_passed_as_logits_are_refused(fit):
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.ones(3), size=50)
    labels = rows.argmax(axis=1)
    labels[:10] = (labels[:10] + 1) % 3
    with pytest.raises(InvalidInput, match='inputs="probabilities"'):
        fit(rows.astype(np.float32), labels)
    fit(rows, labels, inputs="probabilities")
    fit(3.0 * rows, labels)
