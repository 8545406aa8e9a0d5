"""How many calibration rows it takes for the coverage to be near what was asked for."""

from __future__ import annotations

import math
from bisect import bisect_left
from fractions import Fraction

from scipy.special import betainc, betaincc

from finetune.domain.checks import as_choice, as_level

DEFINITIONS = ("safe", "published")
_PUBLISHED_SEARCH_END = 1e11


def calibration_rows_needed(
    alpha: float, epsilon: float, probability: float = 0.9, *, definition: str = "safe"
) -> int:
    """Smallest number of calibration rows from which on the coverage is within ``epsilon`` of 1 - alpha.

    Parameters
    ----------
    alpha
        Miscoverage of a split conformal predictor, in (0, 1), taken as the decimal number it is written as.
    epsilon
        Distance allowed, in (0, 1).
    probability
        Probability over the draw of the calibration rows, in (0, 1): at most (1 - probability) / 2 of the
        law of the coverage lies on either side.
    definition
        ``"safe"``: the least n that does, and so does every greater number.  ``"published"``: the number in
        the table of Angelopoulos and Bates, for comparison with what others report: one from which on the
        next few do, but some greater ones may not.

    Returns
    -------
    int
        Number of rows.

    Raises
    ------
    InvalidInput
        If an argument is not in (0, 1), or the definition is not known.

    Notes
    -----
    Given n rows with continuous scores the coverage is Beta(n + 1 - l, l), l = floor((n + 1) alpha).  By the
    rounding in l fewer rows can do while some more of them do not: at alpha = epsilon = .1 it is well with
    14 to 20 rows, and with 22 to 28, but neither with 21 nor with 29.  The published numbers (22, 102, 2491,
    9812 and 244390 at alpha = .1 and epsilon = .1, .05, .01, .005 and .001) are those of such places at which
    a bisection of the real numbers from ceil(1 / alpha) to 1e11 ends; the safe ones are 30, 110, 2520, 9910
    and 244400.

    References
    ----------
    Vovk, V. (2012). Conditional validity of inductive conformal predictors. ACML, prop. 2b.
    Angelopoulos, A. N. and Bates, S. (2023). Conformal prediction: a gentle introduction, sec. 3.2 (the
    numbers come from notebooks/correctness_checks.ipynb of their repository).

    Examples
    --------
    >>> calibration_rows_needed(0.1, 0.05)
    110
    >>> calibration_rows_needed(0.1, 0.05, definition="published")
    102
    """
    law = _Law(alpha, epsilon, probability)
    if as_choice(definition, DEFINITIONS, name="definition") == "published":
        return _published(law)
    # The rows with one value of l are a block.  Some l from which on none fails: the ends of blocks as real
    # numbers, which are worse than the integers within, fail up to some l and never after it.
    step = 1
    while law.fails_between(step, law.start(step), law.start(step + 1)):
        step *= 2
    low, high = step // 2, step
    while high - low > 1:
        middle = (low + high) // 2
        fails = law.fails_between(middle, law.start(middle), law.start(middle + 1))
        low, high = (middle, high) if fails else (low, middle)
    for block in range(low, 0, -1):
        first, last = math.ceil(law.start(block)), math.ceil(law.start(block + 1)) - 1
        if law.is_above(last, block):
            return last + 1
        if law.is_below(first, block):
            return first + bisect_left(
                range(first, last + 2), True, key=lambda n: n > last or not law.is_below(n, block)
            )
    # Too few rows for any finite threshold: the coverage is 1.
    return 1 if law.high >= 1 else math.ceil(law.start(1))


def _published(law: _Law) -> int:
    low, high = float(math.ceil(1 / law.alpha)), _PUBLISHED_SEARCH_END
    if law.holds(low):
        return int(low)
    # The tolerance of scipy.optimize.brentq, which bisects here: the function has but two values.
    while high - low > 2e-12 + 1e-15 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if law.holds(middle) else (middle, high)
    return math.floor(low) + 1


class _Law:
    """Whether too much of the law of the coverage, given n and l = block, lies outside the limits."""

    def __init__(self, alpha: float, epsilon: float, probability: float) -> None:
        self.alpha = Fraction(str(as_level(alpha, name="alpha")))
        distance = Fraction(str(as_level(epsilon, name="epsilon")))
        self.low, self.high = float(1 - self.alpha - distance), float(1 - self.alpha + distance)
        self.tail = (1 - as_level(probability, name="probability")) / 2

    def start(self, block: int) -> Fraction:
        """First n, as a real number, with floor((n + 1) alpha) = block."""
        return block / self.alpha - 1

    def is_below(self, n: float, block: int) -> bool:
        return self.low > 0.0 and float(betainc(n + 1 - block, block, self.low)) > self.tail

    def is_above(self, n: float, block: int) -> bool:
        return self.high < 1.0 and float(betaincc(n + 1 - block, block, self.high)) > self.tail

    def holds(self, n: float) -> bool:
        """Whether little enough lies outside, given n rows; n may be a real number."""
        block = math.floor((Fraction(n) + 1) * self.alpha)
        return not (self.is_below(n, block) or self.is_above(n, block))

    def fails_between(self, block: int, start: Fraction, end: Fraction) -> bool:
        # More rows in one block move the law up.
        return self.is_below(float(start), block) or self.is_above(float(end), block)
