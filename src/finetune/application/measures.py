"""What is measured on test rows: pure functions from arrays to plain data."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from finetune.application.decision_rule import DecisionRule, Rulings, coverage_law
from finetune.application.estimates import CONFIDENCE, Estimate, estimate, mean, share
from finetune.application.statements import Unit
from finetune.domain.calibration import error_intervals, null_band, reliability_bins
from finetune.domain.checks import FloatArray, IntArray
from finetune.domain.decisions import REASONS
from finetune.domain.labels import ABSTAIN
from finetune.domain.risk import bayes_actions, confidence_logit, risk_coverage_curve
from finetune.domain.statistics import bootstrap_interval

BINS = 10
BAND = 0.99
_CURVE_POINTS = 20
_CONFUSIONS = 10


def measure_accuracy(log_probs: FloatArray, truth: IntArray) -> Estimate:
    """Share of rows whose most probable outcome is the true one."""
    hits = int((log_probs.argmax(axis=1) == truth).sum())
    return share(hits, len(truth), reason="there are no rows")


class Scores(NamedTuple):
    """Proper scores of one set of probabilities."""

    log_loss: Estimate
    brier: Estimate


def measure_scores(log_probs: FloatArray, truth: IntArray, rng: np.random.Generator) -> Scores:
    """Log loss in nats and Brier score in [0, 2], with bootstrap intervals."""
    rows = np.arange(len(truth))
    probabilities = np.exp(log_probs)
    target = np.zeros_like(probabilities)
    target[rows, truth] = 1.0
    return Scores(mean(-log_probs[rows, truth], rng), mean(((probabilities - target) ** 2).sum(axis=1), rng))


def measure_calibration(log_probs: FloatArray, truth: IntArray, rng: np.random.Generator) -> dict[str, Any]:
    """ECE and MCE of the most probable outcome with bootstrap intervals; the null band; the bins."""
    predicted = log_probs.argmax(axis=1)
    confidence = np.minimum(np.exp(log_probs[np.arange(len(truth)), predicted]), 1.0)
    hits = predicted == truth
    observed = reliability_bins(confidence, hits.astype(np.int64), BINS)
    intervals = error_intervals(confidence, hits, rng, BINS, level=CONFIDENCE)
    band = null_band(confidence, rng, BINS, level=CONFIDENCE)
    table = observed.to_dict()
    return {
        "ece": {
            **estimate(observed.ece, intervals["ece"], "bootstrap"),
            "null_low": band.low,
            "null_high": band.high,
        },
        "mce": estimate(observed.mce, intervals["mce"], "bootstrap"),
        "bins": [
            {"lower": lower, "upper": upper, "count": count, "confidence": claimed, "accuracy": accuracy}
            for lower, upper, count, claimed, accuracy in zip(
                table["edges"][:-1],
                table["edges"][1:],
                table["counts"],
                table["confidence"],
                table["accuracy"],
                strict=True,
            )
        ],
    }


def measure_coverage(
    rulings: Rulings, truth: IntArray, rule: DecisionRule, rng: np.random.Generator, unit: Unit
) -> dict[str, Any]:
    """Share of sets that hold the truth, against the law of that share for as many test rows.

    The promise is about all rows; the shares among the answered and the others only describe.
    """
    n, predictor, law = len(truth), rule.sets, coverage_law(rule.sets)
    holds, answered = rulings.sets[np.arange(n), truth], rulings.answered
    covered, given = int(holds.sum()), int(answered.sum())
    covered_given = int(holds[answered].sum())
    sizes = rulings.sets.sum(axis=1)
    band = law.test_band(n, BAND)
    return {
        "observed": share(covered, n, reason="there are no rows", exact=True),
        "answered": share(covered_given, given, reason=f"no {unit} was answered", exact=True),
        "handed_over": share(
            covered - covered_given, n - given, reason=f"no {unit} was handed over", exact=True
        ),
        "covered": covered,
        "promised": 1.0 - predictor.alpha,
        "expected": law.expected,
        "band": {"low": band.low, "high": band.high, "probability": BAND},
        "inside": bool(band.low <= covered / n <= band.high),
        "covers_everything": predictor.covers_everything,
        "method": predictor.method,
        "mean_size": mean(sizes, rng),
        "sizes": [
            {"size": size, "rows": int((sizes == size).sum())}
            for size in range(int(sizes.min()), int(sizes.max()) + 1)
        ],
    }


def measure_selection(rulings: Rulings, truth: IntArray, unit: Unit) -> dict[str, Any]:
    """How much is answered, how often that is wrong, and why the rest is handed over."""
    n, answered = len(truth), rulings.answered
    errors = int((rulings.taken != truth)[answered].sum())
    counted = Counter(rulings.reasons)
    return {
        "rows": n,
        "answered": int(answered.sum()),
        "share": share(int(answered.sum()), n, reason="there are no rows"),
        "errors": errors,
        "error": share(errors, int(answered.sum()), reason=f"no {unit} was answered", exact=True),
        "abstentions": [
            {"reason": reason, "rows": counted[reason]}
            for reason in REASONS
            if reason != "none" and counted[reason]
        ],
    }


def measure_cost(
    rulings: Rulings, truth: IntArray, rule: DecisionRule, rng: np.random.Generator
) -> dict[str, Any] | None:
    """Mean cost per row of the rule, of always answering at least expected cost, and of never answering.

    None without costs.
    """
    if rule.costs is None:
        return None
    labels = label_columns(rule.outcomes)
    forced = labels[bayes_actions(rulings.log_probabilities, rule.costs[:, labels]).actions]
    hand_over = rule.outcomes.index(ABSTAIN) if ABSTAIN in rule.outcomes else len(rule.outcomes)
    return {
        "rule": mean(rule.costs[truth, rulings.taken], rng),
        "always_answer": mean(rule.costs[truth, forced], rng),
        "always_abstain": mean(rule.costs[truth, hand_over], rng),
    }


def measure_risk_coverage(rulings: Rulings, truth: IntArray, rule: DecisionRule) -> dict[str, Any]:
    """Error among the most confident rows, for shares from few to all; the likeliest label is the answer.

    The area under the curve counts each row with the error rate at its own confidence; rows of equal
    confidence are answered together.
    """
    log_probs, n = rulings.log_probabilities, len(truth)
    labels = label_columns(rule.outcomes)
    likeliest = labels[log_probs[:, labels].argmax(axis=1)]
    curve = risk_coverage_curve(confidence_logit(log_probs, likeliest), likeliest != truth)
    points = curve.at([step / _CURVE_POINTS for step in range(1, _CURVE_POINTS + 1)])
    answered = rulings.answered
    return {
        "aurc": curve.aurc,
        "points": [
            {
                "answered": round(point.coverage * n),
                "share": point.coverage,
                "confidence": float(1.0 / (1.0 + np.exp(-np.clip(point.threshold, -700.0, 700.0)))),
                "errors": round(point.coverage * n * point.risk),
                "error": point.risk,
            }
            for point in dict.fromkeys(points)
        ],
        "operating": {
            "share": float(answered.mean()),
            "error": float((rulings.taken != truth)[answered].mean()),
        }
        if answered.any()
        else None,
    }


def measure_confusion(rulings: Rulings, truth: IntArray, outcomes: tuple[str, ...]) -> dict[str, Any]:
    """Truth against decision, with recall and precision per outcome; handing over is a decision."""
    columns = outcomes if ABSTAIN in outcomes else (*outcomes, ABSTAIN)
    table = np.zeros((len(outcomes), len(columns)), dtype=np.int64)
    np.add.at(table, (truth, rulings.taken), 1)
    wrong = table.copy()
    np.fill_diagonal(wrong, 0)
    wrong[:, columns.index(ABSTAIN)] = 0
    worst = np.argsort(-wrong, axis=None, kind="stable")[:_CONFUSIONS]
    cells = [(int(cell) // len(columns), int(cell) % len(columns)) for cell in worst]
    return {
        "rows": list(outcomes),
        "columns": list(columns),
        "matrix": table.tolist(),
        "per_label": [
            {
                "label": label,
                "rows": int(table[i].sum()),
                "decided": int(table[:, i].sum()),
                "recall": share(int(table[i, i]), int(table[i].sum()), reason="no test row has this label"),
                "precision": share(int(table[i, i]), int(table[:, i].sum()), reason="never decided"),
            }
            for i, label in enumerate(outcomes)
        ],
        "most_frequent": [
            {"truth": outcomes[i], "decision": columns[j], "rows": int(wrong[i, j])}
            for i, j in cells
            if wrong[i, j]
        ],
    }


def measure_known_posterior(
    log_probs: FloatArray, posterior: FloatArray, rng: np.random.Generator
) -> dict[str, Any]:
    """Compare with the best that anybody could do, where the true probabilities of generated rows are known.

    Parameters
    ----------
    log_probs, posterior
        Shape (n, K): the model's log-probabilities, and the true probabilities.
    rng
        Source of the bootstrap draws.

    Returns
    -------
    dict
        Accuracies are expected ones, over the labels that a text may have: no label noise is in them.
    """
    rows = np.arange(len(posterior))
    best = posterior.max(axis=1)
    reached = posterior[rows, log_probs.argmax(axis=1)]
    entropy = -(posterior * np.log(np.where(posterior > 0.0, posterior, 1.0))).sum(axis=1)
    interval = bootstrap_interval(
        lambda drawn: float(reached[drawn].sum() / best[drawn].sum()), len(rows), rng, level=CONFIDENCE
    )
    return {
        "bayes_accuracy": mean(best, rng),
        "bayes_log_loss": mean(entropy, rng),
        "expected_accuracy": mean(reached, rng),
        "share_reached": estimate(float(reached.sum() / best.sum()), interval, "bootstrap"),
    }


def label_columns(outcomes: tuple[str, ...]) -> IntArray:
    """Return the columns that are labels."""
    return np.array([i for i, name in enumerate(outcomes) if name != ABSTAIN], dtype=np.int64)
