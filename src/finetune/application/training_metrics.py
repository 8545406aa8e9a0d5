"""What every trainer measures on the validation rows."""

from __future__ import annotations

import numpy as np

from finetune.domain.calibration import compute_brier_score, compute_ece, compute_log_loss, compute_mce
from finetune.domain.checks import FloatArray, IntArray


def measure_validation(log_probabilities: FloatArray, truth: IntArray) -> dict[str, float]:
    """Return log_loss, accuracy, ece, mce and brier.

    Parameters
    ----------
    log_probabilities
        Shape (n, K), normalised.
    truth
        Shape (n,): indices of the right outcomes.

    Examples
    --------
    >>> found = measure_validation(np.log([[0.8, 0.2], [0.4, 0.6]]), np.array([0, 1]))
    >>> found["accuracy"], round(found["brier"], 2)
    (1.0, 0.2)
    """
    probabilities = np.exp(log_probabilities)
    return {
        "log_loss": compute_log_loss(log_probabilities, truth, inputs="log_probabilities"),
        "accuracy": float((log_probabilities.argmax(axis=1) == truth).mean()),
        "ece": compute_ece(probabilities, truth),
        "mce": compute_mce(probabilities, truth),
        "brier": compute_brier_score(probabilities, truth),
    }
