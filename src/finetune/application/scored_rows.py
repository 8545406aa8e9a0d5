"""Labelled rows with what a model says of them: what every guarantee is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune.application.ports import LabelScores
from finetune.domain.checks import FloatArray, IntArray
from finetune.domain.splits import split_calibration


@dataclass(frozen=True)
class ScoredRows:
    """Rows and their scores, whether they come from a model that was loaded or from a file.

    Parameters
    ----------
    ids
        n different names.
    truth
        Shape (n,): column of the right outcome.
    scores
        What the model says.
    posterior
        Shape (n, K): the true probabilities, where the rows were generated from them.
    """

    ids: Sequence[str]
    truth: IntArray
    scores: LabelScores
    posterior: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, outcomes: Sequence[str]) -> list[dict[str, Any]]:
        """Return plain rows from which every later number can be computed without the model."""
        return [
            {
                "id": name,
                "label": outcomes[column],
                "log_probabilities": log_probs.tolist(),
                "label_mass": float(mass),
                "removed_chars": int(removed),
                "left_out": float(left_out),
            }
            for name, column, log_probs, mass, removed, left_out in zip(
                self.ids, self.truth, *self.scores, strict=True
            )
        ]

    def part(self, chosen: Sequence[int] | IntArray) -> ScoredRows:
        """Return some of the rows."""
        index = np.asarray(chosen, dtype=np.int64)
        return ScoredRows(
            [self.ids[i] for i in index],
            self.truth[index],
            self.scores.part(index),
            None if self.posterior is None else self.posterior[index],
        )


def halves(calibration: ScoredRows, seed: int) -> tuple[ScoredRows, ScoredRows]:
    """Divide the calibration rows by id: those for the sets, and those for the risk.

    Not by text: pinned rows may repeat a text, and all copies in one half would count as one draw.
    """
    mask = split_calibration(calibration.ids, seed)
    return calibration.part(np.flatnonzero(mask)), calibration.part(np.flatnonzero(~mask))
