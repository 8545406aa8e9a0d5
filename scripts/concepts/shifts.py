"""Plots of the pages on cases that change: weights for a known shift, a level that adapts to any."""

from __future__ import annotations

import numpy as np

from concepts.style import BLACK, SERIES, TARGET, Plot, panels, percent_axis
from concepts.worlds import Cases, Floats, drawn_labels, mixed_cases, softmax
from finetune.domain import (
    AdaptiveConformalPredictor,
    conformal_quantile,
    effective_sample_size,
    weighted_conformal_quantile,
)

ALPHA = 0.1


def _cases_at(rng: np.random.Generator, covariate: Floats) -> Cases:
    """Cases whose labels get less certain as a covariate grows, for a model that does not see it grow."""
    base = 3.0 * rng.normal(size=(len(covariate), 10))
    probabilities = softmax(base / np.exp(0.5 * covariate)[:, None])
    return Cases(base, drawn_labels(rng, probabilities), 1.0 - probabilities.max(axis=1))


def _scores(cases: Cases) -> Floats:
    return -np.log(softmax(cases.logits))


def weighted() -> Plot:
    """Coverage as the new cases move away from the calibration cases: without and with their weights."""
    rng = np.random.default_rng(6)
    n_cal, n_test, draws = 500, 500, 40
    shifts = np.arange(0.0, 2.51, 0.25)
    plain, mended, everything, effective = (np.zeros(len(shifts)) for _ in range(4))
    for i, shift in enumerate(shifts):
        for _ in range(draws):
            at_cal, at_test = rng.normal(size=n_cal), rng.normal(shift, 1.0, size=n_test)
            cal, test = _cases_at(rng, at_cal), _cases_at(rng, at_test)
            cal_scores = _scores(cal)[np.arange(n_cal), cal.labels]
            true_scores = _scores(test)[np.arange(n_test), test.labels]
            # The ratio of the two normal densities, but for a factor.
            weights, new_weights = np.exp(shift * at_cal), np.exp(shift * at_test)
            threshold = weighted_conformal_quantile(cal_scores, weights, new_weights, ALPHA)
            plain[i] += (true_scores <= conformal_quantile(cal_scores, ALPHA)).mean() / draws
            mended[i] += (true_scores <= threshold).mean() / draws
            everything[i] += np.isinf(threshold).mean() / draws
            effective[i] += effective_sample_size(weights) / draws
    figure, (left, right) = panels(2)
    left.plot(shifts, plain, label="without weights", **SERIES[0])
    left.plot(shifts, mended, label="with weights", **SERIES[1])
    left.axhline(1 - ALPHA, **TARGET)
    left.set(xlabel="shift of the covariate, standard deviations", ylabel="coverage")
    left.legend(loc="lower left")
    right.plot(shifts, everything, label="sets of all labels", **SERIES[2])
    right.plot(shifts, effective / n_cal, label="effective rows, of 500", **SERIES[3])
    right.set(xlabel="shift of the covariate, standard deviations", ylabel="share", ylim=(0, 1.02))
    right.legend(loc="upper right")
    percent_axis(left.yaxis)
    percent_axis(right.yaxis)
    findings = [
        f"shift {shifts[i]:.1f}: coverage {plain[i]:.3f} without weights, {mended[i]:.3f} with; "
        f"{effective[i]:.0f} effective rows, {100 * everything[i]:.0f} % sets of all labels"
        for i in (0, 4, 8, 10)
    ]
    return Plot(figure, findings)


def _rolling(values: Floats, window: int) -> Floats:
    return np.convolve(values, np.full(window, 1 / window), mode="valid")


def adaptive() -> Plot:
    """Coverage and set size over a stream that turns hard halfway: a fixed threshold, and adaptive ones."""
    rng = np.random.default_rng(7)
    n, change, window = 4000, 2000, 200
    cal, easy, hard = mixed_cases(rng, 500), mixed_cases(rng, change), mixed_cases(rng, n - change, noise=2.0)
    logits, labels = np.concatenate([easy.logits, hard.logits]), np.concatenate([easy.labels, hard.labels])
    figure, (left, right) = panels(2)
    findings = []
    runs = {"fixed threshold": 1e-12, "γ = 0.005": 0.005, "γ = 0.05": 0.05}
    for (name, gamma), series in zip(runs.items(), SERIES, strict=False):
        predictor = AdaptiveConformalPredictor("lac", gamma=gamma, inputs="logits")
        predictor.calibrate(cal.logits, cal.labels, alpha=ALPHA)
        held, size = np.empty(n), np.empty(n)
        for t in range(n):
            size[t] = predictor.predict(logits[t]).sum()
            held[t] = predictor.update(labels[t])
        x = np.arange(window, n + 1)[::20]
        style = {**series, "marker": None}
        left.plot(x, _rolling(held, window)[::20], label=name, **style)
        right.plot(x, _rolling(size, window)[::20], label=name, **style)
        finding = (
            f"{name}: coverage {held[:change].mean():.3f} before, {held[change:].mean():.3f} after, "
            f"{_rolling(held[change:], window).min():.3f} over the worst {window}; "
            f"labels per set {size[:change].mean():.2f}, {size[change:].mean():.2f}"
        )
        if gamma > 1e-6:
            everything = 100 * (size[change:] == 10).mean()
            finding += f", all ten in {everything:.0f} %; bound {predictor.level.bound:.3f}"
        findings.append(finding)
    left.axhline(1 - ALPHA, **TARGET)
    percent_axis(left.yaxis)
    for ax, what in ((left, "coverage"), (right, "labels per set")):
        ax.axvline(change, color=BLACK, linewidth=0.8, linestyle=":")
        ax.set(xlabel="cases since the start", ylabel=f"{what}, last {window} cases")
    right.legend(loc="upper left")
    return Plot(figure, findings)


PLOTS = {"weighted": weighted, "adaptive": adaptive}
