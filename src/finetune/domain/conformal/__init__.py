"""Prediction sets with a stated coverage."""

from finetune.domain.conformal.adaptive import AdaptiveConformalPredictor
from finetune.domain.conformal.categories import Category
from finetune.domain.conformal.clustered import ClusteredPredictor
from finetune.domain.conformal.martingale import ExchangeabilityMartingale
from finetune.domain.conformal.miss_cost import CostControlledPredictor, miss_cost_threshold
from finetune.domain.conformal.mondrian import ClassConditionalPredictor, GroupConditionalPredictor
from finetune.domain.conformal.online import AdaptiveLevel
from finetune.domain.conformal.p_values import OnlinePValues, conformal_p_values
from finetune.domain.conformal.quantile import (
    CoverageLaw,
    conformal_quantile,
    conformal_rank,
    fewest_rows,
)
from finetune.domain.conformal.risk_control import RiskControl, conformal_risk_control, rows_needed
from finetune.domain.conformal.scores import METHODS, conformal_scores
from finetune.domain.conformal.split import Calibration, ConformalPredictor
from finetune.domain.conformal.weighted import effective_sample_size, weighted_conformal_quantile
from finetune.domain.conformal.weighted_predictor import WeightedConformalPredictor

__all__ = [
    "METHODS",
    "AdaptiveConformalPredictor",
    "AdaptiveLevel",
    "Calibration",
    "Category",
    "ClassConditionalPredictor",
    "ClusteredPredictor",
    "ConformalPredictor",
    "CostControlledPredictor",
    "CoverageLaw",
    "ExchangeabilityMartingale",
    "GroupConditionalPredictor",
    "OnlinePValues",
    "RiskControl",
    "WeightedConformalPredictor",
    "conformal_p_values",
    "conformal_quantile",
    "conformal_rank",
    "conformal_risk_control",
    "conformal_scores",
    "effective_sample_size",
    "fewest_rows",
    "miss_cost_threshold",
    "rows_needed",
    "weighted_conformal_quantile",
]
