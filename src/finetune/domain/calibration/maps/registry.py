"""All calibration maps by name, and the reader of any of their records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy.typing as npt

from finetune.domain.calibration.maps.beta import BetaMap, fit_beta
from finetune.domain.calibration.maps.dirichlet import DirichletMap, fit_dirichlet
from finetune.domain.calibration.maps.histogram import HistogramMap, fit_histogram
from finetune.domain.calibration.maps.identity import IdentityMap, fit_identity
from finetune.domain.calibration.maps.isotonic import IsotonicMap, fit_isotonic
from finetune.domain.calibration.maps.matrix import MatrixMap, fit_matrix
from finetune.domain.calibration.maps.platt import PlattMap, fit_platt
from finetune.domain.calibration.maps.temperature import Temperature, fit_temperature
from finetune.domain.calibration.maps.vector import VectorMap, fit_vector
from finetune.domain.checks import FloatArray
from finetune.domain.errors import InvalidInput


class CalibrationMap(Protocol):
    """A fitted map of rows over labels to log-probabilities."""

    kind: ClassVar[str]

    def apply(self, rows: npt.ArrayLike, *, inputs: str = "logits") -> FloatArray:
        """Log-probabilities, shape (n, K), of rows of shape (n, K); each row sums to 1."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready record, without NaN or infinities."""
        ...


class MapKind(NamedTuple):
    """How maps of one kind are fitted and read: ``fit(rows, labels, inputs=...)`` and ``read(record)``."""

    fit: Callable[..., CalibrationMap]
    read: Callable[[Mapping[str, Any]], CalibrationMap]


MAPS: Mapping[str, MapKind] = MappingProxyType(
    {
        "identity": MapKind(fit_identity, IdentityMap.from_dict),
        "temperature": MapKind(fit_temperature, Temperature.from_dict),
        "platt": MapKind(fit_platt, PlattMap.from_dict),
        "vector": MapKind(fit_vector, VectorMap.from_dict),
        "beta": MapKind(fit_beta, BetaMap.from_dict),
        "histogram": MapKind(fit_histogram, HistogramMap.from_dict),
        "isotonic": MapKind(fit_isotonic, IsotonicMap.from_dict),
        "dirichlet": MapKind(fit_dirichlet, DirichletMap.from_dict),
        "matrix": MapKind(fit_matrix, MatrixMap.from_dict),
    }
)
"""The kinds of maps, from the simplest to the one with the most numbers to fit."""


def map_from_dict(data: Mapping[str, Any]) -> CalibrationMap:
    """Read the record of a map of any kind.

    Parameters
    ----------
    data
        What a map's ``to_dict`` wrote.

    Returns
    -------
    CalibrationMap
        A map with the same results.

    Raises
    ------
    InvalidInput
        If the record is none of a map, or is damaged.

    Examples
    --------
    >>> map_from_dict({"kind": "temperature", "version": 1, "value": 2.0, "at_limit": False})
    Temperature(value=2.0, at_limit=False)
    """
    kind = data.get("kind") if isinstance(data, Mapping) else None
    if not isinstance(kind, str) or kind not in MAPS:
        raise InvalidInput(
            "the record is none of a calibration map",
            where="kind",
            seen=kind,
            remedy="pass what to_dict wrote; the kinds are " + ", ".join(MAPS),
        )
    return MAPS[kind].read(data)
