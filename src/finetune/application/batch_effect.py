"""How much the score of a text depends, by rounding, on the texts that it is scored with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from finetune.application.certified import CertifiedBatchEffect
from finetune.application.ports import LabelScorer, LabelScores, ProgressTask

MEASURED_ROWS = 16
"""Rows that are scored a second time, alone."""
_LEAST = 1e-3


def measure_batch_effect(
    scorer: LabelScorer, texts: Sequence[str], together: LabelScores, task: ProgressTask
) -> CertifiedBatchEffect:
    """Score texts alone and compare.

    Parameters
    ----------
    scorer
        What scored them.
    texts
        At least one.
    together
        Their scores from a call with many others.
    task
        Advanced by one for each text.

    Returns
    -------
    CertifiedBatchEffect
        The largest differences that were seen; others may be larger.
    """
    alone = np.concatenate([scorer.score([text], task).log_probabilities for text in texts])
    p, q = np.exp(alone), np.exp(together.log_probabilities)
    likely = (p >= _LEAST) & (q >= _LEAST)
    difference = np.abs(np.where(likely, alone - together.log_probabilities, 0.0))
    return CertifiedBatchEffect(
        rows=len(texts),
        log_probability=float(difference.max()),
        total_variation=float(0.5 * np.abs(p - q).sum(axis=1).max()),
    )
