"""What every trainer measures on the validation rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from finetune.application.config import ProjectConfig
from finetune.domain.accumulators import (
    AccuracyAccumulator,
    BrierAccumulator,
    CoverageAccumulator,
    LogLossAccumulator,
    ReliabilityAccumulator,
    SelectionAccumulator,
)
from finetune.domain.calibration.confidence import blocks
from finetune.domain.calibration.error_noise import ece_noise
from finetune.domain.checks import BoolArray, FloatArray, IntArray
from finetune.domain.conformal import conformal_quantile
from finetune.domain.errors import InsufficientData

Measures = Callable[[FloatArray, IntArray], dict[str, float]]

# Of the halves: the same rows calibrate at each evaluation, so that the measures of two of them compare.
_SEED = 0


def measure_validation(
    log_probabilities: FloatArray,
    truth: IntArray,
    *,
    confidence_threshold: float = 0.7,
    alpha: float = 0.1,
) -> dict[str, float]:
    """Measure probabilities, what is answered above a confidence, and prediction sets.

    Parameters
    ----------
    log_probabilities
        Shape (n, K), normalised; read in parts.
    truth
        Shape (n,): indices of the right outcomes.
    confidence_threshold
        Least probability of an outcome with which it is given as the answer.
    alpha
        In (0, 1): how often prediction sets may miss the right outcome.

    Returns
    -------
    dict
        ``log_loss`` in nats, ``accuracy``, ``ece``, ``mce``, ``brier``, and ``ece_noise``: how far chance in
        the labels can have moved ``ece`` (:func:`~finetune.domain.calibration.error_noise.ece_noise`).
        ``abstention_rate``, the share of rows whose greatest probability is below the threshold, and
        ``selective_risk``, the share of wrong answers to the others; not there where nothing is answered.
        ``coverage`` and ``mean_set_size`` of prediction sets (LAC) with a threshold from one half of the rows
        on the other half.  Which rows calibrate is drawn once for each n, whatever order they are in.  With
        fewer than 1 / alpha - 1 of them every set holds all outcomes.

    Raises
    ------
    InsufficientData
        There are no rows.
    InvalidInput
        The rows are not as above.

    Notes
    -----
    Best or worst over evaluations are no estimates for new rows, and the sets here are no promise: those that
    are made come from calibration rows.

    Examples
    --------
    >>> found = measure_validation(np.log([[0.8, 0.2], [0.4, 0.6]]), np.array([0, 1]))
    >>> found["accuracy"], round(found["brier"], 2), found["abstention_rate"], found["mean_set_size"]
    (1.0, 0.2, 0.5, 2.0)
    """
    if not len(truth):
        raise InsufficientData("there are no validation rows to measure", remedy="prepare some")
    log_loss, accuracy = LogLossAccumulator("log_probabilities"), AccuracyAccumulator()
    bins, brier = ReliabilityAccumulator(), BrierAccumulator(log_probabilities.shape[1])
    selection = SelectionAccumulator()
    for part in blocks(*log_probabilities.shape):
        logs, labels = log_probabilities[part], truth[part]
        probabilities, predicted = np.exp(logs), logs.argmax(axis=1)
        log_loss.update(logs, labels)
        accuracy.update(predicted, labels)
        bins.update(probabilities, labels)
        brier.update(probabilities, labels)
        selection.update(probabilities.max(axis=1) >= confidence_threshold, predicted != labels)
    reliability, selected = bins.result(), selection.result()
    assert reliability is not None
    sets = _prediction_sets(log_probabilities, truth, alpha).result()
    answered = selected.answered.value
    found = {
        "log_loss": log_loss.result().value,
        "accuracy": accuracy.result().value,
        "ece": reliability.ece,
        "ece_noise": ece_noise(reliability),
        "mce": reliability.mce,
        "brier": brier.result().value,
        "abstention_rate": None if answered is None else 1.0 - answered,
        "selective_risk": selected.errors.value,
        "coverage": sets.share.value,
        "mean_set_size": sets.size.value,
    }
    return {name: value for name, value in found.items() if value is not None}


def measures_of(config: ProjectConfig) -> Measures:
    """Return :func:`measure_validation` with the confidence threshold and the alpha of a configuration."""
    return partial(
        measure_validation,
        confidence_threshold=config.abstention_loss.confidence_threshold,
        alpha=config.conformal.alpha,
    )


def _prediction_sets(log_probabilities: FloatArray, truth: IntArray, alpha: float) -> CoverageAccumulator:
    """Calibrate on one half of the rows, and count on the other."""
    n, k = log_probabilities.shape
    calibrates: BoolArray = np.zeros(n, np.bool_)
    calibrates[np.random.default_rng(_SEED).permutation(n)[: n // 2]] = True
    rows = np.flatnonzero(calibrates)
    scores = -log_probabilities[rows, truth[rows]]
    threshold = conformal_quantile(scores, alpha) if len(rows) else math.inf
    counted = CoverageAccumulator(k)
    for part in blocks(n, k):
        tests = ~calibrates[part]
        if tests.any():
            counted.update(-log_probabilities[part][tests] <= threshold, truth[part][tests])
    return counted
