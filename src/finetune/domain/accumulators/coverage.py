"""Coverage and size of prediction sets over rows that come in parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finetune.domain.accumulators.base import Accumulator, require_labels
from finetune.domain.accumulators.estimates import Mean, Proportion
from finetune.domain.calibration.confidence import blocks
from finetune.domain.checks import as_array, as_count, as_labels
from finetune.domain.errors import InvalidInput


class CoverageAccumulator(Accumulator):
    """How often prediction sets hold the true label, and how large they are.

    Parameters
    ----------
    n_labels
        Number of labels, K.

    Examples
    --------
    >>> accumulator = CoverageAccumulator(n_labels=3)
    >>> accumulator.update([[True, False, False], [True, True, False]], [0, 2])
    >>> found = accumulator.result()
    >>> found.share, found.share_of_label[1].value, found.size.value
    (Proportion(successes=1, trials=2), None, 1.5)
    """

    kind = "coverage_accumulator"
    setting_names = ("n_labels",)

    def __init__(self, n_labels: int) -> None:
        n_labels = as_count(n_labels, name="n_labels", minimum=2)
        of_label = (n_labels,)
        counts = {"rows": of_label, "covered": of_label, "size_sums": of_label, "size_squares": of_label}
        super().__init__({"n_labels": n_labels}, {**counts, "sizes": (n_labels + 1,)}, (0,))

    def update(self, sets: npt.ArrayLike, y_true: npt.ArrayLike) -> None:
        """Add prediction sets, bool of shape (n, K), and the true labels, shape (n,)."""
        members, k = as_array(sets, "sets"), self._settings["n_labels"]
        if members.ndim != 2 or members.dtype.kind != "b":
            raise InvalidInput(
                "sets must be booleans of the shape (rows, labels)",
                seen=(members.dtype.name, members.shape),
                remedy="pass what predict returns",
            )
        require_labels(members.shape[1], k)
        labels = as_labels(y_true, n_rows=len(members), n_labels=k, name="y_true")
        for block in blocks(*members.shape):
            part, truth = members[block], labels[block]
            sizes = np.count_nonzero(part, axis=1)
            held = truth[part[np.arange(len(part)), truth]]
            self._counts["rows"] += np.bincount(truth, minlength=k)
            self._counts["covered"] += np.bincount(held, minlength=k)
            self._counts["sizes"] += np.bincount(sizes, minlength=k + 1)
            for name, values in (("size_sums", sizes), ("size_squares", sizes**2)):
                of_label = np.bincount(truth, weights=values, minlength=k)
                self._counts[name] += of_label.astype(np.int64)

    def result(self) -> Coverage:
        """Return coverage and size, of all rows and of each label's."""
        return Coverage(**{name: tuple(counts.tolist()) for name, counts in self._counts.items()})

    def _consistent(self) -> bool:
        rows, covered, sums, squares, sizes = (
            self._counts[name] for name in ("rows", "covered", "size_sums", "size_squares", "sizes")
        )
        k = np.arange(len(sizes))
        totals = (rows.sum(), sums.sum(), squares.sum()) == (sizes.sum(), sizes @ k, sizes @ k**2)
        return totals and bool(np.all((covered <= rows) & (covered <= sums)))


@dataclass(frozen=True)
class Coverage:
    """Coverage and size of prediction sets.

    Parameters
    ----------
    rows, covered, size_sums, size_squares
        For each true label, its rows; those whose set holds it; the sum of the sizes of their sets, and of
        the squares of the sizes.
    sizes
        Rows by the size of their set, from 0 to K.
    """

    rows: tuple[int, ...]
    covered: tuple[int, ...]
    size_sums: tuple[int, ...]
    size_squares: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def share(self) -> Proportion:
        """Share of sets that hold the true label."""
        return Proportion(sum(self.covered), sum(self.rows))

    @property
    def share_of_label(self) -> tuple[Proportion, ...]:
        """The same among the rows of each true label."""
        return tuple(map(Proportion, self.covered, self.rows))

    @property
    def empty(self) -> Proportion:
        """Share of sets without any label."""
        return Proportion(self.sizes[0], sum(self.rows))

    @property
    def size(self) -> Mean:
        """Mean number of labels in a set."""
        return Mean(sum(self.rows), float(sum(self.size_sums)), float(sum(self.size_squares)))

    @property
    def size_of_label(self) -> tuple[Mean, ...]:
        """The same among the rows of each true label."""
        sums, squares = map(float, self.size_sums), map(float, self.size_squares)
        return tuple(map(Mean, self.rows, sums, squares))
