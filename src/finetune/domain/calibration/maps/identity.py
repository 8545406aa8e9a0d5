"""No map: the probabilities as they are, among the candidates of a choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy.typing as npt

from finetune.domain.calibration.maps.rows import MapRecord, as_fitting_rows
from finetune.domain.checks import FloatArray, read_record
from finetune.domain.probabilities import as_log_probabilities


def fit_identity(rows: npt.ArrayLike, labels: npt.ArrayLike, *, inputs: str = "logits") -> IdentityMap:
    """Check the rows as every fit does, and change nothing.

    Raises
    ------
    InvalidInput
        If rows or labels are not what they must be.

    Examples
    --------
    >>> fit_identity([[0.0, 1.0]], [1])
    IdentityMap()
    """
    as_fitting_rows(rows, labels, inputs)
    return IdentityMap()


class _Record(MapRecord):
    kind: Literal["identity"]
    version: Literal[1]


@dataclass(frozen=True)
class IdentityMap:
    """The map that changes nothing.

    Examples
    --------
    >>> IdentityMap().apply([[0.0, 0.0]]).round(4)
    array([[-0.6931, -0.6931]])
    """

    kind: ClassVar[str] = "identity"

    def apply(self, rows: npt.ArrayLike, *, inputs: str = "logits") -> FloatArray:
        """Log-probabilities, shape (n, K)."""
        return as_log_probabilities(rows, inputs=inputs, name="rows")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready record."""
        return {"kind": self.kind, "version": 1}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> IdentityMap:
        """Read what :meth:`to_dict` wrote."""
        read_record(_Record, data)
        return cls()
