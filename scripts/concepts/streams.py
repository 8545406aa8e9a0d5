"""Plots of the pages on streams: a watch for drift, a level that adapts, batches that are added up."""

from __future__ import annotations

import math

import numpy as np

from concepts.style import BLACK, BLUE, SERIES, TARGET, Plot, panels
from concepts.worlds import Floats, mixed_cases, softmax
from finetune.domain import (
    ExchangeabilityMartingale,
    OnlinePValues,
    ReliabilityAccumulator,
    compute_ece,
    conformal_p_values,
)

_CHANGE, _LENGTH, _DELTA = 1000, 2000, 0.01


def _confidence_scores(rng: np.random.Generator, n: int, *, sharpness: float = 1.0) -> Floats:
    """How unsure the model is of each case: minus the log of its highest probability; needs no labels."""
    return -np.log(softmax(mixed_cases(rng, n, sharpness=sharpness).logits).max(axis=1))


def _watch(p_values: Floats) -> tuple[Floats, int | None]:
    martingale = ExchangeabilityMartingale(delta=_DELTA)
    path = martingale.update_many(p_values)
    return path / math.log(10), martingale.alarm_at


def martingale() -> Plot:
    """Wealth of a watch: cases that change midway, cases that do not, and p-values of the wrong kind."""
    rng = np.random.default_rng(3)
    figure, axes = panels(2)
    findings = []
    steps = np.arange(1, _LENGTH + 1)
    for ax, sharpness, title in zip(
        axes, (0.7, 1.0), ("less sure after case 1000", "no change"), strict=True
    ):
        alarms = []
        for i in range(100):
            stream = OnlinePValues(rng)
            stream.update_many(_confidence_scores(rng, 500))
            before = _confidence_scores(rng, _CHANGE)
            after = _confidence_scores(rng, _LENGTH - _CHANGE, sharpness=sharpness)
            path, alarm = _watch(stream.update_many(np.concatenate([before, after])))
            alarms.append(alarm)
            if i < 12:
                ax.plot(steps[::10], path[::10], color=BLUE, linewidth=0.8, alpha=0.8)
        ax.axhline(-math.log10(_DELTA), **TARGET)
        ax.set(title=title, xlabel="cases since the start", ylabel="wealth", xlim=(0, _LENGTH))
        ax.yaxis.set_major_formatter(lambda value, _: f"$10^{{{value:g}}}$")
        raised = [alarm for alarm in alarms if alarm is not None]
        late = [alarm - _CHANGE for alarm in raised if alarm > _CHANGE]
        finding = f"{title}: {len(raised)} alarms in 100 streams of {_LENGTH}"
        if len(late) > 50:
            finding += f", half of them within {np.median(late):.0f} cases of the change"
        findings.append(finding)
    axes[0].axvline(_CHANGE, color=BLACK, linewidth=0.8, linestyle=":")
    wrong = 0
    for _ in range(100):
        fixed = conformal_p_values(_confidence_scores(rng, 100), _confidence_scores(rng, 10_000), rng=rng)
        wrong += _watch(fixed)[1] is not None
    findings.append(
        f"p-values against 100 fixed rows, no change: {wrong} false alarms in 100 streams of 10000"
    )
    return Plot(figure, findings)


def accumulators() -> Plot:
    """Average the errors of batches, or add the batches up: the same rows, the same model."""
    rng = np.random.default_rng(17)
    n, sizes = 20_000, (50, 100, 200, 500, 1000, 2000, 5000, 20_000)
    figure, (ax,) = panels(1, width=5.2)
    findings = []
    for place, (name, sharpness) in enumerate((("overconfident", 1.3), ("calibrated", 1.0))):
        cases = mixed_cases(rng, n, sharpness=sharpness)
        p = softmax(cases.logits)
        averaged, added = [], []
        for size in sizes:
            batches = [slice(start, start + size) for start in range(0, n, size)]
            averaged.append(np.mean([compute_ece(p[rows], cases.labels[rows]) for rows in batches]))
            total = ReliabilityAccumulator()
            for rows in rng.permutation(len(batches)):
                part = ReliabilityAccumulator()
                part.update(p[batches[rows]], cases.labels[batches[rows]])
                total = total.merge(part)
            result = total.result()
            assert result is not None
            added.append(result.ece)
        ax.plot(sizes, averaged, label=f"{name}, batches averaged", **SERIES[place])
        ax.plot(sizes, added, label=f"{name}, batches added up", **SERIES[place + 2])
        same = "the same" if np.ptp(added) < 1e-12 else "another"
        findings.append(
            f"{name}: ECE {averaged[-1]:.3f} all at once; batches of {sizes[0]}: {averaged[0]:.3f} averaged, "
            f"{added[0]:.3f} added up; of any size: {same} within 1e-12"
        )
    ax.set(xscale="log", xlabel="rows of a batch, of 20,000", ylabel="ECE", ylim=(0, None))
    ax.legend(loc="upper right")
    return Plot(figure, findings)


PLOTS = {"martingale": martingale, "accumulators": accumulators}
