"""Plot of the page on coverage within each label: one threshold, one a label, one a cluster of labels."""

from __future__ import annotations

import warnings

import numpy as np

from concepts.style import GREY, SERIES, TARGET, Plot, panels, percent_axis
from concepts.worlds import Bools, Cases
from finetune.domain import (
    ClassConditionalPredictor,
    ClusteredPredictor,
    ConformalPredictor,
    CoverageLaw,
    conformal_rank,
)
from finetune.domain.errors import CoverageWarning

ALPHA, N_LABELS = 0.1, 40
METHODS = ("marginal", "class-conditional", "clustered")


def _labelled_cases(rng: np.random.Generator, n: int) -> Cases:
    """Four kinds of labels, from hard to easy, ten of each."""
    labels = rng.integers(N_LABELS, size=n)
    strength = np.repeat([1.5, 2.5, 3.5, 4.5], N_LABELS // 4)[labels]
    logits = rng.normal(size=(n, N_LABELS))
    logits[np.arange(n), labels] += strength
    return Cases(logits, labels, -strength)


def _sets(rng: np.random.Generator, method: str, cal: Cases, test: Cases) -> Bools:
    if method == "marginal":
        marginal = ConformalPredictor("lac", inputs="logits")
        return marginal.calibrate(cal.logits, cal.labels, alpha=ALPHA).predict(test.logits)
    if method == "class-conditional":
        by_label = ClassConditionalPredictor("lac", inputs="logits")
        return by_label.calibrate(cal.logits, cal.labels, alpha=ALPHA).predict(test.logits)
    clustered = ClusteredPredictor("lac", inputs="logits")
    return clustered.calibrate(cal.logits, cal.labels, ALPHA, rng=rng).predict(test.logits)


def _by_label(sets: Bools, test: Cases) -> np.ndarray:
    held = sets[np.arange(len(sets)), test.labels]
    return np.bincount(test.labels, weights=held, minlength=N_LABELS) / np.bincount(test.labels)


def conditional() -> Plot:
    """Coverage of each label with 50 rows of each; set size as the rows get fewer."""
    rng = np.random.default_rng(18)
    test = _labelled_cases(rng, 40_000)
    figure, (left, right) = panels(2)
    sizes = (10, 15, 20, 30, 50, 100, 200)
    size_of = {name: np.zeros(len(sizes)) for name in METHODS}
    findings = []
    with warnings.catch_warnings():
        # Labels without a row are in every set, which is what the right panel shows.
        warnings.simplefilter("ignore", CoverageWarning)
        for i, per_label in enumerate(sizes):
            cal = _labelled_cases(rng, per_label * N_LABELS)
            for name, series in zip(METHODS, SERIES, strict=False):
                sets = _sets(rng, name, cal, test)
                size_of[name][i] = sets.sum(axis=1).mean()
                coverage = _by_label(sets, test)
                distance = np.abs(coverage - 1 + ALPHA).mean()
                if per_label == 50:
                    left.plot(np.arange(N_LABELS), coverage, **{**series, "linestyle": "none"}, label=name)
                if per_label in (10, 50):
                    findings.append(
                        f"{name}, {per_label} rows a label: coverage {coverage.min():.3f} to "
                        f"{coverage.max():.3f}, on average {distance:.3f} away from 0.9; "
                        f"labels per set {size_of[name][i]:.2f}"
                    )
    for name, series in zip(METHODS, SERIES, strict=False):
        right.plot(sizes, size_of[name], **series)
    low, high, _ = CoverageLaw(50, conformal_rank(50, ALPHA)).interval(0.9)
    findings.append(f"law of the coverage of a label with 50 rows: {low:.3f} to {high:.3f} in 90 %")
    left.axhspan(low, high, color=GREY, alpha=0.2, linewidth=0)
    left.axhline(1 - ALPHA, **TARGET)
    left.set(xlabel="label, hardest first", ylabel="coverage of its cases")
    percent_axis(left.yaxis)
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    right.set(
        xscale="log", xlabel="calibration rows of each label", ylabel="labels per set, of 40", ylim=(0, None)
    )
    right.set_xticks(sizes, [str(size) for size in sizes])
    right.minorticks_off()
    return Plot(figure, findings)


PLOTS = {"conditional": conditional}
