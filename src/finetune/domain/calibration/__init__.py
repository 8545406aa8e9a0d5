"""How far probabilities can be taken at their word, and how to mend them."""

from finetune.domain.calibration.bin_errors import DebiasedError
from finetune.domain.calibration.brier import BrierParts, brier_parts, decompose_brier
from finetune.domain.calibration.classwise import (
    ClasswiseBins,
    classwise_bins,
    compute_ace,
    compute_classwise_ece,
)
from finetune.domain.calibration.confidence import confidence_and_hits
from finetune.domain.calibration.error_intervals import error_intervals
from finetune.domain.calibration.maps import (
    MAPS,
    BetaMap,
    CalibrationMap,
    CandidateScore,
    DirichletMap,
    HistogramMap,
    IdentityMap,
    IsotonicMap,
    MapChoice,
    MapKind,
    MatrixMap,
    PlattMap,
    Temperature,
    VectorMap,
    choose_map,
    fit_beta,
    fit_dirichlet,
    fit_histogram,
    fit_identity,
    fit_isotonic,
    fit_matrix,
    fit_platt,
    fit_temperature,
    fit_vector,
    map_from_dict,
)
from finetune.domain.calibration.null_band import NullBand, null_band
from finetune.domain.calibration.reliability import ReliabilityBins, reliability_bins
from finetune.domain.calibration.scoring import compute_brier_score, compute_log_loss
from finetune.domain.calibration.smooth import compute_smooth_ece
from finetune.domain.calibration.top_label import (
    compute_debiased_error,
    compute_ece,
    compute_mce,
    compute_rmsce,
)

__all__ = [
    "MAPS",
    "BetaMap",
    "BrierParts",
    "CalibrationMap",
    "CandidateScore",
    "ClasswiseBins",
    "DebiasedError",
    "DirichletMap",
    "HistogramMap",
    "IdentityMap",
    "IsotonicMap",
    "MapChoice",
    "MapKind",
    "MatrixMap",
    "NullBand",
    "PlattMap",
    "ReliabilityBins",
    "Temperature",
    "VectorMap",
    "brier_parts",
    "choose_map",
    "classwise_bins",
    "compute_ace",
    "compute_brier_score",
    "compute_classwise_ece",
    "compute_debiased_error",
    "compute_ece",
    "compute_log_loss",
    "compute_mce",
    "compute_rmsce",
    "compute_smooth_ece",
    "confidence_and_hits",
    "decompose_brier",
    "error_intervals",
    "fit_beta",
    "fit_dirichlet",
    "fit_histogram",
    "fit_identity",
    "fit_isotonic",
    "fit_matrix",
    "fit_platt",
    "fit_temperature",
    "fit_vector",
    "map_from_dict",
    "null_band",
    "reliability_bins",
]
