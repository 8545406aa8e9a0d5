"""Which columns of a file of probabilities are the outcomes, the label and the id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from finetune.application.ports import ProbabilityFile
from finetune.domain.errors import InvalidInput
from finetune.domain.labels import ABSTAIN, closest

DEFAULT_ID = ProbabilityFile.id
METADATA = ("text", "split", "__index_level_0__")
"""Columns that are no outcomes even where nothing says which are; the last is an index that pandas wrote."""


class Chosen(NamedTuple):
    """Positions of columns; the label or the id is None where it is not wanted or not there."""

    outcomes: list[int]
    label: int | None
    id: int | None


def choose_columns(header: Sequence[str], file: ProbabilityFile, where: str) -> Chosen:
    """Return the positions of what is wanted.

    Raises
    ------
    InvalidInput
        A column is missing, or fewer than two are left to be outcomes.
    """
    if file.label is not None:
        require(file.label, header, where, "name the column of the right outcome with --label-column")
    if file.id != DEFAULT_ID:
        require(file.id, header, where, "name the column of the ids with --id-column")
    return Chosen(
        choose_outcomes(header, file, where),
        None if file.label is None else header.index(file.label),
        header.index(file.id) if file.id in header else None,
    )


def choose_outcomes(header: Sequence[str], file: ProbabilityFile, where: str) -> list[int]:
    """Return the positions of the outcomes, in the order in which they are wanted."""
    if file.outcomes is not None:
        for name in file.outcomes:
            missing = "every outcome needs a column of its name"
            if name == ABSTAIN:
                missing += "; take `abstain` out of labels.yaml where the model has no such outcome"
            require(name, header, where, missing)
        return [header.index(name) for name in file.outcomes]
    others = {file.label, file.id, *METADATA}
    left = [position for position, name in enumerate(header) if name not in others]
    if any(not header[position].strip() for position in left):
        raise InvalidInput(
            "a column has no name",
            where=where,
            seen=list(header),
            remedy="name it or leave it out; the index of a pandas table stays out with index=False",
        )
    if len(left) < 2:
        raise InvalidInput(
            "at least two columns of probabilities are needed",
            where=where,
            seen=list(header),
            remedy="give every outcome a column",
        )
    return left


def require(name: str, header: Sequence[str], where: str, remedy: str) -> None:
    """Raise :class:`InvalidInput` with the columns that are there where ``name`` is not among them."""
    if name in header:
        return
    near = closest(name, header)
    raise InvalidInput(
        f"there is no column {name!r}",
        where=where,
        seen=list(header),
        remedy=remedy if near is None else f"{remedy}; perhaps you meant {near!r}",
    )


def not_a_label(file: ProbabilityFile) -> str:
    """Return what to do where a column of an outcome does not hold numbers."""
    if file.outcomes is not None:
        return "correct the file"
    return "correct it; if that column is no outcome, say with --labels labels.yaml which ones are"
