"""Bootstrap intervals of the areas under the risk-coverage curve."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import as_count, as_flags, as_generator, as_vector
from finetune.domain.risk.curve import areas, ranking
from finetune.domain.statistics.intervals import Interval
from finetune.domain.statistics.resampling import percentile_interval


class AreaIntervals(NamedTuple):
    """Intervals of the three areas of a risk-coverage curve."""

    aurc: Interval
    e_aurc: Interval
    augrc: Interval


def curve_area_intervals(
    confidence: npt.ArrayLike,
    errors: npt.ArrayLike,
    rng: np.random.Generator,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> AreaIntervals:
    """Percentile bootstrap intervals of AURC, E-AURC and AUGRC.

    What :func:`~finetune.domain.statistics.bootstrap_interval` gives for each, but for rounding; the rows
    are sorted once.

    Parameters
    ----------
    confidence, errors
        As in :func:`~finetune.domain.risk.curve.risk_coverage_curve`.
    rng, n_resamples, level
        As in :func:`~finetune.domain.statistics.bootstrap_interval`.

    Returns
    -------
    AreaIntervals
        One interval for each area.

    Raises
    ------
    InvalidInput
        If the input is not as above.

    Notes
    -----
    Asymptotic: with few rows or few errors an interval can cover less than ``level``.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> confidence = rng.random(500)
    >>> found = curve_area_intervals(confidence, rng.random(500) > confidence, rng, n_resamples=200)
    >>> [round(end, 2) for end in found.aurc[:2]]
    [0.18, 0.27]
    """
    scores = as_vector(confidence, name="confidence")
    wrong = as_flags(errors, n_rows=len(scores), name="errors")
    rng, n = as_generator(rng), len(scores)
    order, last = ranking(scores)
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n)
    wrong_in_order = wrong[order]
    draws = np.empty((as_count(n_resamples, name="n_resamples"), 3))
    for i in range(len(draws)):
        times = np.bincount(place[rng.integers(n, size=n)], minlength=n)
        answered = np.cumsum(times)[last]
        draws[i] = areas(answered, np.cumsum(times * wrong_in_order)[last])
    return AreaIntervals(*(percentile_interval(column, level) for column in draws.T))
