"""What training rows count, and how often they are seen, where labels are not equally frequent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from finetune.application.ports.training import TrainingJob
from finetune.domain.checks import FloatArray, IntArray
from finetune.domain.errors import InvalidInput
from finetune.domain.labels import LabelSet, closest


class Balance(NamedTuple):
    """Weights of rows in the loss, and their shares in an epoch (None: each is seen once), ``(n,)`` each."""

    weights: list[float]
    shares: list[float] | None


def balance_rows(job: TrainingJob) -> Balance:
    """Weigh the training rows as ``training.class_weights`` and ``training.sampling`` say.

    Raises
    ------
    InvalidInput
        A weight is given for what is no label, or no row is left with a weight above 0.
    """
    settings = job.config.training
    truth = np.array([job.labels.index(str(row.label)) for row in job.train], dtype=np.int64)
    weights = class_weights(settings.class_weights, job.labels, truth)[truth]
    if not weights.sum() > 0:
        raise InvalidInput(
            "no training row has a weight above 0",
            where="training.class_weights",
            seen=settings.class_weights,
            remedy="give a weight above 0 to a label that has rows",
        )
    # On average a row counts once, so that the learning rate means what it does without weights.
    weights = weights / weights.mean()
    shares = None
    if settings.sampling == "balanced":
        shares = balanced_weights(truth, len(job.labels.outcomes))[truth].tolist()
    return Balance(weights.tolist(), shares)


def class_weights(wanted: str | Mapping[str, float], labels: LabelSet, truth: IntArray) -> FloatArray:
    """Return the weight of each outcome, ``(K,)``: 1, balanced, or as given (1 for labels left out)."""
    if wanted == "balanced":
        return balanced_weights(truth, len(labels.outcomes))
    weights = np.ones(len(labels.outcomes))
    for name, weight in () if isinstance(wanted, str) else wanted.items():
        if name not in labels.outcomes:
            near = closest(name, labels.outcomes)
            raise InvalidInput(
                "this is no label",
                where="training.class_weights",
                seen=name,
                remedy=f"did you mean {near!r}?" if near else f"use some of {', '.join(labels.outcomes)}",
            )
        weights[labels.index(name)] = weight
    return weights


def balanced_weights(truth: IntArray, n_labels: int) -> FloatArray:
    """Return weights with which all labels that occur count alike, and the rows once on average.

    Parameters
    ----------
    truth
        Shape (n,): indices of labels.
    n_labels
        K.

    Returns
    -------
    FloatArray
        Shape (K,): n / (labels that occur x rows of the label); 0 for a label without rows.

    References
    ----------
    King, G., Zeng, L. (2001). Logistic regression in rare events data. Political Analysis 9, sec. 4.

    Examples
    --------
    >>> balanced_weights(np.array([0, 0, 0, 2]), 3).round(3).tolist()
    [0.667, 0.0, 2.0]
    """
    counts = np.bincount(truth, minlength=n_labels)
    some = np.maximum(counts, 1)
    return np.where(counts > 0, len(truth) / (np.count_nonzero(counts) * some), 0.0)
