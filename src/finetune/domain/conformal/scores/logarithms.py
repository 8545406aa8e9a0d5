"""Log-probabilities of logits."""

from __future__ import annotations

import numpy as np

from finetune.domain.checks import FloatArray, Numbers


def log_normaliser(ascending: Numbers) -> tuple[FloatArray, FloatArray]:
    """Greatest logit of each row, and the log of the sum of exp of all, less that logit.

    Parameters
    ----------
    ascending
        Shape (n, K): sorted rows of logits, so that the sum rounds the same way in any order of the labels.

    Returns
    -------
    tuple of FloatArray
        Both of the shape (n, 1): the log-probability of a logit is (logit - first) - second.
    """
    top = ascending[:, -1:].astype(np.float64)
    return top, np.log(np.exp(ascending - top).sum(axis=1, keepdims=True))


def sorted_logarithms(ascending: Numbers, inputs: str) -> FloatArray:
    """Log-probabilities, in double precision, of sorted rows of logits or log-probabilities."""
    if inputs == "log_probabilities":
        return ascending.astype(np.float64, copy=False)
    top, log_total = log_normaliser(ascending)
    return np.asarray((ascending - top) - log_total)
