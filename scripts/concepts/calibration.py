"""Plots of the pages on probabilities: how wrong they are, what scores tell, and maps that mend them."""

from __future__ import annotations

import numpy as np

from concepts.style import BLUE, GREY, ORANGE, SERIES, TARGET, Plot, panels, percent_axis
from concepts.worlds import Cases, Floats, mixed_cases, softmax
from finetune.domain import (
    MAPS,
    choose_map,
    compute_debiased_error,
    compute_ece,
    compute_log_loss,
    compute_rmsce,
    decompose_brier,
    null_band,
    reliability_bins,
)

N_BINS = 15


def calibration_errors() -> Plot:
    """Calibration errors of a perfect and of an overconfident model as test rows are added."""
    rng = np.random.default_rng(12)
    sizes, n_draws = (25, 50, 100, 300, 1000, 3000, 10_000), 60
    models = {"calibrated": 1.0, "overconfident": 1.5}
    measures = {"ECE": compute_ece, "RMSCE": compute_rmsce, "debiased RMSCE": _debiased}
    found = {(measure, model): np.zeros(len(sizes)) for measure in measures for model in models}
    outside, bands = np.zeros(len(sizes)), []
    for i, n in enumerate(sizes):
        bands.append(null_band(softmax(mixed_cases(rng, n).logits), rng, N_BINS))
        for model, sharpness in models.items():
            own = null_band(softmax(mixed_cases(rng, n, sharpness=sharpness).logits), rng, N_BINS)
            for _ in range(n_draws):
                cases = mixed_cases(rng, n, sharpness=sharpness)
                p = softmax(cases.logits)
                for name, measure in measures.items():
                    found[name, model][i] += measure(p, cases.labels, N_BINS) / n_draws
                if model == "overconfident":
                    outside[i] += (not own.low <= compute_ece(p, cases.labels, N_BINS) <= own.high) / n_draws
    figure, (left, right) = panels(2)
    ends = [band.low for band in bands], [band.high for band in bands]
    left.fill_between(sizes, *ends, color=GREY, alpha=0.3, linewidth=0, label="null band, 95 %")
    for model, series in zip(models, SERIES, strict=False):
        left.plot(sizes, found["ECE", model], label=model, **series)
    curves = [(measure, model) for measure in ("RMSCE", "debiased RMSCE") for model in models]
    for curve, series in zip(curves, SERIES, strict=False):
        right.plot(sizes, found[curve], label=", ".join(curve), **series)
    for ax, ylabel in ((left, "ECE, 15 bins"), (right, "RMSCE, 15 bins")):
        ax.set(xscale="log", xlabel="test rows", ylabel=ylabel, ylim=(0, 0.4))
        ax.legend(loc="upper right")
    findings = [
        f"n = {sizes[i]}: ECE {found['ECE', 'calibrated'][i]:.3f} if calibrated (null band "
        f"{bands[i].low:.3f} to {bands[i].high:.3f}), {found['ECE', 'overconfident'][i]:.3f} if not "
        f"(outside the band: {100 * outside[i]:.0f} % of draws)"
        for i in (0, 2, 4, 6)
    ]
    return Plot(figure, findings)


def _debiased(p: Floats, labels: np.ndarray, n_bins: int) -> float:
    error = compute_debiased_error(p, labels, n_bins)
    return 0.0 if error is None else error.root


