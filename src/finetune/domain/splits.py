"""Who is in which split: by content hash, once, and nobody in two of them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.domain import duplicates
from finetune.domain.duplicates import DEFAULT_THRESHOLD
from finetune.domain.errors import InvalidInput

SPLITS = ("train", "validation", "calibration", "test")
"""The splits, from the least to the most protected one."""
_HOLDOUT = ("calibration", "test")


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
    `conflicting` are the groups of rows with the same normalised text and different labels.  One of them is
    kept as of any other group; which label is right is for a person to say.
    """

    keep: npt.NDArray[np.bool_]
    exact: int
    near: int
    conflicting: list[tuple[int, ...]]
    removed: list[Removed]


def hash_order(texts: Sequence[str], seed: int, purpose: str) -> list[int]:
    """Return the rows in an order that depends on each text, the seed and the purpose alone.

    Orders for different purposes are independent.  Equal normalised texts are ordered by text, then by row.
    """

    def key(row: int) -> tuple[bytes, str, int]:
        content = f"{seed}|{purpose}|{duplicates.normalise_text(texts[row])}".encode("utf-8", "surrogatepass")
        return hashlib.sha256(content).digest(), texts[row], row

    return sorted(range(len(texts)), key=key)


def assign_splits(
    texts: Sequence[str],
    labels: Sequence[str | None],
    fractions: Mapping[str, float],
    seed: int,
    preset: Sequence[str | None] | None = None,
) -> list[str]:
    """Put every row into a split.

    Rows with a preset split stay there and count for nothing.  The others are allocated label by label, in
    hash order and by largest remainders, to train, validation and one holdout block.  The block is then
    cut into calibration and test by a second, independent hash, *without* regard to labels: given the
    block, every division of it is equally likely, so that calibration and test rows are exchangeable and a
    conformal guarantee holds on the test rows exactly.  Fixing the rows per label in each part would break
    that, and so would using the first hash twice: in the block, its values differ between labels.

    Parameters
    ----------
    texts
        n texts, free of duplicates (`remove_duplicates`): copies may end up in two splits.
    labels
        n labels; None is a stratum of its own.
    fractions
        Split to its share, summing to 1; with share 0, or left out, it gets no row without a preset.
    seed
        Any integer; another one gives another division.
    preset
        n splits or None.

    Returns
    -------
    list[str]
        n splits, independent of the order of the rows and of the platform.  A label with fewer rows than
        there are splits is not guaranteed to be in each of them.

    Raises
    ------
    InvalidInput
        Lengths differ, a split is unknown, or the fractions are no division of 1.

    Examples
    --------
    >>> assign_splits(["a", "b", "c", "d"], ["x"] * 4, {"train": 0.5, "test": 0.5}, seed=0).count("test")
    2
    """
    preset = [None] * len(texts) if preset is None else preset
    _check_lengths(texts, labels=labels, preset=preset)
    for row, split in enumerate(preset):
        if split is not None:
            _check_split(split, f"row {row}")
    shares = _checked_fractions(fractions)
    holdout = sum((shares[name] for name in _HOLDOUT), Fraction(0))

    strata: dict[str | None, list[int]] = defaultdict(list)
    for row in hash_order(texts, seed, "stratum"):
        if preset[row] is None:
            strata[labels[row]].append(row)
    result = ["" if split is None else split for split in preset]
    block: list[int] = []
    for rows in strata.values():
        n_train, n_validation, _ = _largest_remainder(
            len(rows), [shares["train"], shares["validation"], holdout]
        )
        for position, row in enumerate(rows[: n_train + n_validation]):
            result[row] = "train" if position < n_train else "validation"
        block += rows[n_train + n_validation :]
    if block:
        n_calibration, _ = _largest_remainder(len(block), [shares[name] / holdout for name in _HOLDOUT])
        for position, index in enumerate(hash_order([texts[row] for row in block], seed, "holdout")):
            result[block[index]] = "calibration" if position < n_calibration else "test"
    return result


