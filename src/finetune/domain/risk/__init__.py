"""Decisions by cost, and bounds on how often they are wrong."""

from finetune.domain.risk.actions import (
    ABSTAINED,
    ScoredActions,
    answers,
    confidence_logit,
    risk_controlled_actions,
    scored_actions,
)
from finetune.domain.risk.bounds import binomial_p_value, error_free_rows_needed
from finetune.domain.risk.costs import BayesActions, bayes_actions, cost_matrix
from finetune.domain.risk.curve import OperatingPoint, RiskCoverageCurve, risk_coverage_curve
from finetune.domain.risk.selective import SelectiveThreshold, selective_threshold
from finetune.domain.risk.selective_predictor import RiskControlledPredictor
from finetune.domain.risk.testing import SequenceResult, fallback_sequence

__all__ = [
    "ABSTAINED",
    "BayesActions",
    "OperatingPoint",
    "RiskControlledPredictor",
    "RiskCoverageCurve",
    "ScoredActions",
    "SelectiveThreshold",
    "SequenceResult",
    "answers",
    "bayes_actions",
    "binomial_p_value",
    "confidence_logit",
    "cost_matrix",
    "error_free_rows_needed",
    "fallback_sequence",
    "risk_controlled_actions",
    "risk_coverage_curve",
    "scored_actions",
    "selective_threshold",
]
