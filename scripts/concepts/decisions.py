"""Plots of the pages on decisions: risk control, selective risk, costs, risk-coverage curves."""

from __future__ import annotations

import numpy as np

from concepts.style import BLACK, BLUE, ORANGE, SERIES, TARGET, Plot, panels, percent_axis
from concepts.worlds import Bools, Floats, mixed_cases, softmax
from finetune.domain import (
    InfeasibleGuarantee,
    bayes_actions,
    conformal_risk_control,
    control_cost,
    cost_controlled_actions,
    cost_matrix,
    group_thresholds,
    risk_coverage_curve,
    selective_threshold,
)
from finetune.domain.risk import RiskCoverageCurve, confidence_logit

LEVEL = 0.1


def risk_control() -> Plot:
    """Share of relevant topics missed over many calibration sets: the mean is kept, single draws are not."""
    rng = np.random.default_rng(4)
    n_pool, n_topics = 20_000, 15
    logits = rng.normal(-2.0, 2.0, size=(n_pool, n_topics))
    chance = 1 / (1 + np.exp(-logits))
    relevant = rng.random(logits.shape) < chance
    relevant[np.arange(n_pool), logits.argmax(axis=1)] = True
    lambdas = np.linspace(0.6, 1.0, 201)
    # Listed is every topic with a chance of at least 1 - lambda.
    missed = np.stack([(relevant & (chance < 1 - x)).sum(axis=1) for x in lambdas], axis=1)
    losses = missed / relevant.sum(axis=1, keepdims=True)
    truth = losses.mean(axis=0)
    figure, (ax,) = panels(1, width=4.8)
    findings = []
    bins = np.arange(0.04, 0.1701, 0.005)
    for n, style in ((50, {"color": ORANGE, "hatch": "//"}), (500, {"color": BLUE})):
        risk = np.empty(1000)
        for i in range(len(risk)):
            found = conformal_risk_control(losses[rng.integers(n_pool, size=n)], lambdas, LEVEL)
            risk[i] = truth[np.flatnonzero(lambdas == found.lambda_)[0]]
        ax.hist(risk, bins, density=True, histtype="step", linewidth=1.5, label=f"n = {n}", **style)
        findings.append(
            f"n = {n}: mean share missed {risk.mean():.4f}; above {LEVEL:g} in "
            f"{100 * (risk > LEVEL).mean():.0f} % of 1000 draws, up to {risk.max():.3f}"
        )
    ax.axvline(LEVEL, **TARGET)
    ax.set(xlabel="share of the relevant topics that is missed", ylabel="density")
    percent_axis(ax.xaxis)
    ax.legend()
    return Plot(figure, findings)


def _naive_threshold(scores: Floats, errors: Bools) -> float:
    """Take the loosest threshold whose observed error rate is within the level; promises nothing."""
    (point,) = risk_coverage_curve(scores, errors).within([LEVEL])
    return point.threshold if point else np.inf


def _certified_threshold(scores: Floats, errors: Bools) -> float:
    try:
        return selective_threshold(scores, errors, LEVEL, delta=0.1).threshold
    except InfeasibleGuarantee:
        return np.inf


