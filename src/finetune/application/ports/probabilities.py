"""Probabilities of any model, as they stand in a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from finetune.application.ports.progress import Progress

Inputs = Literal["probabilities", "log_probabilities", "logits"]


@dataclass(frozen=True)
class ProbabilityFile:
    """Which file, and what stands where in it.

    Parameters
    ----------
    path
        Its type is told by suffix.
    outcomes
        Names of the columns that are wanted, in this order; None: every column that no other parameter
        names, in the order of the file.
    label
        Column with the right outcome; None: none is wanted (new rows have none).
    id
        Column with the name of the row; a file may lack it where it is the default.
    inputs
        What the numbers are; None: what the file says, else probabilities.
    """

    path: Path
    outcomes: tuple[str, ...] | None = None
    label: str | None = "label"
    id: str = "id"
    inputs: Inputs | None = None


class ProbabilityRows(NamedTuple):
    """What stood there, read but not yet believed: no number is checked beyond being one.

    Parameters
    ----------
    path
        The file.
    names
        K columns.
    values
        Shape (n, K), float32 or float64 as they were stored; n may be 0.
    inputs
        What the numbers are.
    labels
        n texts; None where none were wanted.
    ids
        n texts; None where the file has none.
    lines
        Shape (n,): what to call each row in a message, a line of a text file or a row counted from 1.
    """

    path: Path
    names: tuple[str, ...]
    values: NDArray[np.floating[Any]]
    inputs: Inputs
    labels: Sequence[str] | None
    ids: Sequence[str] | None
    lines: NDArray[np.int64]

    def place(self, row: int) -> str:
        """Return where a row stands, for a message."""
        return f"{self.path}:{self.lines[row]}"


class ProbabilitySource(Protocol):
    """Reads files of probabilities."""

    def read(self, file: ProbabilityFile, progress: Progress) -> ProbabilityRows:
        """Read a whole file; no row is left out.

        A file that is missing, or a row or column that cannot be used, raises :class:`InvalidInput` with
        file, row, column, value and remedy; a type that needs a package, :class:`MissingExtra`.
        """
