"""Risk-coverage curve: what is answered, and how often that is wrong, at each threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import FloatArray, as_flags, as_vector


def risk_coverage_curve(confidence: npt.ArrayLike, errors: npt.ArrayLike) -> RiskCoverageCurve:
    """Coverage and selective risk for "answer where the confidence is at least the threshold".

    Parameters
    ----------
    confidence
        Shape (n,): any score, greater is surer.
    errors
        Shape (n,): whether the answer would be wrong, bool or 0 and 1.

    Returns
    -------
    RiskCoverageCurve
        One point for each distinct confidence, from the strictest to the loosest: equal confidences are
        answered together.  Describes these rows; a threshold picked from it carries no guarantee.

    Raises
    ------
    InvalidInput
        If the input is not as above.

    References
    ----------
    El-Yaniv, R. and Wiener, Y. (2010). On the foundations of noise-free selective classification. JMLR 11.

    Examples
    --------
    >>> curve = risk_coverage_curve([0.9, 0.8, 0.8, 0.6], [0, 0, 1, 1])
    >>> curve.coverage.tolist(), curve.risk.round(3).tolist(), round(curve.aurc, 4)
    ([0.25, 0.75, 1.0], [0.0, 0.333, 0.5], 0.2917)
    """
    scores = as_vector(confidence, name="confidence")
    wrong = as_flags(errors, n_rows=len(scores), name="errors")
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    answered = last + 1
    return RiskCoverageCurve(answered / len(scores), np.cumsum(wrong[order])[last] / answered, ordered[last])


class OperatingPoint(NamedTuple):
    """One point of the curve."""

    coverage: float
    risk: float
    threshold: float


@dataclass(frozen=True)
class RiskCoverageCurve:
    """Points of the curve, coverage ascending; all arrays of shape (m,).

    Parameters
    ----------
    coverage
        Fraction answered, in (0, 1].
    risk
        Fraction wrong among the answered.
    threshold
        Least confidence that is answered.
    """

    coverage: FloatArray
    risk: FloatArray
    threshold: FloatArray

    @property
    def aurc(self) -> float:
        """Area under the curve as a step function: each row counts with the risk at its own threshold.

        Without ties this is the mean over i of the error rate among the i surest rows.
        """
        return float(np.diff(self.coverage, prepend=0.0) @ self.risk)

    def at(self, coverages: Sequence[float]) -> tuple[OperatingPoint, ...]:
        """Strictest point that answers at least each of these fractions, which lie in [0, 1]."""
        wanted = as_vector(coverages, name="coverages", low=0.0, high=1.0)
        found = np.searchsorted(self.coverage, wanted, side="left")
        return tuple(
            OperatingPoint(float(self.coverage[i]), float(self.risk[i]), float(self.threshold[i]))
            for i in found
        )
