"""Conformal p-values, fixed and online, and the exchangeability martingale."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.domain.conformal.betting import power_mixture_log_wealth
from finetune.domain.conformal.martingale import BETTINGS, ExchangeabilityMartingale
from finetune.domain.conformal.p_values import OnlinePValues, conformal_p_values
from finetune.domain.conformal.quantile import conformal_quantile
from finetune.domain.errors import InvalidInput

few_scores = st.lists(st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 2.0, math.inf]), min_size=1, max_size=12)


@given(few_scores, few_scores, st.integers(0, 10**6))
def test_p_values_equal_their_definition(cal, new, seed):
    n = len(cal)
    plain = [(sum(s >= x for s in cal) + 1) / (n + 1) for x in new]
    np.testing.assert_array_equal(conformal_p_values(cal, new), plain)
    u = 1 - np.random.default_rng(seed).random(len(new))
    smoothed = [
        (sum(s > x for s in cal) + v * (sum(s == x for s in cal) + 1)) / (n + 1)
        for x, v in zip(new, u, strict=True)
    ]
    np.testing.assert_array_equal(conformal_p_values(cal, new, rng=np.random.default_rng(seed)), smoothed)


def test_p_values_of_labels_share_the_draw_of_their_row():
    rng = np.random.default_rng(0)
    cal, new = rng.normal(size=50).round(1), rng.normal(size=(300, 4)).round(1)
    matrix = conformal_p_values(cal, new, rng=np.random.default_rng(1))
    columns = [conformal_p_values(cal, column, rng=np.random.default_rng(1)) for column in new.T]
    np.testing.assert_array_equal(matrix, np.stack(columns, axis=1))


def test_p_values_are_the_same_whatever_the_blocks():
    rng = np.random.default_rng(0)
    cal, new = rng.normal(size=50), rng.normal(size=300_000)
    np.testing.assert_array_equal(conformal_p_values(cal, new)[-7:], conformal_p_values(cal, new[-7:]))


@given(st.integers(1, 400), st.integers(1, 999), st.integers(0, 10**6))
@settings(max_examples=200)
def test_labels_with_p_above_alpha_are_the_conformal_set(n, thousandths, seed):
    alpha, rng = thousandths / 1000, np.random.default_rng(seed)
    cal = rng.integers(0, 50, n) / 7
    new = np.append(cal, rng.integers(0, 50, 20) / 7)
    in_set = new <= conformal_quantile(cal, alpha)
    np.testing.assert_array_equal(conformal_p_values(cal, new) > alpha, in_set)


@given(few_scores, st.data())
def test_order_of_calibration_scores_does_not_matter(cal, data):
    shuffled = data.draw(st.permutations(cal))
    np.testing.assert_array_equal(conformal_p_values(cal, cal), conformal_p_values(shuffled, cal))


@pytest.mark.parametrize(
    ("cal", "new"),
    [
        ([], [1.0]),
        ([1.0, math.nan], [1.0]),
        ([1.0], [math.nan]),
        ([1.0], [[0.0, math.nan]]),
        ([1.0], []),
        ([[1.0]], [1.0]),
        ([1.0], 1.0),
        ([1.0], [[[1.0]]]),
        (["a"], [1.0]),
        ([1.0], None),
    ],
)
def test_bad_scores(cal, new):
    with pytest.raises(InvalidInput):
        conformal_p_values(cal, new)


def test_p_values_need_a_generator():
    with pytest.raises(InvalidInput):
        conformal_p_values([1.0], [1.0], rng=7)
    with pytest.raises(InvalidInput):
        OnlinePValues(7)


@given(few_scores, st.integers(0, 10**6))
def test_online_p_values_equal_their_definition(scores, seed):
    u = 1 - np.random.default_rng(seed).random(len(scores))
    expected = [
        (sum(s > x for s in scores[:t]) + u[t] * (sum(s == x for s in scores[:t]) + 1)) / (t + 1)
        for t, x in enumerate(scores)
    ]
    stream = OnlinePValues(np.random.default_rng(seed))
    np.testing.assert_allclose(stream.update_many(scores), expected, rtol=1e-15)
    assert stream.n == len(scores)


def test_online_p_values_do_not_depend_on_how_the_stream_is_cut():
    scores = np.random.default_rng(0).integers(0, 300, 3000) / 7
    whole = OnlinePValues(np.random.default_rng(1)).update_many(scores)
    stream = OnlinePValues(np.random.default_rng(1))
    parts = [stream.update_many(scores[:1]), stream.update_many(scores[1:2500])]
    one_by_one = [stream.update(score) for score in scores[2500:]]
    np.testing.assert_array_equal(np.concatenate([*parts, one_by_one]), whole)


def test_online_p_values_survive_a_restart():
    rng = np.random.default_rng(0)
    scores = np.append(rng.normal(size=40), [math.inf, -math.inf, math.inf])
    stream = OnlinePValues(rng)
    stream.update_many(scores)
    again = OnlinePValues.from_dict(
        json.loads(json.dumps(stream.to_dict(), allow_nan=False)), rng=np.random.default_rng(2)
    )
    rng.bit_generator.state = np.random.default_rng(2).bit_generator.state
    np.testing.assert_array_equal(stream.update_many(scores), again.update_many(scores))
    assert OnlinePValues.from_dict(OnlinePValues(rng).to_dict(), rng=rng).n == 0


def test_a_refused_score_is_not_taken():
    stream = OnlinePValues(np.random.default_rng(0))
    with pytest.raises(InvalidInput):
        stream.update_many([1.0, math.nan])
    with pytest.raises(InvalidInput):
        stream.update(None)
    assert stream.n == 0


@pytest.mark.parametrize("n", [0, 1, 2, 10, 300, 5000])
@pytest.mark.parametrize("per_step", [0.0, 1e-3, 0.3, 0.9, 1.0, 1.2, 5.0, 700.0])
def test_power_mixture_equals_the_integral(n, per_step):
    from scipy.integrate import quad

    total = n * per_step

    def log_integrand(e):
        return n * math.log(e) + (1 - e) * total if e > 0 else (0.0 if n == 0 else -math.inf)

    peak = min(1.0, n / total) if total else 1.0
    top = log_integrand(peak)
    width = max(math.sqrt(max(n, 1)) / max(total, n, 1), 1e-12)
    points = sorted(
        {min(max(peak + k * width, 0.0), 1.0) for k in (-200, -30, -8, -2, 0, 2, 8, 30, 200)} | {0.0, 1.0}
    )
    area = sum(
        quad(lambda e: math.exp(log_integrand(e) - top), low, high, epsabs=0, epsrel=1e-10, limit=200)[0]
        for low, high in pairwise(points)
    )
    assert power_mixture_log_wealth([n], [total])[0] == pytest.approx(
        math.log(area) + top, abs=1e-7, rel=1e-9
    )


def test_power_mixture_where_both_forms_meet():
    # Around the change from one form to the other, and far out, the log of the wealth stays smooth.
    for n in (50, 10**4, 10**6):
        sums = np.linspace(0.2 * n, 1.2 * n, 20_001)
        steps = np.diff(power_mixture_log_wealth(np.full(len(sums), n), sums))
        assert (steps > 0).all()
        assert np.abs(np.diff(steps)).max() < 1e-2 * steps.max()


@pytest.mark.parametrize(("n", "sums"), [([-1], [0.0]), ([1], [-1.0]), ([1], [math.inf]), ([1, 2], [1.0])])
def test_power_mixture_refuses(n, sums):
    with pytest.raises(InvalidInput):
        power_mixture_log_wealth(n, sums)


def jumper_as_printed(p_values, jump):
    """Algorithm 1 of the paper, in amounts of money."""
    capital = dict.fromkeys((-1, 0, 1), 1 / 3)
    wealth = []
    for p in p_values:
        total = sum(capital.values())
        capital = {e: (1 - jump) * c + jump / 3 * total for e, c in capital.items()}
        capital = {e: c * (1 + e * (p - 0.5)) for e, c in capital.items()}
        wealth.append(sum(capital.values()))
    return wealth


@given(
    st.lists(st.floats(0, 1, exclude_min=True), min_size=1, max_size=60),
    st.floats(0.001, 0.999),
)
def test_simple_jumper_equals_the_paper(p_values, jump):
    martingale = ExchangeabilityMartingale("simple_jumper", jump=jump)
    path = martingale.update_many(p_values)
    np.testing.assert_allclose(np.exp(path), jumper_as_printed(p_values, jump), rtol=1e-9)


@pytest.mark.parametrize("betting", BETTINGS)
def test_wealth_starts_at_one_and_its_next_value_averages_to_it(betting):
    martingale = ExchangeabilityMartingale(betting)
    assert martingale.wealth == martingale.p_value == 1.0
    assert not martingale.alarm
    past = np.random.default_rng(0).random(20) ** 2
    martingale.update_many(past)
    state = martingale.to_dict()
    # Gauss-Legendre on p = t^4, which tames the pole of the power bet at 0.
    nodes, weights = np.polynomial.legendre.leggauss(200)
    t = (nodes + 1) / 2
    after = [math.exp(ExchangeabilityMartingale.from_dict(state).update(p)) for p in t**4]
    assert np.sum(weights / 2 * 4 * t**3 * after) == pytest.approx(martingale.wealth, rel=1e-6)


@given(
    st.sampled_from(BETTINGS),
    st.lists(st.floats(1e-9, 1), min_size=2, max_size=80),
    st.integers(1, 79),
)
def test_martingale_does_not_depend_on_how_the_stream_is_cut_or_on_restarts(betting, p_values, cut):
    whole = ExchangeabilityMartingale(betting, delta=0.2)
    path = whole.update_many(p_values)
    parts = ExchangeabilityMartingale(betting, delta=0.2)
    cut = min(cut, len(p_values) - 1)
    first = parts.update_many(p_values[:cut])
    parts = ExchangeabilityMartingale.from_dict(json.loads(json.dumps(parts.to_dict(), allow_nan=False)))
    rest = [parts.update(p) for p in p_values[cut:]]
    np.testing.assert_array_equal(np.concatenate([first, rest]), path)
    assert parts.to_dict() == whole.to_dict()
    assert parts.n == len(p_values)
    assert whole.alarm == (path.max() >= math.log(5))
    assert whole.max_log_wealth == max(path.max(), 0.0)


@pytest.mark.parametrize(
    ("betting", "p"), [("simple_jumper", 0.01), ("simple_jumper", 0.99), ("power_mixture", 0.01)]
)
def test_alarm_stays_though_wealth_is_lost_again(betting, p):
    martingale = ExchangeabilityMartingale(betting, delta=0.01)
    martingale.update_many([p] * 100)
    at = martingale.alarm_at
    assert martingale.alarm
    assert martingale.p_value <= 0.01
    assert f"after {at} of the 100 cases" in martingale.statement
    martingale.update_many([1 - p] * 10)
    assert martingale.alarm_at == at
    assert martingale.log_wealth < martingale.max_log_wealth - 1


def test_wealth_beyond_floating_point():
    martingale = ExchangeabilityMartingale("power_mixture")
    martingale.update_many([1e-300] * 50)
    assert martingale.wealth == math.inf
    assert martingale.log_wealth > 30_000
    assert ExchangeabilityMartingale.from_dict(martingale.to_dict()).log_wealth == martingale.log_wealth


def test_statement_without_alarm():
    martingale = ExchangeabilityMartingale(delta=0.05)
    martingale.update(0.4)
    assert "ever raises an alarm is at most 0.05" in martingale.statement
    assert "does not prove that nothing changed" in martingale.statement


@pytest.mark.parametrize(
    "options",
    [{"betting": "kelly"}, {"delta": 0}, {"delta": 1.0}, {"jump": 0.0}, {"jump": 1.5}, {"betting": None}],
)
def test_bad_options(options):
    with pytest.raises(InvalidInput):
        ExchangeabilityMartingale(**options)


@pytest.mark.parametrize("p", [0.0, -0.1, 1.1, math.nan, None, "a"])
def test_bad_p_values_change_nothing(p):
    martingale = ExchangeabilityMartingale()
    before = martingale.to_dict()
    with pytest.raises(InvalidInput):
        martingale.update_many([0.5, p])
    assert martingale.to_dict() == before


@pytest.mark.parametrize(
    "change",
    [
        {"n": -1},
        {"n": 10**400},
        {"alarm_at": 3},
        {"max_log_wealth": 50.0},
        {"max_log_wealth": -1.0},
        {"log_sum": -1.0},
        {"weights": [0.5, 0.5, 0.5]},
        {"weights": [1.0]},
        {"weights": [-0.5, 0.5, 1.0]},
        {"log_wealth": math.nan},
        {"betting": "none"},
        {"version": 2},
        {"more": 1},
    ],
)
def test_bad_records(change):
    martingale = ExchangeabilityMartingale()
    martingale.update(0.5)
    with pytest.raises(InvalidInput):
        ExchangeabilityMartingale.from_dict(martingale.to_dict() | change)
