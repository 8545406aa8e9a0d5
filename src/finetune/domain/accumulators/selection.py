"""Answers, their errors and costs over rows that come in parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finetune.domain.accumulators.base import Accumulator
from finetune.domain.accumulators.estimates import Mean, Proportion
from finetune.domain.checks import as_array, as_flags, as_vector
from finetune.domain.errors import InvalidInput

_LARGEST_COST = 1e100


class SelectionAccumulator(Accumulator):
    """How much is answered, how often that is wrong, and what it costs.

    Examples
    --------
    >>> accumulator = SelectionAccumulator()
    >>> accumulator.update([True, True, False], [False, True, True], costs=[0.0, 4.0, 1.0])
    >>> found = accumulator.result()
    >>> found.answered, found.errors, round(found.cost.value, 3)
    (Proportion(successes=2, trials=3), Proportion(successes=1, trials=2), 1.667)
    """

    kind = "selection_accumulator"

    def __init__(self) -> None:
        super().__init__({}, {"rows": (), "answered": (), "errors": (), "costed": ()}, (2,))

    def update(
        self, answered: npt.ArrayLike, wrong: npt.ArrayLike, costs: npt.ArrayLike | None = None
    ) -> None:
        """Add rows: whether they are answered, whether the answer is wrong (or would be), and their cost.

        Shapes (n,).  Costs are numbers within 1e100 of 0; None: not known for these rows.
        """
        n = np.size(as_array(answered, "answered"))
        given = as_flags(answered, n_rows=n, name="answered")
        errors = given & as_flags(wrong, n_rows=n, name="wrong")
        if costs is not None:
            values = as_vector(costs, name="costs", low=-_LARGEST_COST, high=_LARGEST_COST)
            if len(values) != n:
                raise InvalidInput(
                    f"costs must have one entry for each of the {n} rows",
                    seen=len(values),
                    remedy="pass all for the same rows",
                )
            self._counts["costed"] += n
            self._sums.add([values.sum(), (values**2).sum()])
        self._counts["rows"] += n
        self._counts["answered"] += np.count_nonzero(given)
        self._counts["errors"] += np.count_nonzero(errors)

    def result(self) -> Selection:
        """Return the shares and the mean cost."""
        rows, answered, errors, costed = (
            int(self._counts[name]) for name in ("rows", "answered", "errors", "costed")
        )
        return Selection(
            Proportion(answered, rows), Proportion(errors, answered), Mean(costed, *self._sums.value.tolist())
        )

    def _consistent(self) -> bool:
        counts = self._counts
        ordered = counts["errors"] <= counts["answered"] <= counts["rows"] >= counts["costed"]
        squares = self._sums.value[1]
        return bool(ordered and squares >= 0 and (counts["costed"] > 0 or not self._sums.value.any()))


@dataclass(frozen=True)
class Selection:
    """What comes of a rule that answers some rows and hands the others over.

    Parameters
    ----------
    answered
        Share of rows that are answered.
    errors
        Share of the answered rows whose answer is wrong: the selective risk.
    cost
        Mean cost of a row, answered or not, over the rows whose cost is known.
    """

    answered: Proportion
    errors: Proportion
    cost: Mean
