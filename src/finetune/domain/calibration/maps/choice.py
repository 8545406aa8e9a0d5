"""Choice of a calibration map by cross-validated log loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.domain.calibration.maps.registry import MAPS, CalibrationMap
from finetune.domain.calibration.maps.rows import Scale, as_fitting_rows, scale_of
from finetune.domain.checks import FloatArray, IntArray, as_choice, as_count, as_generator
from finetune.domain.errors import FinetuneError, InsufficientData, InvalidInput

Fitter = Callable[[FloatArray, IntArray], CalibrationMap]


def choose_map(
    rows: npt.ArrayLike,
    labels: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    candidates: Sequence[str] | Mapping[str, Fitter] | None = None,
    n_folds: int = 5,
    inputs: str = "logits",
) -> MapChoice:
    """Fit the simplest map that is not clearly worse than the best, by cross-validated log loss.

    The rows are dealt into folds at random, each label evenly.  Every row is scored by maps fitted on the
    other folds.  The choice is the first candidate whose mean loss is above the least one by no more than one
    standard error of that difference, taken over the rows; it is then fitted on all rows.

    Parameters
    ----------
    rows
        Shape (n, K).
    labels
        Shape (n,): label indices.
    rng
        Deals the rows into folds.
    candidates
        Names out of :data:`MAPS`, or names of your own with functions of (rows, labels), from the simplest
        to the least simple.  None: all of :data:`MAPS`; matrix scaling only for logits, for on
        log-probabilities it is Dirichlet calibration.
    n_folds
        In [2, n].
    inputs
        ``"logits"`` (log-probabilities are logits), ``"log_probabilities"`` or ``"probabilities"``.
        Functions of your own get logits, or else log-probabilities.

    Returns
    -------
    MapChoice
        The fitted map, and the losses of all candidates; those that could not be fitted say why.

    Raises
    ------
    InvalidInput
        If the input is not as above.
    InsufficientData
        If there are fewer rows than folds, or no candidate has a finite loss.

    Notes
    -----
    The least loss of several candidates is too low an estimate of the loss on new rows.  Use validation rows,
    never those that thresholds are calibrated on.  Costs n_folds + 1 fits of each candidate: at n = 100,000
    and K = 150 minutes, nearly all of them for the maps with K^2 numbers.

    References
    ----------
    Hastie, Tibshirani, Friedman (2009). The Elements of Statistical Learning, sec. 7.10 (one-standard-error
    rule; the standard error here is that of the paired difference).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> logits = rng.normal(0, 2, size=(500, 3))
    >>> labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)  # softmax(logits) is the truth
    >>> choose_map(4 * logits, labels, rng, candidates=["identity", "temperature", "vector"]).name
    'temperature'
    """
    logits, truth = as_fitting_rows(rows, labels, inputs)
    rng, n_folds = as_generator(rng), as_count(n_folds, name="n_folds", minimum=2)
    scale = scale_of(inputs)
    fitters = _fitters(candidates, scale)
    if len(truth) < n_folds:
        raise InsufficientData(
            "there are fewer rows than folds", seen=(len(truth), n_folds), remedy="collect more rows"
        )
    fold = _folds(truth, n_folds, rng)
    losses: dict[str, FloatArray] = {}
    failures: dict[str, str] = {}
    for name, fit in fitters.items():
        try:
            losses[name] = _held_out_losses(logits, truth, fold, fit, scale)
        except FinetuneError as error:
            # That rows do not suit a candidate is part of the answer; any other exception is a defect.
            failures[name] = str(error)
    best = min(losses, key=lambda name: float(losses[name].mean()), default=None)
    if best is None or not np.isfinite(losses[best]).all():
        raise InsufficientData(
            "no candidate has a finite cross-validated log loss",
            seen=failures or None,
            remedy="add one that gives every label a probability above 0, for example histogram",
        )
    table = tuple(
        CandidateScore(name, None, None, None, None, failures[name])
        if name in failures
        else _score(name, losses[name], losses[best])
        for name in fitters
    )
    chosen = next(
        row.name
        for row in table
        if row.excess is not None and row.excess_error is not None and row.excess <= row.excess_error
    )
    return MapChoice(fitters[chosen](logits, truth), chosen, table, len(truth), n_folds)


class CandidateScore(NamedTuple):
    """Cross-validated log loss of one candidate, in nats.

    ``log_loss`` is the mean over rows and may be +inf; ``excess`` is what it is above the least one.  Each
    has its standard error.  None is what is not estimable; ``failure`` says why the candidate has no loss.
    """

    name: str
    log_loss: float | None
    standard_error: float | None
    excess: float | None
    excess_error: float | None
    failure: str | None


@dataclass(frozen=True)
class MapChoice:
    """The chosen map and what it was compared with.

    Parameters
    ----------
    map
        Fitted on all rows.
    name
        Of the candidate.
    table
        All candidates, in the order in which they were given.
    n_rows, n_folds
        Rows, and folds that they were dealt into.
    """

    map: CalibrationMap
    name: str
    table: tuple[CandidateScore, ...]
    n_rows: int
    n_folds: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready record; an infinite loss is written as ``"+inf"``."""
        table = [row._asdict() for row in self.table]
        for row in table:
            if row["log_loss"] == math.inf:
                row["log_loss"] = "+inf"
        return {
            "kind": "map_choice",
            "version": 1,
            "name": self.name,
            "map": self.map.to_dict(),
            "n_rows": self.n_rows,
            "n_folds": self.n_folds,
            "candidates": table,
        }


def _fitters(candidates: Sequence[str] | Mapping[str, Fitter] | None, scale: Scale) -> dict[str, Fitter]:
    if candidates is None:
        candidates = [name for name in MAPS if name != "matrix" or scale == "logits"]
    if isinstance(candidates, Mapping) and all(map(callable, candidates.values())):
        fitters = dict(candidates)
    elif not isinstance(candidates, (list, tuple)):
        raise InvalidInput(
            "candidates must be a list of names, or functions by name",
            seen=candidates,
            remedy="pass for example ['identity', 'temperature']",
        )
    else:
        names = [as_choice(name, MAPS, name="candidates") for name in candidates]
        fitters = {name: partial(MAPS[name].fit, inputs=scale) for name in names}
    if not fitters:
        raise InvalidInput("there are no candidates", remedy="name at least one, for example identity")
    return fitters


def _folds(truth: IntArray, n_folds: int, rng: np.random.Generator) -> IntArray:
    fold = np.empty(len(truth), dtype=np.int64)
    fold[np.lexsort((rng.permutation(len(truth)), truth))] = np.arange(len(truth)) % n_folds
    return fold


def _held_out_losses(
    logits: FloatArray, truth: IntArray, fold: IntArray, fit: Fitter, scale: Scale
) -> FloatArray:
    losses = np.empty(len(truth))
    for part in range(int(fold.max()) + 1):
        held_out = fold == part
        log_probs = fit(logits[~held_out], truth[~held_out]).apply(logits[held_out], inputs=scale)
        losses[held_out] = -log_probs[np.arange(len(log_probs)), truth[held_out]]
    return losses


def _score(name: str, losses: FloatArray, best: FloatArray) -> CandidateScore:
    if not np.isfinite(losses).all():
        return CandidateScore(name, math.inf, None, None, None, None)
    excess = losses - best
    return CandidateScore(
        name,
        float(losses.mean()),
        _standard_error(losses),
        float(excess.mean()),
        _standard_error(excess),
        None,
    )


def _standard_error(values: FloatArray) -> float:
    return float(values.std(ddof=1)) / math.sqrt(len(values))
