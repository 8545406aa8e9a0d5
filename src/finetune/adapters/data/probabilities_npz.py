"""Probabilities from NPZ: arrays alone, never pickled objects."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from finetune.adapters.data.probability_columns import DEFAULT_ID, choose_outcomes
from finetune.application.ports import Inputs, ProbabilityFile, ProbabilityRows, Progress
from finetune.domain.errors import InvalidInput

SCORES: tuple[Inputs, ...] = get_args(Inputs)
"""Names of the array of shape (n, K): each says what its numbers are."""

_DEFAULT_LABEL = ProbabilityFile.label


def read_npz_probabilities(file: ProbabilityFile, progress: Progress) -> ProbabilityRows:
    """Read an archive of arrays; rows count from 1."""
    path = file.path
    with progress.task(f"reading {path.name}", 1) as task:
        arrays = _arrays(path)
        task.advance()
    inputs = _which(arrays, file)
    values = arrays[inputs]
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise InvalidInput(
            "the array must hold numbers and have the shape (rows, outcomes)",
            where=f"{path}: {inputs}",
            seen=(values.dtype.name, values.shape),
            remedy="save one row a case and one column an outcome",
        )
    names = _names(arrays, file, values.shape[1])
    chosen = choose_outcomes(names, file, f"{path}: names")
    labels = _labels(arrays, file, names, len(values))
    ids = _ids(arrays, file, len(values))
    kept = np.float32 if values.dtype.kind == "f" and values.dtype.itemsize <= 4 else np.float64
    in_order = values if chosen == list(range(values.shape[1])) else values[:, chosen]
    return ProbabilityRows(
        path=path,
        names=tuple(names[position] for position in chosen),
        values=in_order.astype(kept, copy=False),
        inputs=inputs,
        labels=labels,
        ids=ids,
        lines=np.arange(1, len(values) + 1),
    )


def _arrays(path: Path) -> Mapping[str, NDArray[Any]]:
    try:
        # Opened here: numpy leaves its own handle open where the file is no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        pickled = "allow_pickle" in str(error)
        raise InvalidInput(
            "an array holds Python objects, which are not read"
            if pickled
            else f"not a readable NPZ archive: {error}",
            where=str(path),
            remedy="save names as text: np.array(names, dtype=str)"
            if pickled
            else "write it with numpy.savez",
        ) from error


def _which(arrays: Mapping[str, NDArray[Any]], file: ProbabilityFile) -> Inputs:
    found = [name for name in SCORES if name in arrays]
    if file.inputs is not None and file.inputs in found:
        return file.inputs
    if len(found) != 1 or file.inputs is not None:
        raise InvalidInput(
            f"there is no array {file.inputs!r}"
            if file.inputs is not None
            else f"exactly one array must be called {', '.join(SCORES[:-1])} or {SCORES[-1]}",
            where=str(file.path),
            seen=sorted(arrays),
            remedy="choose one with --inputs" if found else "name the array of scores by what it holds",
        )
    return found[0]


def _names(arrays: Mapping[str, NDArray[Any]], file: ProbabilityFile, width: int) -> tuple[str, ...]:
    if "names" in arrays:
        names = _texts(arrays["names"], width, f"{file.path}: names", "one name for each column")
        if len(set(names)) == width:
            return names
        raise InvalidInput(
            "two columns have the same name", where=f"{file.path}: names", seen=names, remedy="rename one"
        )
    if file.outcomes is None:
        return tuple(map(str, range(width)))
    if len(file.outcomes) == width:
        return file.outcomes
    raise InvalidInput(
        f"there are {width} columns without names, but {len(file.outcomes)} outcomes",
        where=str(file.path),
        seen=list(file.outcomes),
        remedy="save an array 'names' with the name of each column",
    )


def _labels(
    arrays: Mapping[str, NDArray[Any]], file: ProbabilityFile, names: tuple[str, ...], n: int
) -> list[str] | None:
    if file.label is None:
        return None
    key = "labels" if file.label == _DEFAULT_LABEL else file.label
    labels = _array(arrays, key, file, "name the array of the right outcomes with --label-column")
    where = f"{file.path}: {key}"
    if labels.dtype.kind not in "iu":
        return list(_texts(labels, n, where, "one label for each row"))
    _check_length(labels, n, where, "one label for each row")
    outside = np.flatnonzero((labels < 0) | (labels >= len(names)))
    if outside.size:
        raise InvalidInput(
            f"a label is no column from 0 to {len(names) - 1} ({outside.size:,} such rows)",
            where=f"{file.path}:{outside[0] + 1}",
            seen=int(labels[outside[0]]),
            remedy="number the labels in the order of the columns, or save their names",
        )
    return [names[column] for column in labels.tolist()]


def _ids(arrays: Mapping[str, NDArray[Any]], file: ProbabilityFile, n: int) -> tuple[str, ...] | None:
    if file.id == DEFAULT_ID:
        if "ids" not in arrays:
            return None
        key = "ids"
    else:
        key = file.id
    ids = _array(arrays, key, file, "name the array of the ids with --id-column")
    return _texts(ids, n, f"{file.path}: {key}", "one id for each row")


def _array(arrays: Mapping[str, NDArray[Any]], key: str, file: ProbabilityFile, remedy: str) -> NDArray[Any]:
    if key not in arrays:
        raise InvalidInput(
            f"there is no array {key!r}", where=str(file.path), seen=sorted(arrays), remedy=remedy
        )
    return arrays[key]


def _check_length(array: NDArray[Any], n: int, where: str, wanted: str) -> None:
    if array.shape != (n,):
        raise InvalidInput(
            f"there must be {wanted}", where=where, seen=array.shape, remedy=f"save {n} of them"
        )


def _texts(array: NDArray[Any], n: int, where: str, wanted: str) -> tuple[str, ...]:
    _check_length(array, n, where, wanted)
    if array.dtype.kind == "S":
        try:
            return tuple(value.decode() for value in array.tolist())
        except UnicodeDecodeError as error:
            raise InvalidInput(
                "a text is not UTF-8", where=where, seen=error.object, remedy="save it with dtype=str"
            ) from error
    if array.dtype.kind in "Uiu":
        return tuple(map(str, array.tolist()))
    raise InvalidInput(
        "these must be texts or whole numbers",
        where=where,
        seen=array.dtype.name,
        remedy="save them with dtype=str or as integers",
    )
