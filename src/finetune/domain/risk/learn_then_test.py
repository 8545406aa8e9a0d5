"""Learn then test: which of several candidate settings keep their risk, proven for all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import (
    FloatArray,
    as_array,
    as_choice,
    as_floats,
    as_labels,
    as_level,
    as_vector,
    reject_first,
)
from finetune.domain.errors import InfeasibleGuarantee, InvalidInput
from finetune.domain.risk.betting import loss_free_rows_needed, wsr_p_values
from finetune.domain.risk.bounds import SUM_TESTS, error_free_rows_needed, p_values_of_sums
from finetune.domain.risk.tested_candidates import LearnThenTest
from finetune.domain.risk.wording import confidence_text
from finetune.domain.statistics.multiplicity import (
    SequenceResult,
    fallback_sequence,
    fixed_sequence,
    rejections,
)

METHODS = ("bonferroni", "holm", "fixed_sequence", "fallback")
BOUNDS = ("binomial", "hoeffding_bentkus", "wsr")


def learn_then_test(
    losses: npt.ArrayLike,
    risk_level: float | Sequence[float],
    delta: float,
    *,
    method: str = "fixed_sequence",
    bound: str = "hoeffding_bentkus",
    weights: npt.ArrayLike | None = None,
) -> LearnThenTest:
    """Find the candidates whose risk is shown to be at most ``risk_level``, by their losses on the same rows.

    Parameters
    ----------
    losses
        Shape (n, m): loss in [0, 1] of each calibration row under each candidate, the candidates fixed, and
        for ``"fixed_sequence"`` and ``"fallback"`` in order, without these rows.  Shape (r, n, m) for r
        risks that must all be kept.
    risk_level
        Mean loss allowed, in (0, 1): one number, or one for each risk.
    delta
        Probability allowed, over the draw of the rows, that any accepted candidate breaks a level.
    method
        ``"fixed_sequence"``: in order, until the first failure.  ``"fallback"``: in order, where a candidate
        that passes hands its level on.  ``"holm"`` and ``"bonferroni"``: in no order.
    bound
        ``"binomial"``: exact, for losses of 0 and 1.  ``"hoeffding_bentkus"``: any losses.  ``"wsr"``: any,
        better where they vary little; it reads the rows in the order given (see
        :func:`~finetune.domain.risk.betting.wsr_p_value`).
    weights
        Shape (m,): share of ``delta`` that each candidate starts with, of sum at most 1, fixed beforehand;
        for ``"fallback"``, None: equal shares.

    Returns
    -------
    LearnThenTest
        The candidates accepted and the evidence for them.

    Raises
    ------
    InvalidInput
        If the input is not as above.
    InfeasibleGuarantee
        If no candidate passes.  ``needed`` is a number of rows that would do if no loss were seen.

    Notes
    -----
    Proven: with probability at least 1 - delta every accepted candidate keeps every level, so any of them
    may be taken, also by looking at the results.  It takes rows that are independent draws from the
    population met later, and candidates (with their order and weights) fixed without them.  Nothing is
    assumed about how the risk changes from candidate to candidate.  Of several risks, the p-value that
    counts is the greatest: "some risk is above its level" is rejected only where each is.

    References
    ----------
    Angelopoulos, Bates, Candès, Jordan, Lei (2021). Learn then test. arXiv:2110.01052, thm. 1, sec. 2 and 3.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> losses = rng.random((1000, 4)) < [0.02, 0.05, 0.09, 0.2]
    >>> learn_then_test(losses.astype(int), 0.1, 0.1, bound="binomial").accepted
    (0, 1)
    """
    array, _ = as_floats(losses, "losses")
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise InvalidInput(
            "losses must have the shape (rows, candidates), or (risks, rows, candidates)",
            seen=array.shape,
            remedy="pass the loss of each row under each candidate",
        )
    cube = array if array.ndim == 3 else array[None]
    for risk in cube:
        reject_first(
            ~((risk >= 0.0) & (risk <= 1.0)).all(axis=1),
            risk,
            name="losses",
            what="the row has a loss that is not a number in [0, 1]",
            remedy="divide the losses by the greatest that is possible",
        )
    plan = _plan(risk_level, delta, method, bound, weights, len(cube), cube.shape[2])
    n = np.full(cube.shape[2], cube.shape[1])
    if bound == "wsr":
        share = float(plan.shares.max()) * plan.delta
        p = [wsr_p_values(risk, level, share) for risk, level in zip(cube, plan.levels, strict=True)]
    else:
        p = [
            p_values_of_sums(risk.sum(axis=0), n, level, bound, losses=risk)
            for risk, level in zip(cube, plan.levels, strict=True)
        ]
    means = tuple(tuple(row) for row in cube.mean(axis=1).tolist())
    return _decide(plan, np.max(p, axis=0), means, cube.shape[1])


def learn_then_test_counts(
    errors: npt.ArrayLike,
    trials: npt.ArrayLike,
    risk_level: float | Sequence[float],
    delta: float,
    *,
    method: str = "fixed_sequence",
    bound: str = "binomial",
    weights: npt.ArrayLike | None = None,
) -> LearnThenTest:
    """Run :func:`learn_then_test` on counts, where candidates may be tested on different numbers of rows.

    Parameters
    ----------
    errors, trials
        Integers of shape (m,), or (r, m) for r risks: errors of each candidate among the rows that count
        for it.  Which rows count must not depend on the errors.
    risk_level, delta, method, weights
        As in :func:`learn_then_test`.
    bound
        ``"binomial"`` or ``"hoeffding_bentkus"``.

    Returns
    -------
    LearnThenTest
        The candidates accepted and the evidence for them.

    Raises
    ------
    InvalidInput, InfeasibleGuarantee
        As in :func:`learn_then_test`.

    Examples
    --------
    >>> learn_then_test_counts([0, 3, 36], [80, 200, 400], 0.1, 0.1, method="holm").accepted
    (0, 1)
    """
    as_choice(bound, SUM_TESTS, name="bound")
    k, n = np.atleast_2d(as_array(errors, "errors")), np.atleast_2d(as_array(trials, "trials"))
    if k.shape != n.shape or k.ndim != 2 or k.size == 0:
        raise InvalidInput(
            "errors and trials must have one shape, (candidates,) or (risks, candidates)",
            seen=(k.shape, n.shape),
            remedy="pass both for the same candidates",
        )
    plan = _plan(risk_level, delta, method, bound, weights, *k.shape)
    counts = [as_labels(row, n_rows=None, n_labels=None, name="errors") for row in k]
    p = [SUM_TESTS[bound](*row) for row in zip(counts, n, plan.levels, strict=True)]
    means = tuple(
        tuple(e / t if t else None for e, t in zip(*rows, strict=True))
        for rows in zip(k.tolist(), n.tolist(), strict=True)
    )
    return _decide(plan, np.max(p, axis=0), means, int(n.max()))


class _Plan(NamedTuple):
    levels: tuple[float, ...]
    delta: float
    method: str
    bound: str
    shares: FloatArray  # of delta, that each candidate has from the start


def _plan(
    risk_level: float | Sequence[float],
    delta: float,
    method: str,
    bound: str,
    weights: npt.ArrayLike | None,
    n_risks: int,
    n_candidates: int,
) -> _Plan:
    as_choice(method, METHODS, name="method")
    as_choice(bound, BOUNDS, name="bound")
    given = np.atleast_1d(as_array(risk_level, "risk_level"))
    levels = tuple(as_level(level, name="risk_level") for level in given)
    if len(levels) != n_risks:
        raise InvalidInput(
            f"there must be one risk_level for each of the {n_risks} risks",
            seen=levels,
            remedy="pass the levels in the order of the risks",
        )
    if weights is not None and method != "fallback":
        raise InvalidInput(
            f"the method {method!r} takes no weights", seen=weights, remedy='use method="fallback"'
        )
    shares = np.full(n_candidates, 1.0 / n_candidates)
    if method == "fixed_sequence":
        shares = np.eye(1, n_candidates)[0]
    elif weights is not None:
        shares = as_vector(weights, name="weights", low=0.0, high=1.0)
        if not shares.any():
            raise InvalidInput("all weights are 0", seen=shares.tolist(), remedy="give shares of delta")
    return _Plan(levels, as_level(delta, name="delta"), method, bound, shares)


def _test(plan: _Plan, p_values: FloatArray) -> SequenceResult:
    if plan.method == "fixed_sequence":
        return fixed_sequence(p_values, plan.delta)
    if plan.method == "fallback":
        return fallback_sequence(p_values, plan.shares, plan.delta)
    rejected, levels = rejections(p_values, plan.delta, plan.method), plan.shares * plan.delta
    if plan.method == "holm":
        # The j-th smallest p-value is compared with delta / (m - j + 1), until the first failure.
        order = np.argsort(p_values, kind="stable")
        levels[order] = plan.delta / np.arange(len(order), 0.0, -1.0)
        levels[order[rejected.sum() + 1 :]] = 0.0
    return SequenceResult(rejected, levels)


def _decide(
    plan: _Plan, p_values: FloatArray, means: tuple[tuple[float | None, ...], ...], n_rows: int
) -> LearnThenTest:
    rejected, levels = _test(plan, p_values)
    if not rejected.any():
        share = float(plan.shares.max()) * plan.delta
        rows_needed = loss_free_rows_needed if plan.bound == "wsr" else error_free_rows_needed
        needed = max(rows_needed(level, share) for level in plan.levels)
        raise InfeasibleGuarantee(
            f"no candidate is proven to keep its risk with confidence {confidence_text(plan.delta)}",
            where=f"risk_level {', '.join(f'{level:g}' for level in plan.levels)}",
            seen=f"{n_rows} rows, smallest p-value {p_values.min():.3g} of {len(p_values)} candidates",
            remedy=f"{needed} rows without any loss would be enough; calibrate with more rows, try fewer "
            "candidates, or allow a greater risk_level or delta",
            needed=needed,
        )
    return LearnThenTest(
        accepted=tuple(np.flatnonzero(rejected).tolist()),
        p_values=tuple(p_values.tolist()),
        levels=tuple(levels.tolist()),
        mean_losses=means,
        n_calibration=n_rows,
        risk_levels=plan.levels,
        delta=plan.delta,
        method=plan.method,
        bound=plan.bound,
    )
