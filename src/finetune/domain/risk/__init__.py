"""Decisions by cost, and bounds on how often they are wrong and what they cost."""

from finetune.domain.risk.actions import (
    ABSTAINED,
    ScoredActions,
    answers,
    confidence_logit,
    risk_controlled_actions,
    scored_actions,
)
from finetune.domain.risk.betting import wsr_p_value, wsr_upper_bound
from finetune.domain.risk.bounds import (
    binomial_p_value,
    error_free_rows_needed,
    hoeffding_bentkus_p_value,
    hoeffding_bentkus_upper_bound,
)
from finetune.domain.risk.cost_actions import cost_controlled_actions, cost_scored_actions
from finetune.domain.risk.cost_control import control_cost, cost_threshold
from finetune.domain.risk.cost_threshold import CostThreshold
from finetune.domain.risk.costs import BayesActions, bayes_actions, cost_matrix
from finetune.domain.risk.curve import OperatingPoint, RiskCoverageCurve, risk_coverage_curve
from finetune.domain.risk.curve_intervals import AreaIntervals, curve_area_intervals
from finetune.domain.risk.group_risks import GroupRisk, group_risks
from finetune.domain.risk.group_selective import Abstained, GroupThresholds, group_thresholds
from finetune.domain.risk.learn_then_test import learn_then_test, learn_then_test_counts
from finetune.domain.risk.selective import (
    SelectiveThreshold,
    selective_rows_needed,
    selective_threshold,
)
from finetune.domain.risk.selective_predictor import RiskControlledPredictor
from finetune.domain.risk.tested_candidates import LearnThenTest
from finetune.domain.statistics.multiplicity import SequenceResult, fallback_sequence

__all__ = [
    "ABSTAINED",
    "Abstained",
    "AreaIntervals",
    "BayesActions",
    "CostThreshold",
    "GroupRisk",
    "GroupThresholds",
    "LearnThenTest",
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
    "control_cost",
    "cost_controlled_actions",
    "cost_matrix",
    "cost_scored_actions",
    "cost_threshold",
    "curve_area_intervals",
    "error_free_rows_needed",
    "fallback_sequence",
    "group_risks",
    "group_thresholds",
    "hoeffding_bentkus_p_value",
    "hoeffding_bentkus_upper_bound",
    "learn_then_test",
    "learn_then_test_counts",
    "risk_controlled_actions",
    "risk_coverage_curve",
    "scored_actions",
    "selective_rows_needed",
    "selective_threshold",
    "wsr_p_value",
    "wsr_upper_bound",
]
