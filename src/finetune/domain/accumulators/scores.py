"""Proper scores over rows that come in parts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from finetune.domain.accumulators.base import Accumulator, require_labels
from finetune.domain.accumulators.estimates import Mean
from finetune.domain.calibration.scoring import brier_scores, log_losses
from finetune.domain.checks import FloatArray, as_array, as_choice, as_count
from finetune.domain.row_reader import INPUTS


class _Scores(Accumulator):
    """Rows, how many of them score +inf, and the sums of the others' scores and squares."""

    def __init__(self, settings: dict[str, int | str | None]) -> None:
        super().__init__(settings, {"rows": (), "infinite": ()}, (2,))

    def _add(self, parts: Iterable[FloatArray]) -> None:
        for scores in parts:
            finite = scores[np.isfinite(scores)]
            self._counts["rows"] += len(scores)
            self._counts["infinite"] += len(scores) - len(finite)
            self._sums.add([finite.sum(), (finite**2).sum()])

    def result(self) -> Mean:
        """Return the mean; not estimable before the first row."""
        rows, infinite = int(self._counts["rows"]), int(self._counts["infinite"])
        total, squares = self._sums.value.tolist() if not infinite else (np.inf, np.inf)
        return Mean(rows, total, squares)

    def _consistent(self) -> bool:
        rows, infinite = self._counts["rows"], self._counts["infinite"]
        sums = self._sums.value
        return bool(infinite <= rows and np.all(sums >= 0) and (rows > infinite or not sums.any()))


class BrierAccumulator(_Scores):
    """Brier score.

    Parameters
    ----------
    n_labels
        K for rows over labels, shape (n, K), scored in [0, 2].  None for the probability of one event,
        shape (n,), scored in [0, 1].

    Examples
    --------
    >>> accumulator = BrierAccumulator()
    >>> accumulator.update([0.1, 0.9, 0.8, 0.3], [0, 1, 1, 0])
    >>> round(accumulator.result().value, 4)
    0.0375
    """

    kind = "brier_accumulator"
    setting_names = ("n_labels",)

    def __init__(self, n_labels: int | None = None) -> None:
        if n_labels is not None:
            n_labels = as_count(n_labels, name="n_labels", minimum=2)
        super().__init__({"n_labels": n_labels})

    def update(self, y_prob: npt.ArrayLike, y_true: npt.ArrayLike) -> None:
        """Add rows, as in :func:`~finetune.domain.calibration.compute_brier_score`."""
        array = as_array(y_prob, "y_prob")
        require_labels(array.shape[1] if array.ndim == 2 else 1, self._settings["n_labels"] or 1)
        self._add(brier_scores(array, y_true))


class LogLossAccumulator(_Scores):
    """Log loss, in nats; +inf as soon as a true label was given probability 0.

    Parameters
    ----------
    inputs
        ``"probabilities"``, ``"log_probabilities"`` or ``"logits"``.

    Examples
    --------
    >>> accumulator = LogLossAccumulator()
    >>> accumulator.update([[0.9, 0.1], [0.5, 0.5]], [0, 1])
    >>> round(accumulator.result().value, 4)
    0.3993
    """

    kind = "log_loss_accumulator"
    setting_names = ("inputs",)

    def __init__(self, inputs: str = "probabilities") -> None:
        super().__init__({"inputs": as_choice(inputs, INPUTS, name="inputs")})

    def update(self, y_prob: npt.ArrayLike, y_true: npt.ArrayLike) -> None:
        """Add rows, as in :func:`~finetune.domain.calibration.compute_log_loss`."""
        self._add(log_losses(y_prob, y_true, inputs=self._settings["inputs"]))
