"""Plots of the pages on prediction sets with one threshold for all cases."""

from __future__ import annotations

import numpy as np
from scipy.stats import beta

from concepts.style import BLUE, ORANGE, SERIES, TARGET, Plot, panels, percent_axis
from concepts.worlds import Bools, Cases, fifths, mixed_cases, noisy_tail, softmax
from finetune.domain import ConformalPredictor, CoverageLaw, conformal_quantile, conformal_rank

ALPHA = 0.1


def _sets(method: str, cal: Cases, test: Cases, alpha: float = ALPHA, **options: object) -> Bools:
    """Prediction sets from logits; the options are those of the method."""
    predictor = ConformalPredictor(method, inputs="logits", **options)  # type: ignore[arg-type]
    return predictor.calibrate(cal.logits, cal.labels, alpha=alpha).predict(test.logits)


def _held(sets: Bools, test: Cases) -> Bools:
    return np.asarray(sets[np.arange(len(sets)), test.labels])


def coverage() -> Plot:
    """Coverage over many calibration sets beside its law; independent rows, and rows in copies of five."""
    rng = np.random.default_rng(0)
    cases = mixed_cases(rng, 200_000)
    pool = np.sort(-np.log(softmax(cases.logits)[np.arange(len(cases.labels)), cases.labels]))
    law = CoverageLaw(100, conformal_rank(100, ALPHA))
    low, high, _ = law.interval(0.9)
    x, bins = np.linspace(0.7, 1.0, 400), np.arange(0.7, 1.0001, 0.0125)
    figure, axes = panels(2)
    findings = []
    titles = ("100 independent rows", "20 cases, 5 rows of each")
    for ax, copies, title in zip(axes, (1, 5), titles, strict=True):
        found = np.empty(4000)
        for i in range(len(found)):
            rows = np.repeat(rng.choice(pool, size=100 // copies), copies)
            found[i] = np.searchsorted(pool, conformal_quantile(rows, ALPHA), side="right") / len(pool)
        ax.hist(found, bins, density=True, color="#BBD7EA", edgecolor=BLUE, linewidth=0.5, label="simulated")
        ax.plot(x, beta(law.rank, 101 - law.rank).pdf(x), color=ORANGE, label="law: Beta(91, 10)")
        ax.axvline(1 - ALPHA, **TARGET)
        ax.set(title=title, xlabel="coverage of new cases", ylabel="density", xlim=(0.7, 1.0))
        percent_axis(ax.xaxis)
        within = np.mean((found >= low) & (found <= high))
        findings.append(
            f"{title}: mean coverage {found.mean():.3f}, from {low:.3f} to {high:.3f} "
            f"in {100 * within:.0f} % of 4000 draws (law: 90 %)"
        )
    axes[0].legend(loc="upper left")
    axes[1].sharey(axes[0])
    draws = np.sort(rng.choice(pool, size=(4000, 19)), axis=1)
    for name, thresholds in (
        ("conformal_quantile", np.array([conformal_quantile(row, ALPHA) for row in draws])),
        ("np.quantile", np.quantile(draws, 1 - ALPHA, axis=1)),
    ):
        mean = (np.searchsorted(pool, thresholds, side="right") / len(pool)).mean()
        findings.append(f"19 rows, {name}: mean coverage {mean:.3f}")
    return Plot(figure, findings)


def lac() -> Plot:
    """Set sizes as the model saturates: scores from logits, from float32 probabilities, and 1 - p."""
    rng = np.random.default_rng(1)
    cal, test = mixed_cases(rng, 2000, 20), mixed_cases(rng, 2000, 20)
    scales = np.array([1, 2, 5, 10, 20, 40, 100])
    sizes = np.empty((3, len(scales)))
    for i, scale in enumerate(scales):
        sharp_cal, sharp = cal._replace(logits=scale * cal.logits), test._replace(logits=scale * test.logits)
        sizes[0, i] = _sets("lac", sharp_cal, sharp).sum(axis=1).mean()
        p_cal, p = (softmax(rows.logits).astype(np.float32) for rows in (sharp_cal, sharp))
        single = ConformalPredictor("lac").calibrate(p_cal, cal.labels, alpha=ALPHA)
        sizes[1, i] = single.predict(p).sum(axis=1).mean()
        plain = conformal_quantile(1 - p_cal[np.arange(len(p_cal)), cal.labels], ALPHA)
        sizes[2, i] = (1 - p <= plain).sum(axis=1).mean()
    figure, (ax,) = panels(1, width=5.2)
    names = ("from logits", "from float32 probabilities", "1 − p in float32")
    for name, row, series in zip(names, sizes, SERIES, strict=False):
        ax.plot(scales, row, label=name, **series)
    ax.set(xscale="log", xlabel="logits multiplied by", ylabel="labels per set, of 20", ylim=(0, 21))
    ax.set_xticks(scales, [str(scale) for scale in scales])
    ax.minorticks_off()
    figure.legend(loc="outside upper center", ncols=3)
    findings = [
        f"{name}: labels per set {row[0]:.2f} at ×1, {row[3]:.2f} at ×10, {row[6]:.2f} at ×100"
        for name, row in zip(names, sizes, strict=True)
    ]
    return Plot(figure, findings)


def aps() -> Plot:
    """Coverage and set size from easy to hard cases: LAC, APS with one draw a row, APS without."""
    rng = np.random.default_rng(2)
    cal, test = mixed_cases(rng, 5000), mixed_cases(rng, 50_000)
    found = {
        "LAC": _sets("lac", cal, test),
        "APS, randomised": _sets("aps", cal, test, randomized=True, rng=rng),
        "APS, deterministic": _sets("aps", cal, test),
    }
    return _by_difficulty(found, test)


def _by_difficulty(found: dict[str, Bools], test: Cases) -> Plot:
    """Coverage and mean size of each method in each fifth of the cases."""
    figure, (left, right) = panels(2)
    findings = []
    parts, x = fifths(test.difficulty), np.arange(1, 6)
    for (name, sets), series in zip(found.items(), SERIES, strict=False):
        held, size = _held(sets, test), sets.sum(axis=1)
        by_part = [held[part].mean() for part in parts]
        left.plot(x, by_part, label=name, **series)
        right.plot(x, [size[part].mean() for part in parts], label=name, **series)
        findings.append(
            f"{name}: coverage {held.mean():.3f}, easiest fifth {by_part[0]:.3f}, hardest {by_part[-1]:.3f}; "
            f"labels per set {size.mean():.2f}"
        )
    left.axhline(1 - ALPHA, **TARGET)
    percent_axis(left.yaxis)
    left.set(ylabel="coverage")
    right.set(ylabel="labels per set")
    for ax in (left, right):
        ax.set(xlabel="fifths of the cases, easiest first")
        ax.set_xticks(x)
    right.legend(loc="upper left")
    return Plot(figure, findings)


def raps_saps() -> Plot:
    """Set size as the small probabilities lose their meaning, and coverage where they have one."""
    rng = np.random.default_rng(15)
    runs = {
        "LAC": ("lac", {}),
        "APS": ("aps", {"randomized": True, "rng": rng}),
        "RAPS": ("raps", {"penalty": 0.1, "k_reg": 5, "randomized": True, "rng": rng}),
        "SAPS": ("saps", {"weight": 0.2, "randomized": True, "rng": rng}),
    }
    figure, (left, right) = panels(2)
    masses = np.array([0.0, 0.15, 0.3, 0.45, 0.6])
    sizes = np.empty((len(runs), len(masses)))
    for i, mass in enumerate(masses):
        cal, test = noisy_tail(rng, 3000, mass=mass), noisy_tail(rng, 5000, mass=mass)
        for j, (method, options) in enumerate(runs.values()):
            sizes[j, i] = _sets(method, cal, test, **options).sum(axis=1).mean()
    cal, test = mixed_cases(rng, 3000, 100), mixed_cases(rng, 20_000, 100)
    parts, x = fifths(test.difficulty), np.arange(1, 6)
    findings = []
    for (name, (method, options)), row, series in zip(runs.items(), sizes, SERIES, strict=False):
        held = _held(_sets(method, cal, test, **options), test)
        by_part = [held[part].mean() for part in parts]
        left.plot(masses, row, label=name, **series)
        right.plot(x, by_part, label=name, **series)
        findings.append(
            f"{name}: labels per set {row[0]:.2f} without a noisy tail, {row[-1]:.2f} with up to "
            f"{masses[-1]:g} in it; tail with meaning: coverage {by_part[0]:.3f} to {by_part[-1]:.3f}"
        )
    left.set(
        title="tail without meaning", xlabel="most mass in the tail", ylabel="labels per set", ylim=(0, None)
    )
    right.axhline(1 - ALPHA, **TARGET)
    right.set(title="tail with meaning", xlabel="fifths of the cases, easiest first", ylabel="coverage")
    right.set_xticks(x)
    percent_axis(left.xaxis)
    percent_axis(right.yaxis)
    left.legend(loc="upper left")
    return Plot(figure, findings)


def margin_topk() -> Plot:
    """Coverage and set size from easy to hard cases: LAC, margin, top-k."""
    rng = np.random.default_rng(16)
    cal, test = mixed_cases(rng, 5000), mixed_cases(rng, 50_000)
    methods = {"LAC": "lac", "margin": "margin", "top-k": "topk"}
    return _by_difficulty({name: _sets(method, cal, test) for name, method in methods.items()}, test)


PLOTS = {"coverage": coverage, "lac": lac, "aps": aps, "raps-saps": raps_saps, "margin-topk": margin_topk}
