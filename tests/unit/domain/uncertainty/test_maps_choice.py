"""Choice by cross-validated log loss."""

import json

import numpy as np
import pytest
from scipy.special import log_softmax

from finetune.domain.calibration.maps import MAPS, choose_map, fit_isotonic, fit_temperature
from finetune.domain.errors import InsufficientData, InvalidInput


def draw(seed, n=1500, k=3, slope=1.0, offset=0.0):
    """Logits, and labels from softmax(slope z + offset on the first label)."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1.5, size=(n, k))
    scores = slope * z
    scores[:, 0] += offset
    return z, (scores + rng.gumbel(size=z.shape)).argmax(axis=1)


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, "identity"), ({"slope": 0.4}, "temperature"), ({"slope": 0.6, "offset": 1.5}, "vector")],
)
def test_the_simplest_sufficient_map_is_chosen(options, expected):
    z, labels = draw(1, **options)
    chosen = choose_map(z, labels, rng(), candidates=["identity", "temperature", "vector", "matrix"])
    assert chosen.name == chosen.map.kind == expected
    np.testing.assert_array_equal(chosen.map.apply(z), MAPS[expected].fit(z, labels).apply(z))


def test_the_table_shows_every_candidate():
    z, labels = draw(2, slope=0.4)
    chosen = choose_map(z, labels, rng())
    assert [row.name for row in chosen.table] == list(MAPS)
    least = min(row.log_loss for row in chosen.table)
    for row in chosen.table:
        assert row.failure is None
        assert row.excess == pytest.approx(row.log_loss - least)
        assert row.standard_error > 0
    of = {row.name: row for row in chosen.table}
    assert of["identity"].excess > 3 * of["identity"].excess_error
    assert of[chosen.name].excess <= of[chosen.name].excess_error
    assert json.dumps(chosen.to_dict(), allow_nan=False)


def test_held_out_losses_are_those_of_maps_that_have_not_seen_the_row():
    z, labels = draw(3, n=40)
    seen = []

    def spy(rows, truth):
        seen.append(rows)
        return fit_temperature(rows, truth)

    chosen = choose_map(z, labels, rng(), candidates={"spy": spy}, n_folds=4)
    assert [len(rows) for rows in seen] == [30, 30, 30, 30, 40]
    total = 0.0
    for rows in seen[:4]:
        held_out = ~(z[:, None] == rows[None]).all(axis=2).any(axis=1)
        trained = fit_temperature(z[~held_out], labels[~held_out])
        total -= trained.apply(z[held_out])[np.arange(10), labels[held_out]].sum()
    assert chosen.table[0].log_loss == pytest.approx(total / 40)


def test_folds_hold_each_label_evenly():
    z, labels = draw(4, n=203)
    counts = []

    def spy(rows, truth):
        counts.append(np.bincount(labels) - np.bincount(truth, minlength=3))
        return fit_temperature(rows, truth)

    choose_map(z, labels, rng(), candidates={"spy": spy})
    held_out = np.array(counts[:5])
    assert np.ptp(held_out, axis=0).max() <= 1
    assert np.ptp(held_out.sum(axis=1)) <= 1


def test_failures_are_told():
    z, labels = draw(5, n=100)
    z[7, (labels[7] + 1) % 3] = -np.inf
    chosen = choose_map(z, labels, rng(), candidates=["temperature", "dirichlet"])
    assert chosen.name == "temperature"
    assert "probability 0" in chosen.table[1].failure
    assert chosen.table[1].log_loss is None


def test_an_infinite_loss_is_shown_and_never_chosen():
    z, labels = draw(6, n=200)
    candidates = {
        "bare": lambda rows, truth: fit_isotonic(rows, truth, smoothing=False),
        "t": fit_temperature,
    }
    chosen = choose_map(z, labels, rng(), candidates=candidates)
    assert chosen.name == "t"
    assert chosen.table[0].log_loss == np.inf
    assert chosen.to_dict()["candidates"][0]["log_loss"] == "+inf"
    with pytest.raises(InsufficientData, match="no candidate"):
        choose_map(z, labels, rng(), candidates={"bare": candidates["bare"]})


def test_defects_of_a_candidate_are_not_swallowed():
    def broken(rows, truth):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        choose_map(*draw(7, n=20), rng(), candidates={"broken": broken})


def test_probabilities_and_log_probabilities_give_the_same_choice():
    z, labels = draw(8, n=300)
    log_probs = log_softmax(z, axis=1)
    one = choose_map(log_probs, labels, rng(), inputs="log_probabilities")
    other = choose_map(np.exp(log_probs), labels, rng(), inputs="probabilities")
    assert [row.name for row in one.table] == [name for name in MAPS if name != "matrix"]
    assert one.name == other.name
    np.testing.assert_allclose(
        [row.log_loss for row in one.table], [row.log_loss for row in other.table], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"candidates": []}, InvalidInput),
        ({"candidates": ["spline"]}, InvalidInput),
        ({"candidates": "platt"}, InvalidInput),
        ({"candidates": 3}, InvalidInput),
        ({"candidates": {"mine": "platt"}}, InvalidInput),
        ({"candidates": [None]}, InvalidInput),
        ({"n_folds": 1}, InvalidInput),
        ({"n_folds": 21}, InsufficientData),
        ({"rng": 0}, InvalidInput),
        ({"inputs": "odds"}, InvalidInput),
        ({"labels": [3] * 20}, InvalidInput),
    ],
)
def test_what_is_wrong_is_told(change, error):
    z, labels = draw(9, n=20)
    with pytest.raises(error):
        choose_map(**{"rows": z, "labels": labels, "rng": rng(), **change})
