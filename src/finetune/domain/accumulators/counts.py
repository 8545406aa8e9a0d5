"""Accuracy and confusions over rows that come in parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finetune.domain.accumulators.base import Accumulator
from finetune.domain.accumulators.estimates import Proportion
from finetune.domain.checks import IntArray, as_count, as_labels


class AccuracyAccumulator(Accumulator):
    """Share of rows whose predicted label is the true one.

    Examples
    --------
    >>> accumulator = AccuracyAccumulator()
    >>> accumulator.update([0, 1, 2], [0, 1, 1])
    >>> accumulator.result()
    Proportion(successes=2, trials=3)
    """

    kind = "accuracy_accumulator"

    def __init__(self) -> None:
        super().__init__({}, {"rows": (), "correct": ()}, (0,))

    def update(self, predicted: npt.ArrayLike, y_true: npt.ArrayLike) -> None:
        """Add predicted and true label indices, shape (n,) each."""
        labels = as_labels(predicted, n_rows=None, n_labels=None, name="predicted")
        truth = as_labels(y_true, n_rows=len(labels), n_labels=None, name="y_true")
        self._counts["rows"] += len(labels)
        self._counts["correct"] += np.count_nonzero(labels == truth)

    def result(self) -> Proportion:
        """Return the accuracy."""
        return Proportion(int(self._counts["correct"]), int(self._counts["rows"]))

    def _consistent(self) -> bool:
        return bool(self._counts["correct"] <= self._counts["rows"])


class ConfusionAccumulator(Accumulator):
    """How often each true label was predicted as each label.

    Parameters
    ----------
    n_labels
        Number of labels, K.

    Examples
    --------
    >>> accumulator = ConfusionAccumulator(n_labels=2)
    >>> accumulator.update([0, 1, 1], [0, 1, 0])
    >>> accumulator.result().matrix.tolist(), accumulator.result().recall(0)
    ([[1, 1], [0, 1]], Proportion(successes=1, trials=2))
    """

    kind = "confusion_accumulator"
    setting_names = ("n_labels",)

    def __init__(self, n_labels: int) -> None:
        n_labels = as_count(n_labels, name="n_labels", minimum=2)
        super().__init__({"n_labels": n_labels}, {"matrix": (n_labels, n_labels)}, (0,))

    def update(self, predicted: npt.ArrayLike, y_true: npt.ArrayLike) -> None:
        """Add predicted and true label indices, shape (n,) each."""
        k = self._settings["n_labels"]
        truth = as_labels(y_true, n_rows=None, n_labels=k, name="y_true")
        labels = as_labels(predicted, n_rows=len(truth), n_labels=k, name="predicted")
        self._counts["matrix"] += np.bincount(truth * k + labels, minlength=k * k).reshape(k, k)

    def result(self) -> Confusion:
        """Return the table of counts."""
        return Confusion(self._counts["matrix"].copy())

    def _consistent(self) -> bool:
        return True  # any table of counts can come about


@dataclass(frozen=True)
class Confusion:
    """Counts of rows by true label (first axis) and predicted label (second axis), shape (K, K)."""

    matrix: IntArray

    @property
    def accuracy(self) -> Proportion:
        """Share of rows that are predicted right."""
        return Proportion(int(np.trace(self.matrix)), int(self.matrix.sum()))

    def recall(self, label: int) -> Proportion:
        """Share of the rows of this label that are predicted as it."""
        return self._share(label, axis=1)

    def precision(self, label: int) -> Proportion:
        """Share of the rows predicted as this label that are of it."""
        return self._share(label, axis=0)

    def _share(self, label: int, axis: int) -> Proportion:
        (k,) = as_labels([label], n_rows=1, n_labels=len(self.matrix), name="label")
        return Proportion(int(self.matrix[k, k]), int(self.matrix.sum(axis=axis)[k]))