def selective_risk() -> Plot:
    """Compare true error rates among the answers, for a certified and for an observed threshold."""
    rng = np.random.default_rng(5)
    pool = mixed_cases(rng, 200_000, 4)
    log_probs = np.log(softmax(pool.logits))
    actions = log_probs.argmax(axis=1)
    scores, errors = confidence_logit(log_probs, actions), actions != pool.labels
    truth = risk_coverage_curve(scores, errors)
    best = _share(truth)
    figure, (left, right) = panels(2)
    sizes, draws = (100, 300, 1000, 3000, 10_000), 400
    rules = {"certified": _certified_threshold, "observed": _naive_threshold}
    answered: dict[str, list[float]] = {name: [] for name in rules}
    findings = []
    for n in sizes:
        risks, shares = ({name: np.zeros(draws) for name in rules} for _ in range(2))
        for draw in range(draws):
            rows = rng.integers(len(scores), size=n)
            for name, rule in rules.items():
                n_points = np.count_nonzero(truth.threshold >= rule(scores[rows], errors[rows]))
                if n_points:
                    risks[name][draw] = truth.risk[n_points - 1]
                    shares[name][draw] = truth.coverage[n_points - 1]
        for name in rules:
            answered[name].append(shares[name].mean())
        if n == 1000:
            bins = np.arange(0.0, 0.1501, 0.005)
            for name, style in (
                ("certified", {"color": BLUE}),
                ("observed", {"color": ORANGE, "hatch": "//"}),
            ):
                left.hist(risks[name], bins, histtype="step", linewidth=1.5, label=name, **style)
                findings.append(
                    f"{name} threshold, n = {n}: error rate above {LEVEL:g} in "
                    f"{100 * np.mean(risks[name] > LEVEL):.1f} % of {draws} draws; "
                    f"answers {100 * shares[name].mean():.0f} % on average"
                )
    left.axvline(LEVEL, **TARGET)
    left.legend(loc="upper left")
    left.set(xlabel="error rate among the answers", ylabel="draws of 1000 rows, of 400")
    left.set_xticks([0.0, 0.05, 0.1, 0.15])
    percent_axis(left.xaxis)
    for (name, values), series in zip(answered.items(), SERIES, strict=False):
        right.plot(sizes, values, label=name, **series)
    right.axhline(best, **TARGET)
    right.set(xscale="log", xlabel="calibration rows", ylabel="answered", ylim=(0, 0.7))
    percent_axis(right.yaxis)
    right.legend(loc="lower right")
    findings.append(f"answered with the error rate known exactly: {100 * best:.0f} %")
    return Plot(figure, [*findings, *_group_findings(rng)])


def _group_findings(rng: np.random.Generator) -> list[str]:
    """Count errors in a group that the model reads badly, under one threshold for all and under its own."""
    groups = (rng.random(50_000) < 0.05).astype(np.int64)
    cases = mixed_cases(rng, len(groups), 4)
    noise = 4.0 * rng.normal(size=cases.logits.shape) * groups[:, None]
    log_probs = np.log(softmax(cases.logits + noise))
    actions = log_probs.argmax(axis=1)
    scores, errors = confidence_logit(log_probs, actions), actions != cases.labels
    cal, test = slice(0, 10_000), slice(10_000, None)
    one = selective_threshold(scores[cal], errors[cal], LEVEL, delta=0.1).threshold
    own = group_thresholds(scores[cal], errors[cal], groups[cal], LEVEL, delta=0.1, n_groups=2).thresholds
    findings = []
    for name, thresholds in (("one threshold", np.array([one, one])), ("a threshold each", own)):
        answered = scores[test] >= thresholds[groups[test]]
        rare = answered & (groups[test] == 1)
        of_group = f"{errors[test][rare].mean():.3f} of {rare.sum()}" if rare.any() else "no"
        findings.append(
            f"{name}: {errors[test][answered].mean():.3f} of all answers wrong; "
            f"badly read group: {of_group} answers"
        )
    return findings


