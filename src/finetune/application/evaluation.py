"""From scored test rows to the document of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune.application.certificate import Certificate
from finetune.application.decision_rule import certified_rule
from finetune.application.estimates import CONFIDENCE, MANY
from finetune.application.measures import (
    BINS,
    measure_accuracy,
    measure_calibration,
    measure_confusion,
    measure_cost,
    measure_coverage,
    measure_known_posterior,
    measure_risk_coverage,
    measure_scores,
    measure_selection,
)
from finetune.application.scored_rows import ScoredRows
from finetune.application.summary import summarise
from finetune.application.wording import level
from finetune.domain.checks import log_softmax

METHODS = (
    (
        f"All intervals are at {level(CONFIDENCE)}. Accuracy, answered share, recall and precision: Wilson. "
        "Coverage and error among answered: exact (Clopper-Pearson). All others: percentile bootstrap of "
        f"1,000 draws of rows; for means of {MANY:,} rows or more the normal interval. Intervals describe "
        "chance in the draw of rows, not a change of their source."
    ),
    (
        f"Calibration errors: {BINS} bins of equal width over the confidence of the most probable outcome. "
        "Both errors are never 0 on finite data, and their bootstrap intervals lie too high with few rows; "
        "compare with the band of a perfectly calibrated model."
    ),
    "Coverage is compared with its exact law (beta-binomial) for these numbers of calibration and test rows.",
    (
        "Log loss and Brier score take all outcomes; `before` is the model's own probabilities, `after` "
        "those of the certified map."
    ),
    "The risk-coverage line answers with the likeliest label and orders the rows by its log-odds.",
)


@dataclass(frozen=True)
class EvaluationReport:
    """The finished evaluation: what ``evaluation.json`` holds."""

    content: Mapping[str, Any]

    def document(self) -> dict[str, Any]:
        """Return plain data for JSON, without NaN or infinities."""
        return dict(self.content)


def evaluate_rows(
    certificate: Certificate,
    test: ScoredRows,
    base: ScoredRows | None,
    rng: np.random.Generator,
    provenance: Mapping[str, Any],
    against: Mapping[str, Any] | None = None,
) -> EvaluationReport:
    """Measure everything on the test rows.

    Parameters
    ----------
    certificate
        Whose rule is put to the test.
    test
        At least one scored test row.
    base
        The same rows scored without the adapter, where that was asked for.
    rng
        Source of bootstrap draws.
    provenance
        ``created``, ``run`` and ``test_hash``.
    against
        What :func:`finetune.application.comparison.compare` says of another run, where that was asked for.
    """
    rule, raw, truth = certified_rule(certificate), test.scores.log_probabilities, test.truth
    rulings = rule.apply(test.scores)
    log_probs, risk = rulings.log_probabilities, certificate.selective
    before, after = measure_scores(log_softmax(raw), truth, rng), measure_scores(log_probs, truth, rng)
    document: dict[str, Any] = {
        "version": 1,
        "created": provenance["created"],
        "run": provenance["run"],
        "task": certificate.task,
        "unit": certificate.unit,
        "model": certificate.model.model_dump(mode="json", exclude={"labels", "abstain"}),
        "outcomes": list(certificate.outcomes),
        "test": {
            "rows": len(truth),
            "sha256": provenance["test_hash"],
            "shortened": int((test.scores.removed_chars > 0).sum()),
            "left_out": float(test.scores.left_out.max()),
        },
        "certificate": {
            "hash": certificate.hash,
            "created": certificate.created,
            "statements": list(certificate.statements),
            "not_promised": list(certificate.not_promised),
            "batch_effect": None
            if certificate.batch_effect is None
            else certificate.batch_effect.model_dump(mode="json"),
            "counts": {
                "validation": certificate.data.validation_rows,
                "conformal": certificate.data.conformal_rows,
                "selective": certificate.data.selective_rows,
            },
        },
        "accuracy": measure_accuracy(log_probs, truth),
        "log_loss": {"before": before.log_loss, "after": after.log_loss},
        "brier": {"before": before.brier, "after": after.brier},
        "calibration": {
            "map": certificate.map.model_dump(mode="json"),
            "before": measure_calibration(log_softmax(raw), truth, rng),
            "after": measure_calibration(log_probs, truth, rng),
        },
        "coverage": {
            **measure_coverage(rulings, truth, rule, rng, certificate.unit),
            "statement": certificate.conformal.statement,
        },
        "selective": {
            **measure_selection(rulings, truth, certificate.unit),
            "level": risk.level,
            "delta": risk.delta,
            "feasible": risk.feasible,
            "statement": risk.statement,
        },
        "cost": measure_cost(rulings, truth, rule, rng),
        "risk_coverage": measure_risk_coverage(rulings, truth, rule),
        "confusion": measure_confusion(rulings, truth, certificate.outcomes),
        "known_posterior": None
        if test.posterior is None
        else measure_known_posterior(log_probs, test.posterior, rng),
        "base": None
        if base is None
        else {
            "accuracy": measure_accuracy(base.scores.log_probabilities, truth),
            "log_loss": measure_scores(base.scores.log_probabilities, truth, rng).log_loss,
        },
        "against": against,
        "methods": list(METHODS),
    }
    return EvaluationReport({**document, "summary": summarise(document)})
