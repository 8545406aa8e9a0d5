"""Thresholds by category, each from the calibration rows of its own category alone.

The calibration rows of a category and a new case of it are exchangeable among themselves, so each category
has its own split conformal guarantee.  A category with too few rows for the level, or with none, has the
threshold +inf: nothing is borrowed from another.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from finetune.domain.checks import Extended, FloatArray, IntArray, read_extended, write_extended
from finetune.domain.conformal.quantile import CoverageLaw, conformal_rank, fewest_rows, kth_smallest
from finetune.domain.errors import CoverageWarning, InvalidInput

_SHOWN = 10
_FEW, _PART = 1 << 11, 1 << 16


class Category(NamedTuple):
    """What calibration found for one category.

    Parameters
    ----------
    name
        Of the label (its index), the group or the cluster.
    n
        Number of calibration rows.
    rank
        Rank of the threshold among their scores; n + 1 where they are too few.
    threshold
        Greatest score that is in a set; +inf where every one is.
    """

    name: int | str
    n: int
    rank: int
    threshold: float

    @property
    def law(self) -> CoverageLaw | None:
        """Law of the coverage given the calibration rows; None without rows."""
        return CoverageLaw(self.n, self.rank) if self.n else None


class CategoryRecord(BaseModel):
    """A category as it is written to JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    name: int | str
    n: int
    rank: int
    threshold: Extended

    def read(self, alpha: float) -> Category:
        """Check the numbers against each other."""
        threshold = read_extended(self.threshold)
        if self.n < 0 or self.rank != _rank(self.n, alpha) or (self.rank > self.n and threshold != math.inf):
            raise InvalidInput(
                "the record contradicts itself", seen=(self.name, self.n, self.rank), remedy="calibrate again"
            )
        return Category(self.name, self.n, self.rank, threshold)


def write_category(category: Category) -> dict[str, object]:
    """JSON-ready record of a category."""
    return {**category._asdict(), "threshold": write_extended(category.threshold)}


def calibrate_categories(
    scores: FloatArray, codes: IntArray, names: Sequence[int | str], alpha: float
) -> tuple[Category, ...]:
    """Find the threshold of each category.

    Parameters
    ----------
    scores
        Shape (n,).
    codes
        Shape (n,): index of the category of each row in ``names``.
    names
        Of all categories, also of those without rows.
    alpha
        In (0, 1).

    Returns
    -------
    tuple of Category
        In the order of ``names``.

    Examples
    --------
    >>> calibrate_categories(np.array([0.3, 0.1, 0.2]), np.array([0, 0, 1]), ["a", "b"], 0.4)
    (Category(name='a', n=2, rank=2, threshold=0.3), Category(name='b', n=1, rank=2, threshold=inf))
    """
    counts = np.bincount(codes, minlength=len(names))
    ends = np.cumsum(counts)
    grouped = _grouped(scores, codes, ends - counts)
    found = []
    for name, n, end in zip(names, counts.tolist(), ends.tolist(), strict=True):
        rank = _rank(n, alpha)
        found.append(Category(name, n, rank, kth_smallest(grouped[end - n : end], rank)))
    return tuple(found)


def state_categories(
    categories: Sequence[Category], alpha: float, *, promise: str, noun: str, consequence: str
) -> str:
    """Say what is promised for each category, and for which ones that means every label.

    Parameters
    ----------
    categories
        As calibrated.
    alpha
        Miscoverage allowed in each.
    promise
        What has the probability, for example ``"For each group: a new case of it"``.
    noun
        What the categories are called, for example ``"groups"``.
    consequence
        Of the threshold +inf, for example ``"Their cases get every label."``
    """
    n = sum(category.n for category in categories)
    text = (
        f"{promise} with a probability of at least {1 - alpha:.6g}, provided that new cases and the {n} "
        f"calibration cases come from the same source in no particular order, and that the calibration cases "
        f"were used neither to train the model nor to fit its calibration map. This is an average over "
        f"calibration sets and over cases: it does not hold for each single case."
    )
    few = [category.name for category in categories if category.rank > category.n]
    if few:
        text += (
            f" For this level {noun} need at least {fewest_rows(alpha)} calibration cases, and these have "
            f"fewer: {shorten(few)}. {consequence}"
        )
    excluded = [c.name for c in categories if c.rank <= c.n and c.threshold == math.inf]
    if excluded:
        text += (
            f" The model excludes too many true labels in these {noun}: {shorten(excluded)}. {consequence}"
        )
    laws = {c.name: CoverageLaw(c.n, c.rank) for c in categories if c.threshold < math.inf}
    if laws:
        name, law = min(laws.items(), key=lambda item: item[1].n)
        low, high, level = law.interval(0.9)
        text += (
            f" The fewest calibration cases behind a threshold are {law.n}, of {name}: its coverage lies "
            f"between {low:.4f} and {high:.4f} in {100 * level:g} % of calibration sets, or above where "
            f"cases tie."
        )
    return text


def warn_of_unseen(names: Sequence[int | str], noun: str, consequence: str) -> None:
    """Warn the caller's caller that calibration saw no row of these, if there are any."""
    if names:
        message = f"calibration saw no row of the {noun} {shorten(names)}: {consequence}"
        warnings.warn(message, CoverageWarning, stacklevel=3)


def shorten(names: Sequence[int | str]) -> str:
    """Write names for a sentence, and only count those beyond the tenth.

    Examples
    --------
    >>> shorten(["a", "b"]), shorten(range(12))
    ('a, b', '0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more')
    """
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(str, names[:_SHOWN])) + more


def _grouped(scores: FloatArray, codes: IntArray, starts: IntArray) -> FloatArray:
    """Scores category by category, from these places on; in parts, for an order takes the room of scores."""
    grouped, free = np.empty_like(scores), starts.copy()
    small = np.min_scalar_type(len(starts))
    step = max(_FEW, min(len(scores) // 8, _PART))
    for start in range(0, len(scores), step):
        part = codes[start : start + step]
        order = np.argsort(part.astype(small), kind="stable")
        counts = np.bincount(part, minlength=len(starts))
        # How far each category's free place lies behind its first one of this part.
        ahead = free - (np.cumsum(counts) - counts)
        grouped[np.arange(len(part)) + ahead[part[order]]] = scores[start : start + step][order]
        free += counts
    return grouped


def _rank(n: int, alpha: float) -> int:
    return conformal_rank(n, alpha) if n else 1