def costs() -> Plot:
    """Draw expected costs of each action against the probability; and what wrong probabilities cost."""
    rng = np.random.default_rng(10)
    table = cost_matrix(("urgent", "routine"), abstain=0.5, pairs={"urgent": {"routine": 10.0}})
    p = np.linspace(0.0, 1.0, 1001)
    expected = np.stack([p, 1 - p], axis=1) @ table
    figure, (left, right) = panels(2)
    for name, cost, series in zip(
        ("decide urgent", "decide routine", "hand over"), expected.T, SERIES, strict=False
    ):
        left.plot(p, cost, label=name, **{**series, "marker": None})
    left.plot(p, expected.min(axis=1), color=BLACK, linewidth=4, alpha=0.25, label="least")
    left.set(xlabel="probability of urgent", ylabel="expected cost", ylim=(0, 1.5), xlim=(0, 1))
    left.legend(loc="upper right")
    switches = p[1:][np.diff(expected.argmin(axis=1)) != 0]
    truth = 1 / (1 + np.exp(-rng.normal(-1.0, 2.0, size=100_000)))
    sharpness = np.array([0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0])
    paid, believed = np.empty(len(sharpness)), np.empty(len(sharpness))
    for i, factor in enumerate(sharpness):
        claimed = 1 / (1 + (1 / truth - 1) ** factor)
        actions, expects = bayes_actions(np.log(np.stack([claimed, 1 - claimed], axis=1)), table)
        paid[i] = (np.stack([truth, 1 - truth], axis=1) @ table)[np.arange(len(truth)), actions].mean()
        believed[i] = expects.mean()
    right.plot(sharpness, paid, label="paid", **SERIES[0])
    right.plot(sharpness, believed, label="expected by the model", **SERIES[1])
    right.set(xlabel="log-odds multiplied by", ylabel="mean cost of a case", ylim=(0, None))
    right.legend(loc="upper left")
    findings = [
        f"routine up to P(urgent) = {switches[0]:.3f}, hand over up to {switches[1]:.3f}, then urgent",
        *(
            f"log-odds × {sharpness[i]:g}: {paid[i]:.3f} paid, {believed[i]:.3f} expected"
            for i in (1, 3, 5, 7)
        ),
    ]
    claimed = 1 / (1 + (1 / truth - 1) ** 2.0)
    rows, labels = (
        np.log(np.stack([claimed, 1 - claimed], axis=1)),
        (rng.random(len(truth)) > truth).astype(int),
    )
    found = control_cost(rows[:5000], labels[:5000], table, cost_level=0.5, delta=0.1)
    actions = cost_controlled_actions(rows[5000:], found.threshold, table)
    answered = actions >= 0
    mean = table[labels[5000:], actions][answered].mean()
    findings.append(
        f"log-odds × 2, control_cost at 0.5: {mean:.3f} paid for an answer; "
        f"{100 * answered.mean():.0f} % answered"
    )
    return Plot(figure, findings)


def _share(curve: RiskCoverageCurve) -> float:
    (point,) = curve.within([LEVEL])
    return point.coverage if point else 0.0


def risk_coverage() -> Plot:
    """Risk-coverage curves of one model under three scores, and the point that is certified."""
    rng = np.random.default_rng(11)
    cases = mixed_cases(rng, 3000, 4)
    log_probs = np.log(softmax(cases.logits))
    actions = log_probs.argmax(axis=1)
    errors = actions != cases.labels
    logit = confidence_logit(log_probs, actions)
    scores = {
        "log-odds of the answer": logit,
        "largest logit": cases.logits.max(axis=1),
        "chance": rng.random(len(errors)),
    }
    figure, (ax,) = panels(1, width=5.2)
    findings = []
    for (name, score), series in zip(scores.items(), SERIES, strict=False):
        curve = risk_coverage_curve(score, errors)
        ax.plot(curve.coverage, curve.risk, label=name, **{**series, "marker": None})
        findings.append(
            f"{name}: AURC {curve.aurc:.4f}, E-AURC {curve.e_aurc:.4f}, AUGRC {curve.augrc:.4f}; within an "
            f"observed risk of {LEVEL:g}: {_share(curve):.3f} answered"
        )
    found = selective_threshold(logit, errors, LEVEL, delta=0.1)
    share = found.n_answered / len(errors)
    ax.plot(
        share, found.n_errors / found.n_answered, marker="*", markersize=12, color=BLACK, linestyle="none"
    )
    ax.text(share + 0.03, 0.02, "certified: at most 10 %")
    ax.axhline(LEVEL, **TARGET)
    ax.set(xlabel="answered", ylabel="error rate among the answers", xlim=(0, 1), ylim=(0, 0.5))
    percent_axis(ax.xaxis)
    percent_axis(ax.yaxis)
    ax.legend(loc="upper right")
    findings.append(
        f"certified: {100 * share:.0f} % answered, {found.n_errors} of {found.n_answered} wrong, delta 0.1"
    )
    return Plot(figure, findings)


PLOTS = {
    "risk-control": risk_control,
    "selective-risk": selective_risk,
    "costs": costs,
    "risk-coverage": risk_coverage,
}