def split_calibration(keys: Sequence[str], seed: int) -> npt.NDArray[np.bool_]:
    """Halve the calibration rows, by a hash that is independent of the one that chose them.

    Parameters
    ----------
    keys
        A text or an id for each row, all different.
    seed
        Any integer.

    Returns
    -------
    ndarray of bool, shape (n,)
        True for the ⌈n/2⌉ rows for conformal sets, False for those for risk thresholds.

    Examples
    --------
    >>> int(split_calibration(["a", "b", "c"], seed=0).sum())
    2
    """
    mask = np.zeros(len(keys), dtype=bool)
    mask[hash_order(keys, seed, "calibration")[: (len(keys) + 1) // 2]] = True
    return mask


def detect_leakage(
    texts: Sequence[str],
    splits: Sequence[str],
    threshold: float = DEFAULT_THRESHOLD,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Leak]:
    """Find all pairs of nearly equal texts in different splits; `near_duplicate_pairs` has the details.

    Examples
    --------
    >>> detect_leakage(["same", "Same!", "other"], ["train", "test", "test"])
    [Leak(row_a=0, row_b=1, split_a='train', split_b='test', similarity=1.0)]
    """
    _check_lengths(texts, splits=splits)
    return [
        Leak(a, b, splits[a], splits[b], value)
        for a, b, value in duplicates.near_duplicate_pairs(texts, threshold, on_progress=on_progress)
        if splits[a] != splits[b]
    ]


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
        Which texts are kept does not depend on the order of the rows.  Groups are chains: a row may go for
        one that it is less similar to than `threshold`.

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
    _check_lengths(texts, labels=labels, preset_splits=preset)
    distinct = duplicates.distinct_texts(texts)
    neighbours: dict[int, dict[int, float]] = defaultdict(dict)
    firsts = [texts[rows[0]] for rows in distinct]
    for a, b, value in duplicates.near_duplicate_pairs(firsts, threshold, on_progress=on_progress):
        neighbours[a][b] = neighbours[b][a] = value
    rank = {row: position for position, row in enumerate(hash_order(texts, 0, "representative"))}

    removed, exact = list[Removed](), 0
    for members in duplicates.connected(
        len(distinct), ((a, b) for a, near in neighbours.items() for b in near)
    ):
        rows = [row for member in members for row in distinct[member]]
        kept = _representatives(rows, preset, rank)
        standing = {member: row for member in members for row in distinct[member] if row in kept}
        first = min(kept, key=rank.__getitem__)
        for member in members:
            near = {m: value for m, value in neighbours[member].items() if m in standing}
            if member in standing:
                kept_row, value = standing[member], 1.0
            elif near:
                best = max(near, key=lambda m: (near[m], -rank[standing[m]]))
                kept_row, value = standing[best], near[best]
            else:
                kept_row, value = first, duplicates.similarity(firsts[member], texts[first])
            gone = [Removed(row, kept_row, value) for row in distinct[member] if row not in kept]
            exact += len(gone) if member in standing else 0
            removed += gone
    keep = np.ones(len(texts), dtype=bool)
    keep[[entry.row for entry in removed]] = False
    conflicting = [rows for rows in distinct if len({labels[row] for row in rows} - {None}) > 1]
    return DuplicateReport(keep, exact, len(removed) - exact, conflicting, sorted(removed))


def _representatives(rows: list[int], preset: Sequence[str | None], rank: dict[int, int]) -> set[int]:
    for split in reversed(SPLITS):
        if found := {row for row in rows if preset[row] == split}:
            return found
    return {min(rows, key=rank.__getitem__)}


def _largest_remainder(n: int, shares: Sequence[Fraction]) -> list[int]:
    """Divide n into whole parts by shares that sum to 1; of equal remainders the earlier is rounded up."""
    quotas = [n * share for share in shares]
    parts = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(shares)), key=lambda part: (parts[part] - quotas[part], part))
    for part in by_remainder[: n - sum(parts)]:
        parts[part] += 1
    return parts


def _checked_fractions(fractions: Mapping[str, float]) -> dict[str, Fraction]:
    for name, share in fractions.items():
        _check_split(name, "fractions")
        if not 0 <= share <= 1:
            raise InvalidInput("a fraction is not in [0, 1]", where=f"fractions.{name}", seen=share)
    # The decimal fraction that was written: 0.7 of 10 rows are 7 rows, on every platform.
    exact = {name: Fraction(str(fractions.get(name, 0))) for name in SPLITS}
    total = sum(exact.values(), Fraction(0))
    if abs(total - 1) > 1e-9:
        raise InvalidInput("the fractions do not sum to 1", where="fractions", seen=dict(fractions))
    return {name: share / total for name, share in exact.items()}


def _check_split(name: str, where: str) -> None:
    if name not in SPLITS:
        raise InvalidInput("unknown split", where=where, seen=name, remedy="use " + ", ".join(SPLITS))


def _check_lengths(texts: Sequence[str], **others: Sequence[object]) -> None:
    for name, values in others.items():
        if len(values) != len(texts):
            raise InvalidInput(f"{name} and texts differ in length", seen=(len(values), len(texts)))
