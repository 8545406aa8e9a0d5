"""One place where arrays and numbers from outside are checked before anything is computed from them.

Everything that passes is float64 (or int64 for labels); everything that does not raises
:class:`~finetune.domain.errors.InvalidInput` with the first bad row, its value and the remedy.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Mapping
from numbers import Real
from typing import Annotated, Any, Literal, TypeGuard, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field, ValidationError

from finetune.domain.errors import InvalidInput

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]
Record = TypeVar("Record", bound=BaseModel)
Extended = float | Literal["+inf", "-inf"]
Count = Annotated[int, Field(ge=0, le=2**53)]

# By the bytes of a float: half precision of either kind, and single.
_TOLERANCE = {2: 1e-2, 4: 1e-4}


def as_array(values: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    """Turn anything array-like into an array, of whatever type and shape."""
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(
            f"{name} cannot be read as an array: {error}",
            remedy="pass a rectangular array of numbers, of a tensor .detach().cpu().float().numpy()",
        ) from error


def as_numbers(values: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    """Turn anything array-like into an array of real numbers, in the type that they came in."""
    array = as_array(values, name)
    if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
        raise InvalidInput(f"{name} must be numbers", seen=array.dtype.name, remedy="pass an array of floats")
    return array


def sum_tolerance(array: npt.NDArray[Any]) -> float:
    """How far from 1 a sum of probabilities may be by the rounding of their type."""
    return 1e-6 if array.dtype.kind in "iu" else _TOLERANCE.get(array.dtype.itemsize, 1e-6)


def as_floats(values: npt.ArrayLike, name: str) -> tuple[FloatArray, float]:
    """Turn numbers into float64 in C order, with the error of a sum of 1 in the type that they came in."""
    array = as_numbers(values, name)
    with np.errstate(over="ignore", invalid="ignore"):
        # C order, so that sums over a row round the same way however the caller stored it.
        floats = np.asarray(array, dtype=np.float64, order="C")
    return floats, sum_tolerance(array)


def reject_first(
    bad: npt.NDArray[np.bool_] | np.bool_,
    values: npt.NDArray[Any],
    *,
    name: str,
    what: str,
    remedy: str,
    start: int = 0,
) -> None:
    """Raise InvalidInput for the first bad row with its value, if any; rows count from ``start``."""
    if bad.any():
        row = int(bad.argmax())
        raise InvalidInput(what, where=f"{name}[{start + row}]", seen=values[row].tolist(), remedy=remedy)


def as_vector(values: npt.ArrayLike, *, name: str, low: float = -np.inf, high: float = np.inf) -> FloatArray:
    """Check a vector of numbers in [low, high] (NaN is never in it) and return it as float64, shape (n,)."""
    vector, _ = as_floats(values, name)
    if vector.ndim != 1 or vector.size == 0:
        raise InvalidInput(
            f"{name} must have the shape (rows,) with at least one row",
            seen=vector.shape,
            remedy="pass one number per row",
        )
    reject_first(
        ~((vector >= low) & (vector <= high)),
        vector,
        name=name,
        what=f"the value is not a number in [{low:g}, {high:g}]",
        remedy="correct the value or drop the row",
    )
    return vector


def as_labels(
    labels: npt.ArrayLike, *, n_rows: int | None, n_labels: int | None, name: str = "labels"
) -> IntArray:
    """Check label indices and return them as int64.

    Parameters
    ----------
    labels
        Shape (n,), of an integer type: bool and float are refused even where the values are whole.
    n_rows, n_labels
        n and K that they must fit (None: any n; None: any non-negative index).

    Raises
    ------
    InvalidInput
        If the type, the length or a value is wrong.

    Examples
    --------
    >>> as_labels([0, 3], n_rows=2, n_labels=3)
    Traceback (most recent call last):
    ...
    finetune.domain.errors.InvalidInput: labels[1]: the label is not in [0, 3) (seen: 3).
    What to do: number the labels from 0 in the order of the columns.
    """
    array = as_array(labels, name)
    if array.ndim != 1 or array.size == 0:
        raise InvalidInput(
            f"{name} must have the shape (rows,) with at least one row",
            seen=array.shape,
            remedy="pass one label index per row",
        )
    if array.dtype.kind not in "iu":
        raise InvalidInput(
            f"{name} must be integers",
            seen=array.dtype.name,
            remedy="pass label indices of an integer type, for example .astype(int) if that is what they are",
        )
    if n_rows is not None and len(array) != n_rows:
        raise InvalidInput(
            f"{name} must have one entry for each of the {n_rows} rows",
            seen=len(array),
            remedy="pass both for the same rows",
        )
    limit = np.iinfo(np.int64).max if n_labels is None else n_labels
    if array.min() < 0 or array.max() >= limit:
        reject_first(
            (array < 0) | (array >= limit),
            array,
            name=name,
            what=f"the label is not in [0, {limit})",
            remedy="number the labels from 0 in the order of the columns",
        )
    return array.astype(np.int64, copy=False)


def as_flags(values: npt.ArrayLike, *, n_rows: int, name: str) -> BoolArray:
    """Check a vector of booleans, or of integers 0 and 1, and return it as bool, shape (n,)."""
    array = as_array(values, name)
    if array.dtype.kind == "b":
        if array.shape == (n_rows,):
            return array.astype(np.bool_, copy=False)
        array = array.astype(np.int8)  # what is wrong is the shape, not the type
    return as_labels(array, n_rows=n_rows, n_labels=2, name=name).astype(np.bool_)


def is_number(value: object) -> TypeGuard[float]:
    """Whether this is a real number, of Python or numpy; bool is none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def as_level(value: object, *, name: str) -> float:
    """Check a number strictly between 0 and 1.

    Examples
    --------
    >>> as_level(10, name="alpha")
    Traceback (most recent call last):
    ...
    finetune.domain.errors.InvalidInput: alpha must lie strictly between 0 and 1 (seen: 10).
    What to do: for 10 percent pass 0.1.
    """
    if isinstance(value, (float, np.floating)) and 0.0 < value < 1.0:
        # By way of the text: np.float32(0.1) means one tenth, not 0.10000000149.
        return float(str(value))
    raise InvalidInput(
        f"{name} must lie strictly between 0 and 1", seen=value, remedy="for 10 percent pass 0.1"
    )


