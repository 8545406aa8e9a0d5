"""The calibration map: fitted on validation rows, written into the certificate, and read from it."""

from __future__ import annotations

import math

import numpy as np

from finetune.application.certified import CertifiedMap, MapCandidate
from finetune.application.scored_rows import ScoredRows
from finetune.application.settings import CalibrationConfig
from finetune.domain.calibration import Temperature
from finetune.domain.calibration.maps import MAPS, CalibrationMap, IdentityMap, choose_map, map_from_dict
from finetune.domain.checks import FloatArray
from finetune.domain.errors import FinetuneError, InvalidInput

INPUTS = "log_probabilities"
OWN = "the model's own probabilities are used"


def fit_map(rows: ScoredRows, config: CalibrationConfig, rng: np.random.Generator) -> CertifiedMap:
    """Fit the map; none, with a note, where the rows determine none: the promises hold with any map.

    Parameters
    ----------
    rows
        Validation rows, which may be none.
    config
        Which map.
    rng
        Deals the rows into folds where the map is chosen by cross-validation.
    """
    if config.map == "none":
        return _certified(IdentityMap(), rows)
    if not len(rows):
        return _certified(IdentityMap(), rows, note=f"there are no validation rows; {OWN}")
    log_probs, truth = rows.scores.log_probabilities, rows.truth
    candidates: tuple[MapCandidate, ...] = ()
    try:
        if config.map == "auto":
            choice = choose_map(log_probs, truth, rng, inputs=INPUTS)
            fitted: CalibrationMap = choice.map
            candidates = tuple(
                MapCandidate(kind=row.name, log_loss=_finite(row.log_loss), failure=row.failure)
                for row in choice.table
            )
        else:
            fitted = MAPS[config.map].fit(log_probs, truth, inputs=INPUTS)
    except FinetuneError as error:
        note = f"the validation rows determine no calibration map ({error.what}); {OWN}"
        return _certified(IdentityMap(), rows, note=note)
    if isinstance(fitted, Temperature) and fitted.at_limit:
        # Where every validation row is right, the log loss falls for ever as the temperature goes to 0: that
        # says nothing about how sure the model may be, and would round all probabilities to 0 and 1.
        note = f"the validation rows determine no temperature; {OWN}"
        return _certified(IdentityMap(), rows, note=note, candidates=candidates)
    return _certified(fitted, rows, candidates=candidates)


def open_map(certified: CertifiedMap) -> CalibrationMap:
    """Return the map that a certificate describes; :class:`InvalidInput` where the record is none."""
    fitted = map_from_dict(certified.parameters)
    if fitted.kind != certified.kind:
        raise InvalidInput("the map is of another kind than its record", seen=(certified.kind, fitted.kind))
    return fitted


def apply_map(fitted: CalibrationMap, log_probs: FloatArray) -> FloatArray:
    """Return calibrated log-probabilities, shape (n, K).

    Raises
    ------
    InvalidInput
        The map has no value for a row: matrix scaling and Dirichlet calibration for a probability of 0.
    """
    try:
        return fitted.apply(log_probs, inputs=INPUTS)
    except InvalidInput as error:
        raise InvalidInput(
            f"the calibration map ({fitted.kind}) cannot be applied to a row: {error.what}",
            seen=error.seen,
            remedy="give probabilities above 0, or calibrate with -s calibration.map=temperature",
        ) from error


def _certified(
    fitted: CalibrationMap,
    rows: ScoredRows,
    *,
    note: str | None = None,
    candidates: tuple[MapCandidate, ...] = (),
) -> CertifiedMap:
    return CertifiedMap(
        kind=fitted.kind,
        parameters=fitted.to_dict(),
        n=len(rows),
        log_loss_before=_log_loss(IdentityMap(), rows),
        log_loss_after=_log_loss(fitted, rows),
        note=note,
        candidates=candidates,
    )


def _log_loss(fitted: CalibrationMap, rows: ScoredRows) -> float | None:
    if not len(rows):
        return None
    log_probs = apply_map(fitted, rows.scores.log_probabilities)
    return _finite(float(-log_probs[np.arange(len(rows)), rows.truth].mean()))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
