"""Prediction sets with a stated coverage."""

from finetune.domain.conformal.quantile import CoverageLaw, conformal_quantile, conformal_rank
from finetune.domain.conformal.scores import aps_scores, lac_scores
from finetune.domain.conformal.split import Calibration, ConformalPredictor

__all__ = [
    "Calibration",
    "ConformalPredictor",
    "CoverageLaw",
    "aps_scores",
    "conformal_quantile",
    "conformal_rank",
    "lac_scores",
]
