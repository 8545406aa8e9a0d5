"""What is measured of a trained model in the study of objectives: from scores to numbers, map by map."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from finetune.application.decision_rule import costs_of
from finetune.application.labels_file import Costs
from finetune.application.maps import apply_map, fit_map, open_map
from finetune.application.ports import LabelScores
from finetune.application.scored_rows import ScoredRows
from finetune.application.settings import CalibrationConfig
from finetune.domain import (
    ABSTAIN,
    ConformalPredictor,
    InfeasibleGuarantee,
    compute_brier_score,
    compute_ece,
    compute_log_loss,
    risk_coverage_curve,
    selective_threshold,
)
from finetune.domain.checks import FloatArray, IntArray
from finetune.domain.risk import ABSTAINED, answers, confidence_logit, scored_actions

MAPS = ("none", "temperature", "vector", "auto")
CHECKED = "checked temperature"
ALPHA, LEVELS, DELTA = 0.1, (0.05, 0.1), 0.1
BINS = 15
KEPT = 0.95
DECIDABLE = 0.7

Numbers = dict[str, float | None]


class Scored(NamedTuple):
    """Scores of a model.

    Parameters
    ----------
    outcomes
        K names of the columns.
    costs
        What decisions cost.
    validation, calibration, test
        Rows that choose the map, that set thresholds, and that are measured.
    right
        Right labels of the validation rows, ``(n,)``, where their own are noisy.
    foreign
        Scores of texts out of scope.
    """

    outcomes: tuple[str, ...]
    costs: Costs
    validation: ScoredRows
    calibration: ScoredRows
    test: ScoredRows
    right: IntArray | None = None
    foreign: LabelScores | None = None


def measure(scored: Scored, seed: int) -> dict[str, Numbers]:
    """Return what is measured with each map; the seed deals rows into folds where a map is chosen."""
    validation = scored.validation
    fitting = {name: (name, validation) for name in MAPS}
    if scored.right is not None:
        checked = ScoredRows(validation.ids, scored.right, validation.scores)
        fitting[CHECKED] = ("temperature", checked)
    found = {}
    for name, (kind, rows) in fitting.items():
        config = CalibrationConfig.model_validate({"map": kind})
        fitted = open_map(fit_map(rows, config, np.random.default_rng(seed)))
        calibration, test = (
            apply_map(fitted, part.scores.log_probabilities) for part in (scored.calibration, scored.test)
        )
        found[name] = {
            **of_probabilities(test, scored.test.truth, scored.outcomes),
            **of_sets(calibration, scored.calibration.truth, test, scored.test.truth),
            **of_answers(calibration, scored.calibration.truth, test, scored.test.truth, scored.outcomes),
            "cost": mean_cost(test, scored.test.truth, scored.outcomes, scored.costs),
        }
        if scored.test.posterior is not None:
            found[name] |= of_posterior(test, scored.test.posterior)
        if scored.foreign is not None:
            other = apply_map(fitted, scored.foreign.log_probabilities)
            found[name] |= {
                "foreign_confidence": caught(test.max(axis=1), other.max(axis=1)),
                "foreign_mass": caught(scored.test.scores.label_mass, scored.foreign.label_mass),
            }
    return {name: {key: rounded(value) for key, value in values.items()} for name, values in found.items()}


def of_probabilities(log_probs: FloatArray, truth: IntArray, outcomes: tuple[str, ...]) -> Numbers:
    """Return accuracy, calibration error, proper scores, and how well confidence ranks the errors."""
    probabilities = np.exp(log_probs)
    # Handing over is no answer: errors are ranked among the likeliest labels, as `finetune evaluate` does.
    labels = np.array([i for i, name in enumerate(outcomes) if name != ABSTAIN])
    likeliest = labels[log_probs[:, labels].argmax(axis=1)]
    return {
        "accuracy": float((log_probs.argmax(axis=1) == truth).mean()),
        "ece": compute_ece(probabilities, truth, BINS),
        "brier": compute_brier_score(probabilities, truth),
        "log_loss": compute_log_loss(log_probs, truth, inputs="log_probabilities"),
        "aurc": risk_coverage_curve(confidence_logit(log_probs, likeliest), likeliest != truth).aurc,
    }


def of_sets(
    calibration: FloatArray, calibration_truth: IntArray, test: FloatArray, truth: IntArray
) -> Numbers:
    """Return coverage and mean size of LAC sets."""
    predictor = ConformalPredictor("lac", inputs="log_probabilities")
    sets = predictor.calibrate(calibration, calibration_truth, ALPHA).predict(test)
    return {
        "coverage": float(sets[np.arange(len(truth)), truth].mean()),
        "size": float(sets.sum(axis=1).mean()),
    }


def of_answers(
    calibration: FloatArray,
    calibration_truth: IntArray,
    test: FloatArray,
    truth: IntArray,
    outcomes: tuple[str, ...],
) -> Numbers:
    """Return how much is answered under a promised error, and how often that is wrong."""
    abstain = outcomes.index(ABSTAIN) if ABSTAIN in outcomes else None
    actions, scores = scored_actions(calibration, abstain_index=abstain)
    test_actions, test_scores = scored_actions(test, abstain_index=abstain)
    found: Numbers = {}
    for level in LEVELS:
        try:
            threshold = selective_threshold(
                scores, actions != calibration_truth, level, DELTA, eligible=actions != ABSTAINED
            ).threshold
        except InfeasibleGuarantee:
            threshold = math.inf
        answered = answers(test_scores, threshold) & (test_actions != ABSTAINED)
        wrong = (test_actions != truth)[answered]
        found[f"answered_{level:g}"] = float(answered.mean())
        found[f"error_{level:g}"] = float(wrong.mean()) if len(wrong) else None
    return found


def mean_cost(log_probs: FloatArray, truth: IntArray, outcomes: tuple[str, ...], costs: Costs) -> float:
    """Return what the decisions of least expected cost cost a row, handing over among them."""
    matrix = costs_of(outcomes, costs)
    assert matrix is not None
    abstain = outcomes.index(ABSTAIN) if ABSTAIN in outcomes else None
    actions = scored_actions(log_probs, matrix, abstain).actions
    hand_over = len(outcomes) if abstain is None else abstain
    return float(matrix[truth, np.where(actions == ABSTAINED, hand_over, actions)].mean())


def of_posterior(log_probs: FloatArray, posterior: FloatArray) -> Numbers:
    """Return the distance from the true probabilities, of all rows and of those that nobody can decide."""
    distance = 0.5 * np.abs(np.exp(log_probs) - posterior).sum(axis=1)
    undecidable = posterior.max(axis=1) < DECIDABLE
    logs = np.log(np.where(posterior > 0.0, posterior, 1.0))
    return {
        "distance": float(distance.mean()),
        "undecidable_distance": float(distance[undecidable].mean()) if undecidable.any() else None,
        "undecidable_confidence": float(
            (np.exp(log_probs).max(axis=1) - posterior.max(axis=1))[undecidable].mean()
        )
        if undecidable.any()
        else None,
        "divergence": float((posterior * (logs - log_probs)).sum(axis=1).mean()),
    }


def caught(own: FloatArray, foreign: FloatArray) -> float:
    """Return the share of foreign rows below the score that all but a twentieth of the own rows have."""
    return float((foreign < np.quantile(own, 1 - KEPT)).mean())


def rounded(value: float | None) -> float | None:
    """Return a number of five digits, never -0; None where it is infinite."""
    return None if value is None or not math.isfinite(value) else round(value, 5) + 0.0


def posterior_of(rows: list[Mapping[str, float]], outcomes: tuple[str, ...]) -> FloatArray:
    """Return true probabilities as an array, shape (n, K)."""
    return np.array([[row[name] for name in outcomes] for row in rows])
