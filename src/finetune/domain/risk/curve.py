"""Risk-coverage curve: what is answered, and how often that is wrong, at each threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import digamma, xlog1py

from finetune.domain.checks import FloatArray, IntArray, as_flags, as_vector
from finetune.domain.errors import InvalidInput


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
    Geifman, Uziel, El-Yaniv (2019). Bias-reduced uncertainty estimation for deep neural classifiers. ICLR.
    Traub et al. (2024). Overcoming common flaws in the evaluation of selective classification systems.
    NeurIPS.

    Examples
    --------
    >>> curve = risk_coverage_curve([0.9, 0.8, 0.8, 0.6], [0, 0, 1, 1])
    >>> curve.coverage.tolist(), curve.risk.round(3).tolist(), round(curve.aurc, 4)
    ([0.25, 0.75, 1.0], [0.0, 0.333, 0.5], 0.2917)
    """
    scores = as_vector(confidence, name="confidence")
    wrong = as_flags(errors, n_rows=len(scores), name="errors")
    order, last = ranking(scores)
    return RiskCoverageCurve(last + 1, np.cumsum(wrong[order], dtype=np.int64)[last], scores[order[last]])


def ranking(scores: FloatArray) -> tuple[IntArray, IntArray]:
    """Order of the rows from the surest, and the last place of each run of equal scores in it."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    return order, np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))


class OperatingPoint(NamedTuple):
    """One point of the curve."""

    coverage: float
    risk: float
    threshold: float


@dataclass(frozen=True)
class RiskCoverageCurve:
    """Points of the curve, from the strictest threshold to the loosest; all arrays of shape (m,).

    Parameters
    ----------
    answered
        Rows answered, ascending, at least 1; the last is all n.
    wrong
        Wrong answers among them.
    threshold
        Least confidence that is answered.
    """

    answered: IntArray
    wrong: IntArray
    threshold: FloatArray

    def merge(self, other: RiskCoverageCurve) -> RiskCoverageCurve:
        """Curve of the rows of both, as if they had come at once."""
        if not isinstance(other, RiskCoverageCurve):
            raise InvalidInput("this is no risk-coverage curve", seen=other, remedy="merge two curves")
        thresholds, place = np.unique(
            np.concatenate([-self.threshold, -other.threshold]), return_inverse=True
        )
        answered, wrong = (np.zeros(len(thresholds), dtype=np.int64) for _ in range(2))
        np.add.at(answered, place, np.append(_steps(self.answered), _steps(other.answered)))
        np.add.at(wrong, place, np.append(_steps(self.wrong), _steps(other.wrong)))
        return RiskCoverageCurve(np.cumsum(answered), np.cumsum(wrong), -thresholds)

    @property
    def coverage(self) -> FloatArray:
        """Fraction answered, in (0, 1]."""
        return np.asarray(self.answered / self.answered[-1])

    @property
    def risk(self) -> FloatArray:
        """Fraction wrong among the answered."""
        return np.asarray(self.wrong / self.answered)

    @property
    def aurc(self) -> float:
        """Area under the curve as a step function: each row counts with the risk at its own threshold.

        Without ties this is the mean over i of the error rate among the i surest rows.  Rows of equal
        confidence all count with the error rate after the last of them, whatever their order.
        """
        return float(areas(self.answered, self.wrong).aurc)

    @property
    def e_aurc(self) -> float:
        """AURC in excess of r + (1 - r) ln(1 - r), the area of an ideal ranking of infinitely many rows.

        r is the error rate of all rows (Geifman, Uziel, El-Yaniv 2019).  Of few rows it is a little
        above 0 also for an ideal ranking: :attr:`excess_aurc` is exactly 0 there.
        """
        return float(areas(self.answered, self.wrong).e_aurc)

    @property
    def excess_aurc(self) -> float:
        """AURC in excess of the least that any ranking of these rows can have: all errors come last."""
        n, k = int(self.answered[-1]), int(self.wrong[-1])
        # The sum of i / (n - k + i) over i = 1 ... k, divided by n; the harmonic sum by digamma.
        harmonic = float(digamma(n + 1) - digamma(n - k + 1))
        return self.aurc - (k - (n - k) * harmonic) / n

    @property
    def augrc(self) -> float:
        """Area under the generalised risk, P(answered and wrong), over the coverage, by trapezia from (0, 0).

        Equals r (1 - r) (1 - AUROC of the confidence against errors, ties half) + r**2 / 2 (Traub et al.
        2024): the mean probability of an undetected error, which unlike AURC does not weigh the
        surest rows most.
        """
        return float(areas(self.answered, self.wrong).augrc)

    def at(self, coverages: Sequence[float]) -> tuple[OperatingPoint, ...]:
        """Strictest point that answers at least each of these fractions, which lie in [0, 1]."""
        wanted = as_vector(coverages, name="coverages", low=0.0, high=1.0)
        found = np.searchsorted(self.coverage, wanted, side="left")
        return tuple(self._point(int(i)) for i in found)

    def within(self, risks: Sequence[float]) -> tuple[OperatingPoint | None, ...]:
        """Point of greatest coverage whose risk is at most each of these, in [0, 1]; None: no point's is.

        For showing what a curve allows.  The risk of new rows at such a point is greater than the one seen,
        on average: for a bound use :func:`~finetune.domain.risk.selective.selective_threshold`.
        """
        wanted = as_vector(risks, name="risks", low=0.0, high=1.0)
        seen = self.risk
        kept = [np.flatnonzero(seen <= limit) for limit in wanted]
        return tuple(self._point(int(places[-1])) if len(places) else None for places in kept)

    def _point(self, i: int) -> OperatingPoint:
        return OperatingPoint(float(self.coverage[i]), float(self.risk[i]), float(self.threshold[i]))


def _steps(counts: IntArray) -> IntArray:
    return np.diff(counts, prepend=0)


class Areas(NamedTuple):
    """Areas under risk-coverage curves, the last axis of whose points is gone."""

    aurc: FloatArray
    e_aurc: FloatArray
    augrc: FloatArray


def areas(answered: IntArray, wrong: IntArray) -> Areas:
    """Areas of curves whose points are counts, of shape (..., m); see :class:`RiskCoverageCurve`.

    Points may repeat; before the first row is answered they count for nothing.
    """
    n = answered[..., -1]
    width = np.diff(answered, axis=-1, prepend=0)
    aurc = (width * (wrong / np.maximum(answered, 1))).sum(axis=-1) / n
    error_rate = wrong[..., -1] / n
    right = 1.0 - error_rate
    ideal = error_rate + xlog1py(right, -error_rate)
    before = np.concatenate([np.zeros_like(wrong[..., :1]), wrong[..., :-1]], axis=-1)
    augrc = (width * (before + wrong)).sum(axis=-1) / (2.0 * n * n)
    return Areas(aurc, aurc - ideal, augrc)
