"""Newton's method for the smooth convex losses that the calibration maps minimise."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from finetune.domain.checks import FloatArray
from finetune.domain.errors import InvalidInput

Linear = Callable[[FloatArray], FloatArray]

_MAX_STEPS = 200
_DECREMENT = 1e-18
_ROUNDING = 1e-13


class Expansion(NamedTuple):
    """A loss around one point: its gradient, and what applies the inverse of its Hessian."""

    gradient: FloatArray
    solve: Linear


class ConvexLoss(Protocol):
    """A strictly convex, twice differentiable function of a vector."""

    def value(self, theta: FloatArray) -> float:
        """Return the value at ``theta``."""
        ...

    def expand(self, theta: FloatArray) -> Expansion:
        """Return the gradient and the Newton solver at ``theta``."""
        ...


def minimise(loss: ConvexLoss, start: FloatArray) -> FloatArray:
    """Minimiser of a strictly convex loss, by Newton's method with backtracking.

    The Newton decrement g' H^-1 g is twice the distance of the loss from its minimum, to second order, in
    whatever units the parameters have: the search ends where it is below 1e-18, or no longer falls for
    rounding.

    Parameters
    ----------
    loss
        What is minimised.
    start
        Shape (p,).  The minimiser's loss is never above that of the start, but for rounding.

    Returns
    -------
    FloatArray
        Shape (p,).

    Raises
    ------
    InvalidInput
        If the search does not end: the scales of the features are too far apart for double precision.

    References
    ----------
    Boyd, S. and Vandenberghe, L. (2004). Convex Optimization, sec. 9.5.
    """
    theta, value, previous = start, loss.value(start), np.inf
    for _ in range(_MAX_STEPS):
        gradient, solve = loss.expand(theta)
        step = solve(gradient)
        decrement = float(gradient @ step)
        if decrement <= _DECREMENT or previous <= decrement <= _ROUNDING * (1.0 + abs(value)):
            return theta
        proposal = _descend(loss, theta, value, step, decrement)
        if proposal is None:
            break
        (theta, value), previous = proposal, decrement
    raise InvalidInput(
        "the search for the best map does not end",
        seen=decrement,
        remedy="look for rows with scores of another magnitude than the rest",
    )


def _descend(
    loss: ConvexLoss, theta: FloatArray, value: float, step: FloatArray, decrement: float
) -> tuple[FloatArray, float] | None:
    """Go along the step as far as the loss falls as it should; close to the optimum rounding hides that."""
    slack = _ROUNDING * (1.0 + abs(value))
    for halvings in range(40):
        proposal = theta - 0.5**halvings * step
        reached = loss.value(proposal)
        if reached <= value - 1e-4 * 0.5**halvings * decrement + slack:
            return proposal, reached
    return None


def solve_dense(hessian: FloatArray) -> Linear:
    """Inverse of a positive definite matrix, scaled to a unit diagonal first."""
    scale = 1.0 / np.sqrt(np.diagonal(hessian))
    scaled = hessian * scale[:, None] * scale
    # Keeps the factorisation going where two features are the same up to rounding.
    scaled[np.diag_indices_from(scaled)] += 1e-14

    def solve(vector: FloatArray) -> FloatArray:
        return np.asarray(scale * np.linalg.solve(scaled, scale * vector))

    return solve


def solve_by_products(product: Linear, precondition: Linear) -> Linear:
    """Inverse of a positive definite operator by preconditioned conjugate gradients.

    Parameters
    ----------
    product
        Applies the operator.
    precondition
        Applies roughly its inverse; positive definite.

    References
    ----------
    Nocedal, J. and Wright, S. J. (2006). Numerical Optimization, algorithms 5.3 and 7.1.
    """

    def solve(vector: FloatArray) -> FloatArray:
        solution, residual = np.zeros_like(vector), vector.copy()
        ahead = precondition(residual)
        direction, size = ahead, float(residual @ ahead)
        # The closer to the optimum, the more digits of the step: that keeps the convergence superlinear.
        target = min(0.01, size**0.5) * size
        for _ in range(10 * len(vector)):
            if size <= target:
                break
            turned = product(direction)
            length = size / float(direction @ turned)
            solution += length * direction
            residual -= length * turned
            ahead = precondition(residual)
            size, before = float(residual @ ahead), size
            direction = ahead + (size / before) * direction
        return solution

    return solve
