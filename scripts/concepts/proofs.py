"""Plots of the pages on proofs from counts: bounds and learn-then-test, intervals."""

from __future__ import annotations

import math

import numpy as np

from concepts.style import ORANGE, SERIES, TARGET, Plot, panels, percent_axis
from concepts.worlds import Floats
from finetune.domain import (
    InfeasibleGuarantee,
    clopper_pearson_interval,
    clopper_pearson_upper,
    hoeffding_bentkus_upper_bound,
    learn_then_test_counts,
    wilson_interval,
    wsr_upper_bound,
)

LEVEL = DELTA = 0.1


def bounds() -> Plot:
    """Upper bounds on a mean of 5 % as rows are added: losses of 0 and 1, and losses that vary little."""
    rng = np.random.default_rng(8)
    sizes = np.array([30, 100, 300, 1000, 3000])
    figure, axes = panels(2)
    findings = []
    for ax, title in zip(axes, ("losses of 0 and 1", "losses near 5 % (Beta(2, 38))"), strict=True):
        found: dict[str, list[float]] = {"Hoeffding": [], "Hoeffding–Bentkus": [], "WSR": [], "exact": []}
        for n in sizes.tolist():
            draws = rng.random((40, n)) < 0.05 if ax is axes[0] else rng.beta(2, 38, size=(40, n))
            per_draw: dict[str, list[float]] = {name: [] for name in found}
            for losses in draws:
                total = int(losses.sum()) if ax is axes[0] else float(losses.sum())
                per_draw["Hoeffding"].append(min(total / n + math.sqrt(-math.log(DELTA) / (2 * n)), 1.0))
                per_draw["Hoeffding–Bentkus"].append(hoeffding_bentkus_upper_bound(total, n, DELTA))
                per_draw["WSR"].append(wsr_upper_bound(losses.astype(float), DELTA))
                if ax is axes[0]:
                    per_draw["exact"].append(clopper_pearson_upper(total, n, 1 - DELTA))
            for name, values in per_draw.items():
                if values:
                    found[name].append(float(np.mean(values)))
        for (name, values), series in zip(found.items(), SERIES, strict=False):
            if values:
                ax.plot(sizes, values, label=name, **series)
        ax.axhline(0.05, **TARGET)
        ax.set(
            title=title, xscale="log", xlabel="rows", ylabel="upper bound, 90 %, mean of 40", ylim=(0, 0.3)
        )
        percent_axis(ax.yaxis)
        at = sizes.tolist().index(300)
        listed = ", ".join(f"{name} {values[at]:.3f}" for name, values in found.items() if values)
        findings.append(f"{title}, 300 rows: {listed}")
    axes[0].legend(loc="upper right")
    return Plot(figure, findings)


def learn_then_test() -> Plot:
    """How often each candidate is accepted, by several rules, beside where the risk is too great."""
    rng = np.random.default_rng(9)
    risk = np.arange(0.0225, 0.16, 0.005)
    n, draws = 500, 2000
    # Every candidate is tested on the same rows: one that is wrong under a strict one is under the next too.
    errors = rng.multinomial(n, np.diff(risk, prepend=0.0, append=1.0), size=draws)[:, :-1].cumsum(axis=1)
    rules = {
        "observed risk": None,
        "Bonferroni": "bonferroni",
        "Holm": "holm",
        "fixed sequence": "fixed_sequence",
    }
    figure, (ax,) = panels(1, width=5.2)
    ax.axvspan(LEVEL, risk[-1] + 0.005, color=ORANGE, alpha=0.15, linewidth=0)
    ax.text(0.13, 0.9, "risk too great", ha="center")
    findings = []
    for (name, method), series in zip(rules.items(), SERIES, strict=False):
        accepted = np.zeros(errors.shape, dtype=bool)
        for draw, row in enumerate(errors):
            if method is None:
                accepted[draw] = row <= LEVEL * n
            else:
                accepted[draw, _accepted(row, n, method)] = True
        wrong = accepted[:, risk > LEVEL].any(axis=1).mean()
        loosest = np.where(accepted, risk, 0.0).max(axis=1).mean()
        ax.plot(risk, accepted.mean(axis=0), label=name, **series)
        findings.append(
            f"{name}: accepts a candidate above {LEVEL:g} in {100 * wrong:.1f} % of {draws} draws; "
            f"loosest accepted has risk {loosest:.3f} on average"
        )
    ax.set(xlabel="true risk of the candidate", ylabel="accepted", xlim=(0.02, 0.16), ylim=(-0.02, 1.02))
    percent_axis(ax.xaxis)
    percent_axis(ax.yaxis)
    ax.legend(loc="center right")
    return Plot(figure, findings)


def _accepted(errors: np.ndarray, n: int, method: str) -> list[int]:
    try:
        found = learn_then_test_counts(errors, np.full(len(errors), n), LEVEL, DELTA, method=method)
    except InfeasibleGuarantee:
        return []
    return list(found.accepted)


def _coverage_of(interval: object, n: int, p: Floats) -> Floats:
    """Probability that the interval of k of n holds p, exactly, for each p."""
    from scipy.stats import binom

    ends = np.array([interval(k, n)[:2] for k in range(n + 1)])  # type: ignore[operator]
    holds = (ends[:, :1] <= p) & (p <= ends[:, 1:])
    return np.asarray((holds * binom.pmf(np.arange(n + 1)[:, None], n, p)).sum(axis=0))


def _wald(k: int, n: int) -> tuple[float, float]:
    half = 1.96 * math.sqrt(k * (n - k) / n**3)
    return k / n - half, k / n + half


def intervals() -> Plot:
    """Coverage of 95 % intervals of a proportion from 50 rows, for every proportion."""
    n, p = 50, np.linspace(0.002, 0.5, 500)
    figure, (ax,) = panels(1, width=5.2)
    findings = []
    rules = {
        "Clopper–Pearson": clopper_pearson_interval,
        "Wilson": wilson_interval,
        "estimate ± 1.96 s.e.": _wald,
    }
    for (name, rule), series in zip(rules.items(), SERIES, strict=False):
        coverage = _coverage_of(rule, n, p)
        ax.plot(p, coverage, label=name, **{**series, "marker": None, "linewidth": 1.0})
        at = coverage[np.argmin(np.abs(p - 0.02))]
        findings.append(
            f"{name}: coverage {coverage.mean():.3f} on average, {at:.3f} at 2 %, least {coverage.min():.3f}"
        )
    ax.axhline(0.95, **TARGET)
    ax.set(xlabel="true proportion", ylabel="coverage of the interval", ylim=(0.5, 1.01), xlim=(0, 0.5))
    percent_axis(ax.xaxis)
    percent_axis(ax.yaxis)
    ax.legend(loc="lower right")
    return Plot(figure, findings)


PLOTS = {"bounds": bounds, "learn-then-test": learn_then_test, "intervals": intervals}
