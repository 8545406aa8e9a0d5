"""Maps from the probabilities of a model to calibrated ones, fitted on validation rows."""

from finetune.domain.calibration.maps.beta import BetaMap, fit_beta
from finetune.domain.calibration.maps.choice import CandidateScore, MapChoice, choose_map
from finetune.domain.calibration.maps.dirichlet import DirichletMap, fit_dirichlet
from finetune.domain.calibration.maps.histogram import HistogramMap, fit_histogram
from finetune.domain.calibration.maps.identity import IdentityMap, fit_identity
from finetune.domain.calibration.maps.isotonic import IsotonicMap, fit_isotonic
from finetune.domain.calibration.maps.matrix import MatrixMap, fit_matrix
from finetune.domain.calibration.maps.platt import PlattMap, fit_platt
from finetune.domain.calibration.maps.registry import MAPS, CalibrationMap, MapKind, map_from_dict
from finetune.domain.calibration.maps.temperature import Temperature, fit_temperature
from finetune.domain.calibration.maps.vector import VectorMap, fit_vector

__all__ = [
    "MAPS",
    "BetaMap",
    "CalibrationMap",
    "CandidateScore",
    "DirichletMap",
    "HistogramMap",
    "IdentityMap",
    "IsotonicMap",
    "MapChoice",
    "MapKind",
    "MatrixMap",
    "PlattMap",
    "Temperature",
    "VectorMap",
    "choose_map",
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
]
