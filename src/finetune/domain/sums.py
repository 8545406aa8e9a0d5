"""Sums of floating-point numbers that do not show in what order, or beside what, they were computed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import FloatArray
from finetune.domain.errors import InvalidInput


class Sums:
    """An array of running sums, each with the rounding error that it has lost so far.

    Parameters
    ----------
    shape
        Shape of the array; empty for a single sum.

    Notes
    -----
    The error of a sum is about that of one rounding, whatever the order of the terms and the number of
    calls, unless the sum is smaller than its terms by a factor of 1e16.  Terms that are added up before
    they come here bring their own error.

    References
    ----------
    Knuth, D. E. (1997). The Art of Computer Programming 2, sec. 4.2.2, theorem B (the error of one sum).
    Neumaier, A. (1974). Rundungsfehleranalyse einiger Verfahren zur Summation endlicher Summen. ZAMM 54.

    Examples
    --------
    >>> sums = Sums()
    >>> for term in (1e16, 1.0, -1e16):
    ...     sums.add(term)
    >>> float(sums.value)
    1.0
    """

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self._total: FloatArray = np.zeros(shape)
        self._lost: FloatArray = np.zeros(shape)

    @property
    def value(self) -> FloatArray:
        """The sums."""
        return np.asarray(self._total + self._lost)

    def add(self, terms: npt.ArrayLike) -> None:
        """Add one finite term to each sum."""
        values = np.asarray(terms, dtype=np.float64)
        total = self._total + values
        share = total - self._total
        self._lost = np.asarray(self._lost + ((self._total - (total - share)) + (values - share)))
        self._total = np.asarray(total)

    def include(self, other: Sums) -> None:
        """Add all terms of another array of sums, of the same shape."""
        self.add(other._total)
        self._lost = np.asarray(self._lost + other._lost)

    def to_list(self) -> list[float]:
        """JSON-ready state, flat: the sums, then what they have lost."""
        return [*self._total.ravel().tolist(), *self._lost.ravel().tolist()]

    def restore(self, state: list[float]) -> None:
        """Read what :meth:`to_list` wrote, for the same shape."""
        size = self._total.size
        if len(state) != 2 * size:
            raise InvalidInput(
                f"the record must hold {2 * size} numbers for its sums",
                seen=len(state),
                remedy="write the record anew",
            )
        numbers = np.asarray(state, dtype=np.float64).reshape(2, *self._total.shape)
        self._total, self._lost = numbers[0], numbers[1]


def row_products(rows: FloatArray, matrix: FloatArray) -> FloatArray:
    """Multiply each row with a matrix, so that what comes of a row does not depend on the other rows.

    A product of two matrices rounds a row differently for different numbers of rows.  Here each row is a
    product of its own, which takes longer, the more so the fewer the labels.

    Parameters
    ----------
    rows
        Shape (n, K).
    matrix
        Shape (K, A).

    Returns
    -------
    FloatArray
        Shape (n, A).
    """
    return np.asarray(np.matmul(rows[:, None, :], matrix)[:, 0])
