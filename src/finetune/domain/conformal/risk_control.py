"""Conformal risk control: the smallest parameter whose expected loss is at most a level."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from finetune.domain.checks import (
    Count,
    Extended,
    FloatArray,
    as_count,
    as_floats,
    as_positive,
    as_vector,
    is_number,
    read_extended,
    read_record,
    reject_first,
    write_extended,
)
from finetune.domain.errors import InfeasibleGuarantee, InvalidInput


def conformal_risk_control(
    losses: npt.ArrayLike, lambdas: npt.ArrayLike, alpha: float, *, bound: float = 1.0
) -> RiskControl:
    """Smallest lambda of a grid with n/(n+1) R(lambda) + B/(n+1) <= alpha, R the mean loss of n rows.

    Parameters
    ----------
    losses
        Shape (n, m), in [0, bound]: loss of each calibration row at each lambda.  No row may rise.
    lambdas
        Shape (m,), strictly increasing, chosen without looking at these rows.  +inf and -inf are allowed.
    alpha
        Expected loss allowed, in (0, bound).
    bound
        B: the greatest loss possible, not the greatest one seen.

    Returns
    -------
    RiskControl
        Lambda, and the evidence for it.

    Raises
    ------
    InvalidInput
        If the input is not as above; a loss that rises is shown with its row and column.
    InfeasibleGuarantee
        If no lambda of the grid will do.  ``needed`` is the number of rows with which it could be given if
        none had a loss.

    Notes
    -----
    Guaranteed: the expected loss of a new row at the lambda returned is at most ``alpha``, over the draw of
    the calibration rows and the new row, if they are exchangeable.  Calibration sets that end in
    ``InfeasibleGuarantee`` count with loss 0 in this average: do nothing then, do not take another lambda.

    Not promised: the loss given *this* calibration set (for that see learn-then-test in
    :mod:`finetune.domain.risk`), the loss within a group, or anything for losses that rise with lambda.

    References
    ----------
    Angelopoulos, Bates, Fisch, Lei, Schuster (2022). Conformal risk control. arXiv:2208.02814, eq. 4, thm. 1.

    Examples
    --------
    >>> found = conformal_risk_control([[1, 0], [1, 1], [0, 0], [1, 0]], [0.0, 1.0], alpha=0.4)
    >>> found.lambda_, found.adjusted_risk
    (1.0, 0.4)
    """
    grid = _as_grid(lambdas)
    alpha, bound = as_risk_levels(alpha, bound)
    values = _as_losses(losses, len(grid), bound)
    place = first_within(lambda column: values[:, column], len(grid), len(values), alpha, bound)
    if place is None:
        least = (math.fsum(values[:, -1]) + bound) / (len(values) + 1)
        needed = rows_needed(alpha, bound)
        raise InfeasibleGuarantee(
            f"no lambda keeps the expected loss at or below {alpha:g}",
            seen=f"{len(values)} rows, least adjusted risk {least:.6g}",
            remedy=f"{needed} rows without a loss would be enough; calibrate with more rows, allow a greater "
            "alpha, or end the grid with a lambda that loses less",
            needed=needed,
        )
    return RiskControl(float(grid[place]), math.fsum(values[:, place]), len(values), alpha, bound)


def rows_needed(alpha: float, bound: float = 1.0) -> int:
    """Smallest n with bound / (n + 1) <= alpha: with fewer rows, not even rows without a loss would do.

    Raises
    ------
    InvalidInput
        If ``bound`` is not positive or ``alpha`` not in (0, bound).

    Examples
    --------
    >>> rows_needed(0.1), rows_needed(0.05, bound=0.5)
    (9, 9)
    """
    alpha, bound = as_risk_levels(alpha, bound)
    return max(1, math.ceil(Fraction(str(bound)) / Fraction(str(alpha))) - 1)


def first_within(
    losses_at: Callable[[int], FloatArray], n_places: int, n: int, alpha: float, bound: float
) -> int | None:
    """First place with (sum of its losses + bound) / (n + 1) <= alpha, or None.

    Parameters
    ----------
    losses_at
        Losses of the n rows at a place, zeros left out or not; their sum falls from place to place.
    n_places, n, alpha, bound
        Number of places and rows, and the levels as :func:`as_risk_levels` returns them.
    """
    limit = Fraction(str(alpha)) * (n + 1) - Fraction(str(bound))

    def within(place: int) -> bool:
        losses = losses_at(place)
        margin = float(limit) - float(losses.sum())
        if abs(margin) > 1e-9 * bound * (n + 1):
            return margin > 0
        # On the edge floats cannot decide: 0.1 + 0.1 + 0.1 > 0.3.  Numbers count as they are written.
        values, counts = np.unique(losses, return_counts=True)
        exact = (
            count * Fraction(str(value))
            for value, count in zip(values.tolist(), counts.tolist(), strict=True)
        )
        return sum(exact, Fraction(0)) <= limit

    place = bisect_left(range(n_places), True, key=within)
    return None if place == n_places else place


def as_risk_levels(alpha: object, bound: object) -> tuple[float, float]:
    """Check that 0 < alpha < bound."""
    greatest, level = as_positive(bound, name="bound"), as_positive(alpha, name="alpha")
    if level >= greatest:
        raise InvalidInput(
            f"alpha must be below the greatest loss, {greatest:g}",
            seen=alpha,
            remedy="give the expected loss allowed, in the unit of the losses",
        )
    return level, greatest


def _as_grid(lambdas: npt.ArrayLike) -> FloatArray:
    grid = as_vector(lambdas, name="lambdas")
    reject_first(
        np.append(False, grid[1:] <= grid[:-1]),
        grid,
        name="lambdas",
        what="lambdas must be strictly increasing",
        remedy="sort them, and the columns of the losses with them",
    )
    return grid


def _as_losses(losses: npt.ArrayLike, n_columns: int, bound: float) -> FloatArray:
    values, _ = as_floats(losses, "losses")
    if values.ndim != 2 or values.shape[0] == 0 or values.shape[1] != n_columns:
        raise InvalidInput(
            f"losses must have the shape (rows, {n_columns}), one column for each lambda",
            seen=values.shape,
            remedy="pass the loss of each row at each lambda",
        )
    reject_first(
        ~((values >= 0.0) & (values <= bound)).all(axis=1),
        values,
        name="losses",
        what=f"the row has a loss outside [0, {bound:g}]",
        remedy="pass the greatest loss possible as bound=; negative losses and NaN are not allowed",
    )
    rises = values[:, 1:] > values[:, :-1]
    if rises.any():
        row, column = (int(place) for place in np.argwhere(rises)[0])
        raise InvalidInput(
            "the loss rises with lambda",
            where=f"losses[{row}, {column + 1}]",
            seen=tuple(values[row, column : column + 2].tolist()),
            remedy="control the greatest loss at this or any greater lambda instead: "
            "np.maximum.accumulate(losses[:, ::-1], axis=1)[:, ::-1]",
        )
    return values


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    kind: Literal["risk_control"]
    version: Literal[1]
    lambda_: Extended = Field(alias="lambda")
    total_loss: float
    n_calibration: Count
    alpha: float
    bound: float


@dataclass(frozen=True)
class RiskControl:
    """A parameter whose expected loss is controlled, and the evidence for it.

    Parameters
    ----------
    lambda_
        The parameter; +inf and -inf are possible.
    total_loss
        Sum of the losses of the calibration rows at it.
    n_calibration
        Number of calibration rows.
    alpha, bound
        Expected loss allowed, and greatest loss possible.
    """

    lambda_: float
    total_loss: float
    n_calibration: int
    alpha: float
    bound: float

    def __post_init__(self) -> None:
        as_risk_levels(self.alpha, self.bound)
        n = as_count(self.n_calibration, name="n_calibration")
        if (
            not (is_number(self.lambda_) and is_number(self.total_loss))
            or math.isnan(self.lambda_)
            or not 0.0 <= self.total_loss <= n * self.bound
            or (self.adjusted_risk > self.alpha * (1 + 1e-9) and self.lambda_ != math.inf)
        ):
            raise InvalidInput("the result contradicts itself", seen=self, remedy="calibrate again")

    @property
    def risk(self) -> float:
        """Mean loss of the calibration rows."""
        return self.total_loss / self.n_calibration

    @property
    def adjusted_risk(self) -> float:
        """Mean loss if one more row had the greatest loss possible: n/(n+1) risk + bound/(n+1)."""
        return (self.total_loss + self.bound) / (self.n_calibration + 1)

    @property
    def statement(self) -> str:
        """The guarantee in words."""
        return (
            f"The loss of a new case is at most {self.alpha:.6g} on average, provided that no case can lose "
            f"more than {self.bound:.6g} and that the new case and the {self.n_calibration} calibration "
            f"cases come from the same source in no particular order. The calibration cases lost "
            f"{self.risk:.6g} on average. The promise is an average over all cases and over calibration "
            f"sets: it does not hold for each group or each single case."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready record; infinities are written as ``"+inf"`` and ``"-inf"``."""
        return {
            "kind": "risk_control",
            "version": 1,
            "lambda": write_extended(self.lambda_),
            "total_loss": self.total_loss,
            "n_calibration": self.n_calibration,
            "alpha": self.alpha,
            "bound": self.bound,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RiskControl:
        """Read what :meth:`to_dict` wrote."""
        record = read_record(_Record, data)
        return cls(
            read_extended(record.lambda_), record.total_loss, record.n_calibration, record.alpha, record.bound
        )
