"""Who is in which split: by content hash, once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import is_number
from finetune.domain.duplicates import check_texts
from finetune.domain.errors import InvalidInput
from finetune.domain.splits.rows import SPLITS, check_rows, check_split, hash_order

_LEARNING, _HOLDOUT = SPLITS[:2], SPLITS[2:]


def assign_splits(
    texts: Sequence[str],
    labels: Sequence[str | None],
    fractions: Mapping[str, float],
    seed: int,
    preset: Sequence[str | None] | None = None,
) -> list[str]:
    """Put every row into a split.

    Rows with a preset split stay there and count for nothing.  Of the others, the holdout (calibration and
    test) is cut off first, by a hash of the text and *without* regard to labels, and divided by a second,
    independent hash.  So calibration and test rows are a simple random sample of the rows without a preset:
    exchangeable with one another and with rows of the same source that come later, of rare labels as of
    frequent ones, which is what conformal and risk guarantees rest on.  Fixing the rows per label would
    break that: rounding would hold out no row of a label that has one.  The rest is divided label by label,
    in hash order and by largest remainders, into train and validation.

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
        n splits, independent of the order of the rows and of the platform.  No label is guaranteed to be in
        calibration or test, and one with few rows not in validation or train either.

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
    check_rows(texts, labels=labels, preset=preset)
    for row, split in enumerate(preset):
        if split is not None:
            check_split(split, f"row {row}")
    shares = _checked_fractions(fractions)
    result = ["" if split is None else split for split in preset]

    def shuffled(rows: list[int], purpose: str) -> list[int]:
        return [rows[index] for index in hash_order([texts[row] for row in rows], seed, purpose)]

    free = [row for row, split in enumerate(preset) if split is None]
    sides = [sum((shares[name] for name in names), Fraction(0)) for names in (_LEARNING, _HOLDOUT)]
    rest, held = _cut(shuffled(free, "holdout"), sides)
    strata: dict[str | None, list[int]] = defaultdict(list)
    for row in shuffled(rest, "stratum"):
        strata[labels[row]].append(row)
    blocks = [(_HOLDOUT, shuffled(held, "test")), *((_LEARNING, rows) for rows in strata.values())]
    for names, rows in blocks:
        for name, part in zip(names, _cut(rows, [shares[name] for name in names]), strict=True):
            for row in part:
                result[row] = name
    return result


def split_calibration(keys: Sequence[str], seed: int) -> npt.NDArray[np.bool_]:
    """Halve the calibration rows, by a hash that is independent of the one that chose them.

    Parameters
    ----------
    keys
        An id for each row, all different.
    seed
        Any integer.

    Returns
    -------
    ndarray of bool, shape (n,)
        True for the ⌈n/2⌉ rows for conformal sets, False for those for risk thresholds.

    Raises
    ------
    InvalidInput
        A key repeats: its rows would be ordered by where they stand in the file.

    Examples
    --------
    >>> int(split_calibration(["a", "b", "c"], seed=0).sum())
    2
    """
    check_texts(keys)
    repeated = [key for key, count in Counter(keys).items() if count > 1]
    if repeated:
        raise InvalidInput("a key is given twice", seen=repeated[0], remedy="pass the ids of the rows")
    mask = np.zeros(len(keys), dtype=bool)
    mask[hash_order(keys, seed, "calibration")[: (len(keys) + 1) // 2]] = True
    return mask


def _cut(rows: list[int], shares: Sequence[Fraction]) -> list[list[int]]:
    """Cut rows into parts by largest remainders; of equal remainders the earlier is rounded up."""
    total = sum(shares, Fraction(0))
    quotas = [len(rows) * share / total if total else Fraction(0) for share in shares]
    sizes = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(shares)), key=lambda part: (sizes[part] - quotas[part], part))
    for part in by_remainder[: len(rows) - sum(sizes)]:
        sizes[part] += 1
    ends = list(accumulate(sizes, initial=0))
    return [rows[start:end] for start, end in pairwise(ends)]


def _checked_fractions(fractions: Mapping[str, float]) -> dict[str, Fraction]:
    if not isinstance(fractions, Mapping):
        raise InvalidInput("the fractions are no table of splits", where="fractions", seen=fractions)
    for name, share in fractions.items():
        check_split(name, "fractions")
        if not (is_number(share) and 0 <= share <= 1):
            raise InvalidInput("a fraction is not in [0, 1]", where=f"fractions.{name}", seen=share)
    # The decimal fraction that was written: 0.7 of 10 rows are 7 rows, on every platform.
    exact = {name: Fraction(str(fractions.get(name, 0))) for name in SPLITS}
    total = sum(exact.values(), Fraction(0))
    if abs(total - 1) > 1e-9:
        raise InvalidInput("the fractions do not sum to 1", where="fractions", seen=dict(fractions))
    return {name: share / total for name, share in exact.items()}
