"""Bootstrap intervals of calibration errors and proper scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from finetune.domain.calibration.bin_errors import BINNED_ERRORS
from finetune.domain.calibration.bins import BINNINGS
from finetune.domain.calibration.confidence import checked_pair, joined_confidence
from finetune.domain.calibration.resampling import EventDraws, LabelDraws, values_of
from finetune.domain.calibration.scoring import brier_scores, log_losses
from finetune.domain.checks import as_array, as_choice, as_count, as_generator, as_level
from finetune.domain.errors import InvalidInput
from finetune.domain.statistics.intervals import Interval
from finetune.domain.statistics.resampling import bootstrap_mean_interval, percentile_interval

SCORES = {"brier": brier_scores, "log_loss": log_losses}


def error_intervals(
    y_prob: npt.ArrayLike,
    y_true: npt.ArrayLike,
    rng: np.random.Generator,
    n_bins: int = 10,
    n_resamples: int = 1000,
    level: float = 0.95,
    *,
    errors: Sequence[str] = ("ece", "mce"),
    binning: str = "width",
) -> dict[str, Interval]:
    """Percentile bootstrap intervals of calibration errors and scores.

    What :func:`~finetune.domain.statistics.bootstrap_interval` gives for each, but for rounding, with every
    row put into its bin once; errors of the same bins share their draws of rows.

    Parameters
    ----------
    y_prob, y_true, n_bins, binning
        As in :func:`~finetune.domain.calibration.reliability_bins`.  The ends of bins of equal mass stay
        where the rows at hand have put them.
    rng, n_resamples, level
        As in :func:`~finetune.domain.statistics.bootstrap_interval`.
    errors
        Names: ``"brier"``, ``"log_loss"``, and those of :func:`~finetune.domain.calibration.null_band`.

    Returns
    -------
    dict
        An interval for each name.  The errors are biased upwards, and more so on a resample: an interval
        can lie above the value itself.

    Raises
    ------
    InvalidInput
        If the input is not as above, or a log loss is infinite.
    InsufficientData
        If an error is not estimable on some draw.

    Notes
    -----
    Above 32768 rows the errors of one event a row, and the smooth error always, are computed from
    confidences that are rounded to 1/1024 within their bin, which no interval shows.

    References
    ----------
    Efron, B. and Tibshirani, R. J. (1993). An Introduction to the Bootstrap, ch. 13.

    Examples
    --------
    >>> found = error_intervals(np.full(50, 0.5), [0, 1] * 25, np.random.default_rng(0))
    >>> found["ece"] == found["mce"]  # there is one bin: both are |Binomial(50, 1/2) / 50 - 1/2|
    True
    >>> found["ece"].low < 0.02, 0.1 < found["ece"].high < 0.2
    (True, True)
    """
    if not isinstance(errors, (list, tuple)):
        raise InvalidInput("errors must be a list of names", seen=errors, remedy="pass for example ['ece']")
    names = [as_choice(error, {*BINNED_ERRORS, *SCORES}, name="errors") for error in errors]
    as_choice(binning, BINNINGS, name="binning")
    n_bins, level, rng = as_count(n_bins, name="n_bins"), as_level(level, name="level"), as_generator(rng)
    n_resamples, array = as_count(n_resamples, name="n_resamples"), as_array(y_prob, "y_prob")
    found: dict[str, Interval] = {}
    shared: dict[tuple[str, str], list[str]] = {}
    for name in names:
        if name in SCORES:
            scores = np.concatenate(list(SCORES[name](array, y_true)))
            found[name] = bootstrap_mean_interval(scores, rng, n_resamples, level)
        else:
            of = BINNED_ERRORS[name]
            events = "top" if array.ndim == 1 and of.events == "labels" else of.events
            shared.setdefault((events, of.binning or binning), []).append(name)
    for (events, bins), together in shared.items():
        draws: EventDraws | LabelDraws
        if events == "labels":
            draws = LabelDraws(*checked_pair(array, y_true), n_bins, bins)
        else:
            draws = EventDraws(*joined_confidence(array, y_true), events, n_bins, bins)
        values = values_of(together, draws.bootstrap(rng, n_resamples))
        found |= {name: percentile_interval(values[i], level) for i, name in enumerate(together)}
    return {name: found[name] for name in names}
