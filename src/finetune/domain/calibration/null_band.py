"""How large a calibration error looks when there is none."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.domain.calibration.bin_errors import BINNED_ERRORS
from finetune.domain.calibration.bins import BINNINGS
from finetune.domain.calibration.confidence import claimed_confidence
from finetune.domain.calibration.resampling import EventDraws, LabelDraws, values_of
from finetune.domain.checks import as_array, as_choice, as_count, as_generator, as_level
from finetune.domain.probabilities import checked_rows


def null_band(
    y_prob: npt.ArrayLike,
    rng: np.random.Generator,
    n_bins: int = 10,
    n_resamples: int = 1000,
    level: float = 0.95,
    *,
    error: str = "ece",
    binning: str = "width",
) -> NullBand:
    """Simulate the error that a perfectly calibrated model with these very probabilities would show.

    Labels are drawn from the model's own probabilities, so an observed error inside the band is no evidence
    of miscalibration.

    Parameters
    ----------
    y_prob
        Shape (n, K) or (n,), as in :func:`~finetune.domain.calibration.reliability_bins`.
    rng
        Source of the labels.
    n_bins, binning
        As there.
    n_resamples
        Number of simulated label vectors.
    level
        Probability in (0, 1) between the two ends.
    error
        ``"ece"``, ``"mce"``, ``"rmsce"``, ``"debiased_rmsce"`` or ``"smooth_ece"`` of the predicted event;
        ``"classwise_ece"``, ``"ace"``, or of the Brier score ``"reliability"``, ``"resolution"`` or
        ``"uncertainty"``, over all labels.

    Returns
    -------
    NullBand
        Quantiles and mean of the simulated errors.

    Raises
    ------
    InvalidInput
        If the input is not as above.
    InsufficientData
        If the error is not estimable from these rows.

    References
    ----------
    Bröcker, J. and Smith, L. A. (2007). Increasing the reliability of reliability diagrams. Weather and
    Forecasting 22 (consistency bars).

    Examples
    --------
    >>> band = null_band(np.full(100, 0.5), np.random.default_rng(0))
    >>> 0.03 < band.mean < 0.05  # mean of |Binomial(100, 1/2) / 100 - 1/2| = 0.0398
    True
    """
    of = BINNED_ERRORS[as_choice(error, BINNED_ERRORS, name="error")]
    binning = of.binning or as_choice(binning, BINNINGS, name="binning")
    n_bins, level, rng = as_count(n_bins, name="n_bins"), as_level(level, name="level"), as_generator(rng)
    n_resamples, array = as_count(n_resamples, name="n_resamples"), as_array(y_prob, "y_prob")
    draws: EventDraws | LabelDraws
    if of.events == "labels" and array.ndim != 1:
        draws = LabelDraws(checked_rows(array, name="y_prob"), None, n_bins, binning)
    else:
        draws = EventDraws(claimed_confidence(array), None, of.events, n_bins, binning)
    (errors,) = values_of((error,), draws.null(rng, n_resamples))
    low, median, high = np.quantile(errors, [(1 - level) / 2, 0.5, (1 + level) / 2])
    return NullBand(float(low), float(median), float(high), float(errors.mean()), level)


class NullBand(NamedTuple):
    """Quantiles and mean of an error under perfect calibration; ``low`` and ``high`` hold ``level`` of it."""

    low: float
    median: float
    high: float
    mean: float
    level: float
