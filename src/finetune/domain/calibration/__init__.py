"""How far probabilities can be taken at their word, and how to mend them."""

from finetune.domain.calibration.error_intervals import calibration_error_intervals
from finetune.domain.calibration.null_band import NullBand, ece_null_band
from finetune.domain.calibration.reliability import (
    ReliabilityBins,
    compute_ece,
    compute_mce,
    reliability_bins,
)
from finetune.domain.calibration.scoring import compute_brier_score, compute_log_loss
from finetune.domain.calibration.temperature import Temperature, fit_temperature

__all__ = [
    "NullBand",
    "ReliabilityBins",
    "Temperature",
    "calibration_error_intervals",
    "compute_brier_score",
    "compute_ece",
    "compute_log_loss",
    "compute_mce",
    "ece_null_band",
    "fit_temperature",
    "reliability_bins",
]
