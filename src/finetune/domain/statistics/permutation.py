"""Permutation tests for a difference between means."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import (
    BoolArray,
    FloatArray,
    as_choice,
    as_count,
    as_generator,
    as_vector,
)
from finetune.domain.errors import InvalidInput

ALTERNATIVES = ("two-sided", "greater", "less")
_BLOCK_CELLS = 1 << 20
_LARGEST = 1e150


class PermutationTest(NamedTuple):
    """Difference of the means seen, its p-value, and whether all permutations were counted."""

    difference: float
    p_value: float
    exact: bool


def permutation_test(
    first: npt.ArrayLike,
    other: npt.ArrayLike,
    rng: np.random.Generator,
    n_permutations: int = 9999,
    alternative: str = "two-sided",
) -> PermutationTest:
    """Test whether two independent samples come from one law, by the difference of their means.

    Parameters
    ----------
    first, other
        Shapes (n,) and (m,), finite numbers, of size at most 1e150: losses, hits, costs.
    rng
        Source of the permutations.
    n_permutations
        How many are drawn.  Where there are no more divisions into n and m rows than that, all are counted.
    alternative
        ``"two-sided"``; ``"greater"``: the mean of the first is greater; ``"less"``: it is less.

    Returns
    -------
    PermutationTest
        The p-value is (1 + B') / (1 + B), B' of the B permutations drawn having a difference at least as
        great as the one seen, or the exact share of all divisions.

    Raises
    ------
    InvalidInput
        If the input is not as above.

    Notes
    -----
    Valid for any sample sizes if under the hypothesis all rows are exchangeable: one law, not one mean alone.

    References
    ----------
    Phipson, B. and Smyth, G. K. (2010). Permutation p-values should never be zero. Stat. Appl. Genet. Mol.
    Biol. 9.

    Examples
    --------
    >>> permutation_test([1, 2, 3], [4, 5, 6], np.random.default_rng(0))
    PermutationTest(difference=-3.0, p_value=0.1, exact=True)
    """
    one, two = _finite(first, "first"), _finite(other, "other")
    rng = as_generator(rng)
    count = as_count(n_permutations, name="n_permutations")
    pooled, n = np.concatenate([one, two]), len(one)
    # With 64 rows in both there are more divisions than any count, and their number takes long to compute.
    divisions = math.comb(len(pooled), n) if min(n, len(two)) < 64 else 0
    exact = 0 < divisions <= count
    blocks = (
        _all_divisions(len(pooled), n, divisions) if exact else _drawn_divisions(rng, len(pooled), n, count)
    )
    centred = pooled - pooled.mean()
    # The sum over the first sample orders divisions as the difference of the means does.
    sums = (centred[rows].sum(axis=1) for rows in blocks)
    seen = float(centred[:n].sum())
    p_value = _p_value(sums, seen, float(np.abs(centred).sum()), alternative, exact)
    return PermutationTest(float(one.mean() - two.mean()), p_value, exact)


def paired_permutation_test(
    first: npt.ArrayLike,
    other: npt.ArrayLike,
    rng: np.random.Generator,
    n_permutations: int = 9999,
    alternative: str = "two-sided",
) -> PermutationTest:
    """Test whether two measurements of the same rows differ, by exchanging them within rows.

    Parameters
    ----------
    first, other
        Shape (n,), for example the losses of two models on one test set.
    rng, n_permutations, alternative
        As in :func:`permutation_test`; all 2**n exchanges are counted where there are no more than
        ``n_permutations``, rows without a difference left out.

    Returns
    -------
    PermutationTest
        As in :func:`permutation_test`.

    Raises
    ------
    InvalidInput
        If the input is not as above.

    Notes
    -----
    Valid if under the hypothesis the two measurements of a row are exchangeable, and rows are independent.

    Examples
    --------
    >>> paired_permutation_test([0, 0, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1], np.random.default_rng(0))
    PermutationTest(difference=-0.8333333333333334, p_value=0.0625, exact=True)
    """
    one, two = _finite(first, "first"), _finite(other, "other")
    if len(one) != len(two):
        raise InvalidInput(
            "both must have one entry for each row",
            seen=(len(one), len(two)),
            remedy="pass the two measurements of the same rows",
        )
    rng = as_generator(rng)
    count = as_count(n_permutations, name="n_permutations")
    differences = one - two
    moving = differences[differences != 0.0]
    exact = len(moving) < 64 and 2 ** len(moving) <= count
    blocks = _all_signs(len(moving)) if exact else _drawn_signs(rng, len(moving), count)
    # The sum where the sign stays, twice, less the sum of all: the order is that of the sum itself.
    sums = (2.0 * (signs @ moving) - moving.sum() for signs in blocks)
    scale = float(np.abs(moving).sum())
    p_value = _p_value(sums, float(moving.sum()), scale, alternative, exact)
    return PermutationTest(float(differences.mean()), p_value, exact)


def _finite(values: npt.ArrayLike, name: str) -> FloatArray:
    return as_vector(values, name=name, low=-_LARGEST, high=_LARGEST)


def _p_value(sums: Iterator[FloatArray], seen: float, scale: float, alternative: str, exact: bool) -> float:
    as_choice(alternative, ALTERNATIVES, name="alternative")
    slack = 1e-12 * scale  # sums of the same numbers in another order are ties
    extreme = total = 0
    for block in sums:
        extreme += int(np.count_nonzero(_as_extreme(block, seen, slack, alternative)))
        total += len(block)
    return extreme / total if exact else (1 + extreme) / (1 + total)


def _as_extreme(sums: FloatArray, seen: float, slack: float, alternative: str) -> BoolArray:
    if alternative == "greater":
        return np.asarray(sums >= seen - slack)
    if alternative == "less":
        return np.asarray(sums <= seen + slack)
    return np.asarray(np.abs(sums) >= abs(seen) - slack)


def _all_divisions(n_rows: int, n_first: int, divisions: int) -> Iterator[npt.NDArray[np.int64]]:
    rows = np.fromiter(
        (row for chosen in combinations(range(n_rows), n_first) for row in chosen),
        dtype=np.int64,
        count=divisions * n_first,
    )
    yield rows.reshape(divisions, n_first)


def _drawn_divisions(
    rng: np.random.Generator, n_rows: int, n_first: int, count: int
) -> Iterator[npt.NDArray[np.int64]]:
    step = max(1, _BLOCK_CELLS // n_rows)
    for start in range(0, count, step):
        size = (min(step, count - start), 1)
        yield rng.permuted(np.tile(np.arange(n_rows), size), axis=1)[:, :n_first]


def _all_signs(n: int) -> Iterator[FloatArray]:
    yield (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(np.float64)


def _drawn_signs(rng: np.random.Generator, n: int, count: int) -> Iterator[FloatArray]:
    step = max(1, _BLOCK_CELLS // n)
    for start in range(0, count, step):
        yield rng.integers(2, size=(min(step, count - start), n)).astype(np.float64)
