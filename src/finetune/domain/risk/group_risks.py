"""How often the answers of each group are wrong, with bounds that hold for all groups at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import as_count, as_flags, as_labels, as_level
from finetune.domain.statistics.intervals import binomial_upper_bound


class GroupRisk(NamedTuple):
    """How often answers of one group were wrong; None where none was answered: not estimable."""

    n_rows: int
    n_answered: int
    n_errors: int
    risk: float | None
    upper_bound: float | None


def group_risks(
    errors: npt.ArrayLike, answered: npt.ArrayLike, groups: npt.ArrayLike, delta: float, *, n_groups: int
) -> tuple[GroupRisk, ...]:
    """Error rate among the answered rows of each group, with upper bounds that hold for all at once.

    Parameters
    ----------
    errors, answered
        Shape (n,): whether the answer of a row is (or would be) wrong, and whether it was given; bool.
    groups, n_groups
        As in :func:`~finetune.domain.risk.group_selective.group_thresholds`.
    delta
        Probability allowed that any of the bounds fails: each is exact (Clopper-Pearson) at delta / n_groups.

    Returns
    -------
    tuple of GroupRisk
        One for each group.

    Raises
    ------
    InvalidInput
        If the input is not as above.

    Notes
    -----
    Holds for a rule that was fixed without these rows.  For a threshold that was found on them it does not.

    Examples
    --------
    >>> [risk[2:4] for risk in group_risks([0, 1, 0], [True, True, False], [0, 0, 1], 0.1, n_groups=2)]
    [(1, 0.5), (0, None)]
    """
    delta, n_groups = as_level(delta, name="delta"), as_count(n_groups, name="n_groups")
    members = as_labels(groups, n_rows=None, n_labels=n_groups, name="groups")
    wrong = as_flags(errors, n_rows=len(members), name="errors")
    given = as_flags(answered, n_rows=len(members), name="answered")
    rows, n, k = (
        np.bincount(members[kept], minlength=n_groups).tolist()
        for kept in (np.ones(len(members), bool), given, given & wrong)
    )
    tail = delta / n_groups
    return tuple(
        GroupRisk(rows[g], n[g], k[g], k[g] / n[g], binomial_upper_bound(k[g], n[g], tail))
        if n[g]
        else GroupRisk(rows[g], 0, 0, None, None)
        for g in range(n_groups)
    )