def as_positive(value: object, *, name: str, high: float = 1e100) -> float:
    """Check a number in (0, high], by default one whose sums do not overflow.

    Examples
    --------
    >>> as_positive(0, name="gamma")
    Traceback (most recent call last):
    ...
    finetune.domain.errors.InvalidInput: gamma must be a positive number of at most 1e+100 (seen: 0).
    What to do: pass one in that range.
    """
    # By way of the text, as in as_level.
    number = float(str(value)) if isinstance(value, np.floating) else value
    if is_number(number) and 0.0 < number <= high:
        return float(number)
    raise InvalidInput(
        f"{name} must be a positive number of at most {high:g}", seen=value, remedy="pass one in that range"
    )


def as_count(value: object, *, name: str, minimum: int = 1) -> int:
    """Check an integer that is at least ``minimum``; bool is refused."""
    try:
        count = None if isinstance(value, (bool, np.bool_)) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        count = None
    if count is None or count < minimum:
        raise InvalidInput(
            f"{name} must be an integer of at least {minimum}", seen=value, remedy="pass a whole number"
        )
    if count > 2**53:
        raise InvalidInput(
            f"{name} is greater than any count of rows, 2**53", seen=value, remedy="pass a count"
        )
    return count


def as_choice(value: str, known: Collection[str], *, name: str) -> str:
    """Check that ``value`` is one of the known names."""
    if not isinstance(value, str) or value not in known:
        raise InvalidInput(
            f"{name} is not known", seen=value, remedy="use one of " + ", ".join(map(repr, sorted(known)))
        )
    return value


def as_generator(value: object, *, name: str = "rng") -> np.random.Generator:
    """Check a numpy generator."""
    if isinstance(value, np.random.Generator):
        return value
    raise InvalidInput(f"{name} is no generator", seen=value, remedy="pass numpy.random.default_rng(seed)")


def log_softmax(logits: FloatArray) -> FloatArray:
    """Log-softmax of each row; entries of -inf stay -inf.

    Examples
    --------
    >>> log_softmax(np.array([[1e308, -1e308]]))
    array([[  0., -inf]])
    """
    with np.errstate(over="ignore", under="ignore"):
        shifted = logits - logits.max(axis=1, keepdims=True)
        shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return np.asarray(shifted)


def read_record(model: type[Record], data: Mapping[str, Any]) -> Record:
    """Validate what was read from JSON, and turn pydantic's error into ours."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(
            f"the record is not valid: {first['msg']}",
            where=".".join(map(str, first["loc"])) or None,
            seen=first["input"],
            remedy="write the record anew with this version of the program",
        ) from error


def write_extended(value: float) -> Extended:
    """Write a number for JSON, which has no infinities: they become the words ``"+inf"`` and ``"-inf"``."""
    if math.isinf(value):
        return "+inf" if value > 0 else "-inf"
    return value


def read_extended(value: Extended) -> float:
    """Read what :func:`write_extended` wrote."""
    return float(value)
