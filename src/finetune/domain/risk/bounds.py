"""P-values for "the error rate is above the level", from counts."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import betaincc

from finetune.domain.checks import FloatArray, as_labels, as_level
from finetune.domain.errors import InvalidInput


def binomial_p_value(k: npt.ArrayLike, n: npt.ArrayLike, level: float) -> FloatArray:
    """Exact p-value P(Bin(n, level) <= k) of the hypothesis that the error rate is at least ``level``.

    Parameters
    ----------
    k, n
        Errors and trials, integers with 0 <= k <= n, each of shape (m,).
    level
        Error rate in (0, 1).

    Returns
    -------
    FloatArray
        Shape (m,); 1 where there are no trials.

    Raises
    ------
    InvalidInput
        If the counts are not counts or the level is not one.

    Notes
    -----
    Valid for independent trials with one error rate.  Equivalent to the Clopper-Pearson upper bound: the
    p-value is at most d exactly where the bound at 1 - d is at most ``level``.

    References
    ----------
    Brown, Cai, DasGupta (2001). Interval estimation for a binomial proportion. Statistical Science 16.

    Examples
    --------
    >>> binomial_p_value([5, 70], [100, 1000], 0.1).round(7).tolist()
    [0.0575769, 0.0005745]
    """
    level = as_level(level, name="level")
    trials = as_labels(n, n_rows=None, n_labels=None, name="n")
    errors = as_labels(k, n_rows=len(trials), n_labels=None, name="k")
    if (errors > trials).any():
        row = int((errors > trials).argmax())
        raise InvalidInput(
            "there are more errors than trials",
            where=f"k[{row}]",
            seen=(int(errors[row]), int(trials[row])),
            remedy="pass errors first, then trials",
        )
    # Where all trials are errors the probability is 1; the 1 in their place keeps the function defined.
    rest = np.maximum(trials - errors, 1)
    return np.where(errors == trials, 1.0, betaincc(errors + 1.0, rest, level))


def error_free_rows_needed(level: float, delta: float) -> int:
    """Smallest n for which no error in n trials shows, at ``delta``, that the error rate is below ``level``.

    Examples
    --------
    >>> error_free_rows_needed(0.05, 0.05)
    59
    """
    level, delta = as_level(level, name="level"), as_level(delta, name="delta")
    n = max(1, math.floor(math.log(delta) / math.log1p(-level)))
    while binomial_p_value([0], [n], level)[0] > delta:
        n += 1
    return n
