"""Temperature scaling: one number that softens or sharpens all probabilities alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from finetune.domain.calibration.maps.rows import (
    MapRecord,
    as_fitting_rows,
    as_logits,
    reject_excluded_truth,
)
from finetune.domain.checks import FloatArray, IntArray, is_number, log_softmax, read_record
from finetune.domain.errors import InvalidInput
from finetune.domain.row_reader import row_blocks

T_MIN, T_MAX = 0.01, 10_000.0
_MAX_STEPS = 200


def fit_temperature(rows: npt.ArrayLike, labels: npt.ArrayLike, *, inputs: str = "logits") -> Temperature:
    """Temperature with the least log loss on these rows, exactly.

    The log loss of softmax(beta z) is convex in beta = 1 / T; the zero of its derivative is found by
    Newton's method inside a shrinking bracket.

    Parameters
    ----------
    rows
        Shape (n, K).  A label at -inf (probability 0) is excluded from its row.
    labels
        Shape (n,): label indices.
    inputs
        ``"logits"`` (log-probabilities are logits), ``"log_probabilities"`` or ``"probabilities"``.

    Returns
    -------
    Temperature
        In [0.01, 10000].  The end is returned, with ``at_limit``, where the loss has no optimum inside:
        the lower end if sharpening always helps (every row is right, or ties with the true label), the
        upper one if softening always helps (the scores do not help to tell the labels apart).

    Raises
    ------
    InvalidInput
        If the input is not as above, or a true label is at -inf: no temperature gives it a finite loss.

    Notes
    -----
    Fit on validation rows, never on the rows that thresholds are calibrated on.  The map is right on
    average over all rows; nothing is promised for single labels or groups.

    References
    ----------
    Guo, Pleiss, Sun, Weinberger (2017). On calibration of modern neural networks. ICML, sec. 4.2.

    Examples
    --------
    >>> fitted = fit_temperature([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [4.0, 0.0]], [0, 0, 0, 1])
    >>> round(fitted.value, 6)  # softmax(4 / T) = 3/4, so T = 4 / log 3
    3.640957
    """
    fitting = as_fitting_rows(rows, labels, inputs)
    reject_excluded_truth(fitting)
    logits, truth = fitting
    low, high = 1.0 / T_MAX, 1.0 / T_MIN
    if _derivatives(logits, truth, low)[0] >= 0.0:
        return Temperature(T_MAX, at_limit=True)
    if _derivatives(logits, truth, high)[0] <= 0.0:
        return Temperature(T_MIN, at_limit=True)
    return Temperature(1.0 / _root(logits, truth, low, high))


def _root(logits: FloatArray, truth: IntArray, low: float, high: float) -> float:
    beta = min(max(1.0, low), high)
    for _ in range(_MAX_STEPS):
        slope, curvature = _derivatives(logits, truth, beta)
        if slope == 0.0:
            break
        low, high = (beta, high) if slope < 0.0 else (low, beta)
        newton = beta - slope / curvature if curvature > 0.0 else math.inf
        proposal = newton if low < newton < high else math.sqrt(low * high)
        if abs(proposal - beta) <= 1e-14 * beta:
            break
        beta = proposal
    return beta


def _derivatives(logits: FloatArray, truth: IntArray, beta: float) -> tuple[float, float]:
    """First and second derivative of the mean log loss in beta."""
    slope = curvature = 0.0
    for block in row_blocks(logits):
        with np.errstate(over="ignore", under="ignore"):
            # The floor stands for -inf: its weight is 0, and 0 times it and its square stay 0.
            z = logits[block]
            z = np.maximum(z - z.max(axis=1, keepdims=True), -1e150)
            weight = np.exp(beta * z)
            total = weight.sum(axis=1)
            mean = np.einsum("ij,ij->i", weight, z) / total
            slope += float((mean - z[np.arange(len(z)), truth[block]]).sum())
            z -= mean[:, None]
            curvature += float((np.einsum("ij,ij,ij->i", weight, z, z) / total).sum())
    return slope / len(logits), curvature / len(logits)


class _Record(MapRecord):
    kind: Literal["temperature"]
    version: Literal[1]
    value: float
    at_limit: bool


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature.

    Parameters
    ----------
    value
        T in (0, inf): above 1 softens, below 1 sharpens.
    at_limit
        Whether the search ended at the end of its range (see :func:`fit_temperature`).

    Examples
    --------
    >>> Temperature(2.0).apply([[2.0, 0.0]]).round(4)
    array([[-0.3133, -1.3133]])
    """

    value: float
    at_limit: bool = False
    kind: ClassVar[str] = "temperature"

    def __post_init__(self) -> None:
        if not (is_number(self.value) and 0.0 < self.value < math.inf):
            raise InvalidInput(
                "a temperature must be positive and finite",
                seen=self.value,
                remedy="use 1.0 to change nothing",
            )

    def apply(self, rows: npt.ArrayLike, *, inputs: str = "logits") -> FloatArray:
        """Log-probabilities at this temperature, shape (n, K).

        The order of the labels in a row is kept; labels closer than rounding may become ties.
        """
        logits = as_logits(rows, inputs)
        with np.errstate(over="ignore", under="ignore"):
            return log_softmax((logits - logits.max(axis=1, keepdims=True)) / self.value)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready record."""
        return {"kind": self.kind, "version": 1, "value": self.value, "at_limit": self.at_limit}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Temperature:
        """Read what :meth:`to_dict` wrote."""
        record = read_record(_Record, data)
        return cls(record.value, record.at_limit)
