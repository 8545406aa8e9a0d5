"""What all maps share: rows on the scale of logits, the checks of a fit, the parameters of a record."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from finetune.domain.checks import (
    FloatArray,
    IntArray,
    as_choice,
    as_floats,
    as_labels,
    log_softmax,
)
from finetune.domain.errors import InvalidInput
from finetune.domain.probabilities import as_rows, to_log
from finetune.domain.row_reader import row_blocks

Scale = Literal["logits", "log_probabilities"]

# Far beyond any model; squares of it, and sums of those over many rows, are still finite.
LIMIT = 1e100
# Fewer rows of logits might add up to 1 by chance, as in a made-up example.
_ROWS_TO_TELL = 20
_ROUNDING = 1e-4


class MapRecord(BaseModel):
    """What the records of all maps have in common; every number in them is finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class FittingRows(NamedTuple):
    """Checked input of a fit: logits, shape (n, K), and the true labels, shape (n,)."""

    logits: FloatArray
    truth: IntArray


def as_logits(rows: npt.ArrayLike, inputs: str) -> FloatArray:
    """Check rows and return them as logits, shape (n, K); log-probabilities are logits, log 0 is -inf."""
    checked = as_rows(rows, inputs=inputs, name="rows")
    return checked if inputs == "logits" else to_log(checked, inputs)


def as_fitting_rows(rows: npt.ArrayLike, labels: npt.ArrayLike, inputs: str) -> FittingRows:
    """Check what a map is to be fitted on."""
    logits = as_logits(rows, inputs)
    if inputs == "logits" and len(logits) >= _ROWS_TO_TELL and _all_probabilities(logits):
        # A map fitted to them as logits is wrong, and nothing would show it.
        raise InvalidInput(
            "every row lies in [0, 1] and sums to 1: these are probabilities, not logits",
            where="rows",
            seen=logits[0].tolist(),
            remedy='pass inputs="probabilities", here and to apply',
        )
    return FittingRows(logits, as_labels(labels, n_rows=len(logits), n_labels=logits.shape[1]))


def _all_probabilities(logits: FloatArray) -> bool:
    inside = logits.min() >= 0.0 and logits.max() <= 1.0
    return bool(inside and np.abs(logits.sum(axis=1) - 1.0).max() <= _ROUNDING)


def bounded(logits: FloatArray) -> FloatArray:
    """Keep what is finite within +-1e100, so that no product overflows; -inf stays."""
    if logits.min() >= -LIMIT and logits.max() <= LIMIT:
        return logits
    return np.where(np.isneginf(logits), -np.inf, np.clip(logits, -LIMIT, LIMIT))


def scale_of(inputs: str) -> Scale:
    """Scale on which a map of these inputs works: logits stay, probabilities become log-probabilities."""
    return "logits" if inputs == "logits" else "log_probabilities"


def as_scale(value: str) -> Scale:
    """Check the scale of a map."""
    return cast(Scale, as_choice(value, ("logits", "log_probabilities"), name="scale"))


def as_features(rows: npt.ArrayLike, inputs: str, scale: Scale) -> FloatArray:
    """Logits as they are, or log-probabilities from whatever came in, bounded; shape (n, K)."""
    logits = bounded(as_logits(rows, inputs))
    if scale == "log_probabilities":
        return log_softmax(logits)
    if inputs != "logits":
        raise InvalidInput(
            "the map was fitted on logits, which probabilities do not determine",
            seen=inputs,
            remedy='pass the logits, or fit the map with inputs="log_probabilities"',
        )
    return logits


def reject_excluded_truth(fitting: FittingRows) -> None:
    """Refuse rows whose true label is at -inf: no map that keeps it there gives them a finite loss."""
    impossible = np.isneginf(fitting.logits[np.arange(len(fitting.truth)), fitting.truth])
    if impossible.any():
        row = int(impossible.argmax())
        raise InvalidInput(
            "the true label has probability 0, which this map cannot mend",
            where=f"rows[{row}]",
            seen=fitting.logits[row].tolist(),
            remedy="pass log-probabilities or logits in full precision, or drop the row",
        )


def check_labels(rows: FloatArray, n_labels: int) -> FloatArray:
    """Check that rows have as many labels as the map was fitted with, and return them."""
    if rows.shape[1] != n_labels:
        raise InvalidInput(
            f"the map was fitted with {n_labels} labels",
            seen=rows.shape,
            remedy="pass the same label set, in the same order",
        )
    return rows


def spread(features: FloatArray) -> float:
    """Pool the standard deviation within columns over what is finite; 1 where next to nothing varies."""
    present, sums, squares = np.zeros(features.shape[1]), np.zeros(features.shape[1]), 0.0
    for block in row_blocks(features):
        finite = np.isfinite(features[block])
        present += finite.sum(axis=0)
        sums += np.where(finite, features[block], 0.0).sum(axis=0)
    means = sums / np.maximum(present, 1.0)
    for block in row_blocks(features):
        squares += float((np.where(np.isfinite(features[block]), features[block] - means, 0.0) ** 2).sum())
    variance = squares / max(float(present.sum()), 1.0)
    # Below 1e-7 of their mean, differences are lost in the square that the Hessian is.
    least = 1e-50 + 1e-7 * float(np.abs(means).max())
    return float(np.sqrt(variance)) if variance > least**2 else 1.0


def as_parameters(
    values: npt.ArrayLike, shape: tuple[int | None, ...], *, name: str, low: float = -LIMIT
) -> FloatArray:
    """Check the parameters of a map (None in the shape: any size) and return them read-only, as float64."""
    floats = as_floats(values, name)[0]
    fits = len(shape) == floats.ndim and all(
        wanted in (None, size) for wanted, size in zip(shape, floats.shape, strict=True)
    )
    if not fits or floats.size == 0:
        raise InvalidInput(f"{name} has the wrong shape", seen=floats.shape, remedy="fit the map anew")
    if not (floats.min() >= low and floats.max() <= LIMIT):
        raise InvalidInput(
            f"{name} must be numbers from {low:g} to {LIMIT:g}",
            seen=floats.ravel()[:10].tolist(),
            remedy="fit the map anew",
        )
    frozen = floats.copy()
    frozen.setflags(write=False)
    return frozen


def set_parameters(target: Any, **values: object) -> None:
    """Write checked values into a frozen dataclass while it is being made."""
    for name, value in values.items():
        object.__setattr__(target, name, value)
