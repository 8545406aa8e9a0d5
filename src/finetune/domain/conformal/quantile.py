"""The conformal quantile, and the law of the coverage it gives."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, betaln, gammaln

from finetune.domain.checks import FloatArray, as_count, as_level, as_vector
from finetune.domain.errors import InvalidInput
from finetune.domain.statistics.intervals import Interval

_Scalar = TypeVar("_Scalar", bound=np.number[Any])
# Values from which on a look at a sample costs less than it saves.
_MANY = 1 << 12


def conformal_rank(n: int, alpha: float) -> int:
    """Rank ceil((n + 1)(1 - alpha)) of the calibration score that is the threshold, exactly.

    Parameters
    ----------
    n
        Number of calibration rows.
    alpha
        In (0, 1), taken as the decimal number it is written as: float arithmetic is off by one for some n.

    Returns
    -------
    int
        In [1, n + 1]; n + 1 means that no finite threshold will do.

    Raises
    ------
    InvalidInput
        If ``n`` is not a positive integer or ``alpha`` not a level.

    Examples
    --------
    >>> conformal_rank(9, 0.1), conformal_rank(8, 0.1)
    (9, 9)
    """
    n = as_count(n, name="n")
    part, whole = Decimal(str(as_level(alpha, name="alpha"))).as_integer_ratio()
    return -(-(n + 1) * (whole - part) // whole)


def fewest_rows(alpha: float) -> int:
    """Smallest number of calibration rows for which the threshold is one of their scores.

    Examples
    --------
    >>> fewest_rows(0.1), fewest_rows(0.3)
    (9, 3)
    """
    level = Fraction(str(as_level(alpha, name="alpha")))
    return math.ceil((1 - level) / level)


def conformal_quantile(scores: npt.ArrayLike, alpha: float) -> float:
    """Smallest threshold that the score of a new row exceeds with probability at most ``alpha``.

    Parameters
    ----------
    scores
        Shape (n,): calibration scores, greater is stranger; +inf and -inf are scores, NaN is not.
    alpha
        In (0, 1).

    Returns
    -------
    float
        The k-th smallest score with k = :func:`conformal_rank`, or +inf if k > n.

    Raises
    ------
    InvalidInput
        If a score is NaN, there is none, or ``alpha`` is not a level.

    References
    ----------
    Vovk, Gammerman, Shafer (2005). Algorithmic Learning in a Random World, prop. 2.3.

    Examples
    --------
    >>> conformal_quantile([0.3, 0.1, 0.2, 0.4], 0.2), conformal_quantile([0.3, 0.1, 0.2, 0.4], 0.1)
    (0.4, inf)
    """
    values = as_vector(scores, name="scores")
    return kth_smallest(values.copy(), conformal_rank(len(values), alpha))


def kth_smallest(scores: FloatArray, rank: int) -> float:
    """Return the score of that rank, +inf beyond the last; may reorder the scores instead of copying them."""
    return float(select(scores, rank - 1)) if rank <= len(scores) else math.inf


def select(values: npt.NDArray[_Scalar], place: int) -> _Scalar:
    """Return the value at a place, from 0, of the sorted values; may reorder them instead of copying them.

    A sorted sample says between which two values the one at the place is likely to lie.  That it does is
    seen by counting, and then only the values between them are partitioned.

    Parameters
    ----------
    values
        Shape (n,), numbers without NaN.
    place
        In [0, n).

    References
    ----------
    Floyd, R. W. and Rivest, R. L. (1975). Expected time bounds for selection. CACM 18(3).
    """
    n = len(values)
    if n >= _MANY:
        sample = np.sort(values[:: int(n ** (1 / 3))])
        # Three standard deviations of the number in the sample that are below the place, at their largest.
        middle, reach = place * len(sample) // n, 3 * math.isqrt(len(sample)) // 2
        low, high = sample[max(middle - reach, 0)], sample[min(middle + reach, len(sample) - 1)]
        above = values >= low
        below = n - int(np.count_nonzero(above))
        # An index by the mask would branch on each of its entries.
        near = values.compress(above & (values <= high))
        if below <= place < below + len(near):
            values, place = near, place - below
    values.partition(place)
    found: _Scalar = values[place]
    return found


class CoverageLaw(NamedTuple):
    """Law of the coverage of a split conformal predictor, given its calibration rows.

    Over the draw of n exchangeable calibration rows whose scores have no ties, the coverage of new rows
    is Beta(rank, n + 1 - rank).  Ties only make it greater.  At rank n + 1 it is 1.

    Parameters
    ----------
    n
        Number of calibration rows.
    rank
        Rank of the threshold among them, in [1, n + 1].

    References
    ----------
    Vovk, V. (2012). Conditional validity of inductive conformal predictors. ACML, prop. 2b.

    Examples
    --------
    >>> law = CoverageLaw(n=99, rank=90)
    >>> law.expected, [round(end, 3) for end in law.interval(0.9)[:2]]
    (0.9, [0.847, 0.944])
    """

    n: int
    rank: int

    @property
    def expected(self) -> float:
        """Mean coverage, k / (n + 1)."""
        a, b = self._shape()
        return a / (a + b)

    def interval(self, level: float = 0.9) -> Interval:
        """Coverage between the (1 - level) / 2 and (1 + level) / 2 quantiles of the law."""
        level = as_level(level, name="level")
        a, b = self._shape()
        if b == 0:
            return Interval(1.0, 1.0, level)
        low, high = betaincinv(a, b, [(1 - level) / 2, (1 + level) / 2])
        return Interval(float(low), float(high), level)

    def test_band(self, n_test: int, level: float = 0.9) -> Interval:
        """Fraction of ``n_test`` new rows that are covered: quantiles of the Beta-Binomial law.

        A fraction seen outside, at a high level, says that the rows are not exchangeable with the
        calibration rows, or that a program is wrong.
        """
        level = as_level(level, name="level")
        n_test = as_count(n_test, name="n_test")
        a, b = self._shape()
        if b == 0:
            return Interval(1.0, 1.0, level)
        covered = np.arange(n_test + 1)
        log_mass = (
            gammaln(n_test + 1)
            - gammaln(covered + 1)
            - gammaln(n_test - covered + 1)
            + betaln(a + covered, b + n_test - covered)
            - betaln(a, b)
        )
        with np.errstate(under="ignore"):
            cumulative = np.cumsum(np.exp(log_mass))
        ends = np.searchsorted(cumulative / cumulative[-1], [(1 - level) / 2, (1 + level) / 2])
        return Interval(float(ends[0] / n_test), float(ends[1] / n_test), level)

    def _shape(self) -> tuple[int, int]:
        n, rank = as_count(self.n, name="n"), as_count(self.rank, name="rank")
        if rank > n + 1:
            raise InvalidInput(
                "the rank must lie in [1, n + 1]", seen=tuple(self), remedy="take it from conformal_rank"
            )
        return rank, n + 1 - rank
