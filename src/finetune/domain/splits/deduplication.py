"""No text twice, and none in two splits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.domain.duplicates import (
    DEFAULT_THRESHOLD,
    distinct_texts,
    near_duplicate_groups,
    near_duplicate_pairs,
    similarity,
)
from finetune.domain.splits.rows import SPLITS, check_rows, hash_order


class Leak(NamedTuple):
    """Two nearly equal texts in two splits, ``row_a < row_b``."""

    row_a: int
    row_b: int
    split_a: str
    split_b: str
    similarity: float


class Removed(NamedTuple):
    """A row that goes, the row that stands for it, and how similar they are."""

    row: int
    kept_row: int
    similarity: float


@dataclass(frozen=True)
class DuplicateReport:
    """What `remove_duplicates` found: the rows to keep, shape (n,), and each row removed, in order.

    `exact` rows are removed for one with the same normalised text, `near` rows for a similar one.
    `conflicting` are the groups of rows with the same normalised text and different labels,
    `near_conflicting` the groups of near duplicates in which different texts have different labels.  One of
    them is kept as of any other group; which label is right is for a person to say.  `largest_group` is the
    size of the largest group that lost rows, 0 without one: a great number tells of texts of one template.
    """

    keep: npt.NDArray[np.bool_]
    exact: int
    near: int
    conflicting: list[tuple[int, ...]]
    near_conflicting: list[tuple[int, ...]]
    largest_group: int
    removed: list[Removed]


def detect_leakage(
    texts: Sequence[str],
    splits: Sequence[str],
    threshold: float = DEFAULT_THRESHOLD,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Leak]:
    """Find all pairs of nearly equal texts in different splits; `near_duplicate_pairs` has the details.

    A text that a split holds several times counts once, with its first row there.  Pairs within a split are
    not compared.

    Examples
    --------
    >>> detect_leakage(["same", "Same!", "other", "same"], ["train", "test", "test", "train"])
    [Leak(row_a=0, row_b=1, split_a='train', split_b='test', similarity=1.0)]
    """
    check_rows(texts, splits=splits)
    firsts: list[int] = []
    for rows in distinct_texts(texts):
        firsts += {splits[row]: row for row in reversed(rows)}.values()
    firsts.sort()
    pairs = near_duplicate_pairs(
        [texts[row] for row in firsts],
        threshold,
        on_progress=on_progress,
        skip=lambda a, b: splits[firsts[a]] == splits[firsts[b]],
    )
    found = ((firsts[a], firsts[b], value) for a, b, value in pairs)
    return sorted(Leak(a, b, splits[a], splits[b], value) for a, b, value in found)


def remove_duplicates(
    texts: Sequence[str],
    labels: Sequence[str | None],
    preset_splits: Sequence[str | None] | None = None,
    threshold: float = DEFAULT_THRESHOLD,
    on_progress: Callable[[int, int], None] | None = None,
) -> DuplicateReport:
    """Keep one row of each group of near duplicates.

    Without preset splits this is the row with the lowest hash.  A group with preset rows is represented by
    those of them in its most protected split (test, calibration, validation, train), all of which stay: the
    data prescribes them.  All other rows of the group go.

    Parameters
    ----------
    texts, labels, preset_splits
        n each; a label or a split may be None.
    threshold, on_progress
        See `near_duplicate_pairs`.

    Returns
    -------
    DuplicateReport
        Which texts are kept does not depend on the order of the rows.  A row goes for one with the same
        text, or else for the one of its group with the lowest hash that stays.  Groups are chains: that one
        may be less similar than `threshold`.

    Raises
    ------
    InvalidInput
        Lengths differ, or the threshold is out of range.

    Examples
    --------
    >>> report = remove_duplicates(["one text", "One text!", "b"], ["a", "b", "a"], ["train", "test", None])
    >>> report.keep.tolist(), report.removed, report.conflicting
    ([False, True, True], [Removed(row=0, kept_row=1, similarity=1.0)], [(0, 1)])
    """
    preset = [None] * len(texts) if preset_splits is None else preset_splits
    check_rows(texts, labels=labels, preset_splits=preset)
    rank = {row: position for position, row in enumerate(hash_order(texts, 0, "representative"))}
    distinct = distinct_texts(texts)
    text_of = {row: number for number, rows in enumerate(distinct) for row in rows}

    def disagree(rows: tuple[int, ...]) -> bool:
        return len({labels[row] for row in rows} - {None}) > 1

    removed, exact, largest, near_conflicting = list[Removed](), 0, 0, list[tuple[int, ...]]()
    for rows in near_duplicate_groups(texts, threshold, on_progress=on_progress):
        if disagree(rows) and len({text_of[row] for row in rows if labels[row] is not None}) > 1:
            near_conflicting.append(rows)
        kept = _representatives(rows, preset, rank)
        ranked = sorted(kept, key=rank.__getitem__)
        standing = {text_of[row]: row for row in reversed(ranked)}
        gone = [row for row in rows if row not in kept]
        for row in gone:
            if (same := standing.get(text_of[row])) is not None:
                removed.append(Removed(row, same, 1.0))
                exact += 1
            else:
                removed.append(Removed(row, ranked[0], similarity(texts[row], texts[ranked[0]])))
        largest = max(largest, len(rows) if gone else 0)
    keep = np.ones(len(texts), dtype=bool)
    keep[[entry.row for entry in removed]] = False
    return DuplicateReport(
        keep=keep,
        exact=exact,
        near=len(removed) - exact,
        conflicting=[rows for rows in distinct if disagree(rows)],
        near_conflicting=near_conflicting,
        largest_group=largest,
        removed=sorted(removed),
    )


def _representatives(rows: Sequence[int], preset: Sequence[str | None], rank: dict[int, int]) -> set[int]:
    for split in reversed(SPLITS):
        if found := {row for row in rows if preset[row] == split}:
            return found
    return {min(rows, key=rank.__getitem__)}
