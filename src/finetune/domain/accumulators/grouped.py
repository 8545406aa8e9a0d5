"""Any accumulator, for all rows and for each group of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from finetune.domain.accumulators.base import Accumulator
from finetune.domain.checks import as_array, read_record
from finetune.domain.errors import InvalidInput

Part = TypeVar("Part", bound=Accumulator)


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    kind: Literal["grouped_accumulator"]
    version: Literal[1]
    overall: dict[str, Any]
    groups: dict[str, dict[str, Any]]


class GroupedResult(NamedTuple):
    """Result over all rows, and over those of each group that occurred, by name in alphabetical order."""

    overall: Any
    groups: dict[str, Any]


class GroupedAccumulator(Generic[Part]):
    """One accumulator for all rows and one for each group, made alike.

    Parameters
    ----------
    prototype
        What to accumulate: an accumulator that has seen no rows.

    Examples
    --------
    >>> from finetune.domain.accumulators import AccuracyAccumulator
    >>> accumulator = GroupedAccumulator(AccuracyAccumulator())
    >>> accumulator.update(["north", "south", "north"], [0, 1, 1], [0, 1, 0])
    >>> accumulator.result().groups["north"]
    Proportion(successes=1, trials=2)
    """

    def __init__(self, prototype: Part) -> None:
        if not isinstance(prototype, Accumulator):
            raise InvalidInput("the prototype is no accumulator", seen=prototype, remedy="pass an empty one")
        self._overall = prototype.empty()
        self._groups: dict[str, Part] = {}

    def update(self, groups: Sequence[str], *columns: npt.ArrayLike | None) -> None:
        """Add rows: the name of each one's group, and what the accumulator's ``update`` takes.

        Raises
        ------
        InvalidInput
            If a name is no text, or the accumulator refuses the rows; then none is added.
        """
        arrays = [None if column is None else as_array(column, "rows") for column in columns]
        overall = self._overall.empty()
        overall.update(*arrays)
        names = _names(groups, n_rows=next(len(array) for array in arrays if array is not None))
        known, group_of = np.unique(names, return_inverse=True)
        members = np.split(np.argsort(group_of, kind="stable"), np.cumsum(np.bincount(group_of))[:-1])
        parts = {}
        for name, rows in zip(known.tolist(), members, strict=True):
            parts[name] = self._overall.empty()
            parts[name].update(*(None if array is None else array[rows] for array in arrays))
        self._overall = self._overall.merge(overall)
        self._groups = _merged(self._groups, parts)

    def merge(self, other: GroupedAccumulator[Part]) -> GroupedAccumulator[Part]:
        """Return the accumulator over the rows of both; neither is changed.

        Raises
        ------
        InvalidInput
            If they do not count the same thing.
        """
        if not isinstance(other, GroupedAccumulator):
            raise InvalidInput(
                "the accumulator counts by group", seen=other, remedy="merge another that counts by group"
            )
        merged = GroupedAccumulator(self._overall)
        merged._overall = self._overall.merge(other._overall)
        merged._groups = _merged(self._groups, other._groups)
        return merged

    def result(self) -> GroupedResult:
        """Return the results."""
        of_group = {name: self._groups[name].result() for name in sorted(self._groups)}
        return GroupedResult(self._overall.result(), of_group)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready state."""
        return {
            "kind": "grouped_accumulator",
            "version": 1,
            "overall": self._overall.to_dict(),
            "groups": {name: self._groups[name].to_dict() for name in sorted(self._groups)},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], of: type[Part]) -> GroupedAccumulator[Part]:
        """Read what :meth:`to_dict` wrote; ``of`` is the class of what was accumulated.

        Raises
        ------
        InvalidInput
            If it is the record of something else, or contradicts itself.
        """
        record = read_record(_Record, data)
        overall = of.from_dict(record.overall)
        read = cls(overall)
        read._overall = overall
        read._groups = {name: of.from_dict(group) for name, group in record.groups.items()}
        for group in read._groups.values():
            overall.merge(group)  # refuses what was made otherwise
        return read


def _names(groups: Sequence[str], *, n_rows: int) -> npt.NDArray[Any]:
    names = np.asarray(groups, dtype=object)
    if names.shape != (n_rows,) or not all(isinstance(name, str) for name in names):
        raise InvalidInput(
            f"groups must be {n_rows} names, one for each row",
            seen=groups,
            remedy="pass text for every row; name the rows of no group too",
        )
    return names.astype(str)


def _merged(one: Mapping[str, Part], other: Mapping[str, Part]) -> dict[str, Part]:
    both = dict(one)
    for name, part in other.items():
        both[name] = both[name].merge(part) if name in both else part
    return both
