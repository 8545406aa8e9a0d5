"""When to lower the learning rate because calibration got worse: a state machine over evaluations."""

from __future__ import annotations

import math
from typing import NamedTuple

from finetune.domain.checks import is_number
from finetune.domain.errors import InvalidInput


class SteeringState(NamedTuple):
    """What is remembered from one evaluation to the next.

    Parameters
    ----------
    best, best_noise
        The least ECE so far and its noise; None before the first evaluation.
    armed
        Whether the next rise is answered with a cut.
    """

    best: float | None = None
    best_noise: float = 0.0
    armed: bool = True


class SteeringStep(NamedTuple):
    """What an evaluation leads to.

    Parameters
    ----------
    state
        To be handed in with the next evaluation.
    cut
        Whether to lower the learning rate now.
    rise
        How far the ECE is above the best one before it; 0 where it is the best.
    band
        The largest rise that noise explains.
    """

    state: SteeringState
    cut: bool
    rise: float
    band: float


def steer(state: SteeringState, ece: float, noise: float, threshold: float) -> SteeringStep:
    """Decide whether calibration got worse at an evaluation.

    The rate is cut where the ECE is more than ``threshold`` above the best so far, and by more than the noise
    of both together: then the error of one of them lies outside its noise, or it has really risen.  After a
    cut there is none until the ECE has been within ``threshold`` of the best again, or below it, so that one
    rise is answered once however long it lasts.  A rise that noise explains is not answered, and can be at a
    later evaluation.

    Parameters
    ----------
    state
        From the evaluation before; ``SteeringState()`` at the first one.
    ece
        The calibration error at this evaluation, in [0, 1].
    noise
        How far it may be from what it estimates, as
        :func:`~finetune.domain.calibration.error_noise.ece_noise` says.
    threshold
        The rise that is let pass, in [0, 1].

    Returns
    -------
    SteeringStep
        The decision, and the state after it.

    Raises
    ------
    InvalidInput
        A number is not a number or out of its range.

    Notes
    -----
    The sum of both noises is wider than two evaluations of the same texts need, where errors tend to go the
    same way, and holds however they depend on each other.  What is compared with is the least of several
    errors, hence more often too low than too high; its noise is in the sum for that.

    Not guaranteed: that a lower rate mends calibration.  A model that has learnt nothing yet can be well
    calibrated; then the first good fit is a rise, which is answered once.

    Examples
    --------
    >>> state, cuts = SteeringState(), []
    >>> for ece in (0.04, 0.03, 0.12, 0.14, 0.05, 0.12):
    ...     state, cut, rise, band = steer(state, ece, noise=0.02, threshold=0.05)
    ...     cuts.append(cut)
    >>> cuts  # a rise, its continuation, back within 0.05 of the best, and another rise
    [False, False, True, False, False, True]
    >>> steer(SteeringState(best=0.03, best_noise=0.05), 0.12, noise=0.05, threshold=0.05).cut
    False
    """
    for name, value, high in (("ece", ece, 1.0), ("noise", noise, math.inf), ("threshold", threshold, 1.0)):
        if not is_number(value) or not 0.0 <= value <= high:
            raise InvalidInput(
                f"{name} must be a number in [0, {high:g}]", seen=value, remedy="pass what was measured"
            )
    if state.best is None or ece < state.best:
        return SteeringStep(SteeringState(ece, noise), cut=False, rise=0.0, band=noise)
    rise, band = ece - state.best, noise + state.best_noise
    if rise <= threshold:
        return SteeringStep(state._replace(armed=True), cut=False, rise=rise, band=band)
    cut = state.armed and rise > band
    return SteeringStep(state._replace(armed=state.armed and not cut), cut=cut, rise=rise, band=band)