def scoring_rules() -> Plot:
    """Brier scores taken apart for four models of one task, and what one row costs under either score."""
    rng = np.random.default_rng(13)
    cases = mixed_cases(rng, 50_000, 4)
    p = softmax(cases.logits)
    base = np.bincount(cases.labels, minlength=4) / len(cases.labels)
    models = {
        "knows the truth": p,
        "overconfident": softmax(2.5 * cases.logits),
        "diffident": softmax(0.4 * cases.logits),
        "base rates only": np.tile(base, (len(p), 1)),
    }
    figure, (left, right) = panels(2)
    findings = []
    y = np.arange(len(models))[::-1]
    scores = []
    for name, rows in models.items():
        parts = decompose_brier(rows, cases.labels, n_bins=20)
        scores.append((parts.reliability, parts.resolution))
        loss, within = compute_log_loss(rows, cases.labels), parts.within_variance - parts.within_covariance
        findings.append(
            f"{name}: Brier {parts.score:.3f} = {parts.reliability:.3f} reliability - "
            f"{parts.resolution:.3f} resolution + {parts.uncertainty:.3f} uncertainty {within:+.3f} within "
            f"bins; log loss {loss:.3f}"
        )
    values = np.array(scores)
    left.barh(
        y + 0.2, values[:, 0], 0.38, color=ORANGE, hatch="//", edgecolor="white", label="reliability (a cost)"
    )
    left.barh(y - 0.2, values[:, 1], 0.38, color=BLUE, label="resolution (a gain)")
    left.set_yticks(y, list(models))
    left.set(xlabel="part of the Brier score", xlim=(0, 0.75))
    left.legend(loc="lower right")
    x = np.linspace(0.001, 1.0, 1000)
    right.plot(x, -np.log(x), label="log loss", **{**SERIES[0], "marker": None})
    right.plot(x, 2 * (1 - x) ** 2, label="Brier, two labels", **{**SERIES[1], "marker": None})
    right.set(
        xlabel="probability given to the true label", ylabel="score of one row", ylim=(0, 7), xlim=(0, 1)
    )
    right.legend(loc="upper right")
    return Plot(figure, findings)


def _biased_cases(rng: np.random.Generator, n: int) -> Cases:
    """Draw cases of an overconfident model that also leans towards some of five labels."""
    cases = mixed_cases(rng, n, 5)
    return cases._replace(logits=2.0 * cases.logits + np.array([2.0, 1.0, 0.0, -1.0, -2.0]))


def calibration_maps() -> Plot:
    """Reliability before and after, and the log loss on new rows as validation rows are added."""
    rng = np.random.default_rng(14)
    test = _biased_cases(rng, 20_000)
    figure, (left, right) = panels(2)
    findings = []
    big = _biased_cases(rng, 2000)
    shown = {
        "before": np.log(softmax(test.logits)),
        "temperature": MAPS["temperature"].fit(big.logits, big.labels).apply(test.logits),
        "vector": MAPS["vector"].fit(big.logits, big.labels).apply(test.logits),
    }
    for (name, rows), series in zip(shown.items(), SERIES, strict=False):
        bins = reliability_bins(np.exp(rows), test.labels, n_bins=10)
        used = bins.counts >= 100
        left.plot(
            bins.confidence_sums[used] / bins.counts[used],
            bins.hits[used] / bins.counts[used],
            label=name,
            **series,
        )
        loss = compute_log_loss(rows, test.labels, inputs="log_probabilities")
        findings.append(f"{name}: ECE {bins.ece:.3f}, log loss {loss:.3f}")
    left.plot([0.2, 1], [0.2, 1], **TARGET)
    left.set(xlabel="confidence", ylabel="share right")
    percent_axis(left.xaxis)
    percent_axis(left.yaxis)
    left.legend(loc="upper left")
    sizes, draws = (30, 100, 300, 1000, 3000), 10
    names = ("temperature", "vector", "matrix", "isotonic")
    losses = {name: np.zeros(len(sizes)) for name in names}
    for i, n in enumerate(sizes):
        for _ in range(draws):
            rows = _biased_cases(rng, n)
            for name in names:
                fitted = MAPS[name].fit(rows.logits, rows.labels).apply(test.logits)
                losses[name][i] += compute_log_loss(fitted, test.labels, inputs="log_probabilities") / draws
    for (name, values), series in zip(losses.items(), SERIES, strict=False):
        right.plot(sizes, values, label=name, **series)
        findings.append(f"{name}: mean log loss {values[0]:.3f} with 30 rows, {values[-1]:.3f} with 3000")
    right.set(xscale="log", xlabel="validation rows", ylabel="log loss on new rows")
    right.legend(loc="upper right")
    chosen = [choose_map(rows.logits, rows.labels, rng).name for rows in (_biased_cases(rng, 100), big)]
    findings.append(f"choose_map takes {chosen[0]} with 100 rows and {chosen[1]} with 2000")
    return Plot(figure, findings)


PLOTS = {
    "calibration-errors": calibration_errors,
    "scoring-rules": scoring_rules,
    "calibration-maps": calibration_maps,
}
