"""What all accumulators share: counts and sums that add up, and the record that carries them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from finetune.domain.checks import IntArray, read_record
from finetune.domain.errors import InvalidInput
from finetune.domain.sums import Sums

_Count = Annotated[int, Field(ge=0, le=2**53)]
_Sum = Annotated[float, Field(ge=-1e290, le=1e290)]  # far from overflow


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    kind: str
    version: Literal[1]
    settings: dict[str, Any]
    counts: dict[str, list[_Count]]
    sums: list[_Sum]


class Accumulator(ABC):
    """Counts and sums over rows that come in parts.

    ``update`` adds rows, all of them or, when one is refused, none; ``merge`` adds two accumulators up;
    ``result`` is what the rows seen so far give.  Counts do not depend on the order of the parts at all, and
    sums by no more than rounding (1e-12 relative to the sum of the absolute values).

    Parameters
    ----------
    settings
        Arguments of the constructor, which decide what is counted.
    counts
        Shape of the array of each kind of count.
    sums
        Shape of the array of sums.
    """

    kind: ClassVar[str]
    setting_names: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        settings: Mapping[str, Any],
        counts: Mapping[str, tuple[int, ...]],
        sums: tuple[int, ...],
    ) -> None:
        self._settings: dict[str, Any] = dict(settings)
        self._counts: dict[str, IntArray] = {
            name: np.zeros(shape, dtype=np.int64) for name, shape in counts.items()
        }
        self._sums = Sums(sums)

    @abstractmethod
    def update(self, *args: Any, **kwargs: Any) -> None:
        """Add rows."""

    @abstractmethod
    def result(self) -> Any:
        """Return what the rows give."""

    def merge(self, other: Self) -> Self:
        """Return the accumulator over the rows of both; neither is changed.

        Raises
        ------
        InvalidInput
            If they do not count the same thing.
        """
        if type(other) is not type(self) or other._settings != self._settings:
            raise InvalidInput(
                f"the accumulator counts something else than {self.kind} with {self._settings}",
                seen=(getattr(other, "kind", other), getattr(other, "_settings", None)),
                remedy="merge accumulators that were made alike",
            )
        merged = self.empty()
        for part in (self, other):
            for name, counts in part._counts.items():
                merged._counts[name] += counts
            merged._sums.include(part._sums)
        return merged

    def empty(self) -> Self:
        """Return an accumulator made alike that has seen no rows."""
        return type(self)(**self._settings)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready state, for another process to merge."""
        return {
            "kind": self.kind,
            "version": 1,
            "settings": dict(self._settings),
            "counts": {name: counts.ravel().tolist() for name, counts in self._counts.items()},
            "sums": self._sums.to_list(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote.

        Raises
        ------
        InvalidInput
            If it is the record of something else, or contradicts itself.
        """
        record = read_record(_Record, data)
        if record.kind != cls.kind or set(record.settings) != set(cls.setting_names):
            raise InvalidInput(
                f"the record is not one of {cls.kind}",
                seen=(record.kind, record.settings),
                remedy="read it with the class that wrote it",
            )
        read = cls(**record.settings)
        read._restore(record.counts, record.sums)
        return read

    def _restore(self, counts: Mapping[str, list[int]], sums: list[float]) -> None:
        sizes = {name: array.size for name, array in self._counts.items()}
        if {name: len(values) for name, values in counts.items()} != sizes:
            raise InvalidInput(
                f"the record must hold counts of these sizes: {sizes}",
                seen={name: len(values) for name, values in counts.items()},
                remedy="write the record anew",
            )
        for name, array in self._counts.items():
            array[...] = np.reshape(counts[name], array.shape)
        self._sums.restore(sums)
        if not self._consistent():
            raise InvalidInput(
                f"the counts of the record of {self.kind} contradict one another",
                seen=counts,
                remedy="write the record anew",
            )

    @abstractmethod
    def _consistent(self) -> bool:
        """Whether the counts can have come about."""


def require_labels(seen: int, n_labels: int) -> None:
    """Check the number of columns against the number of labels."""
    if seen != n_labels:
        raise InvalidInput(
            f"the accumulator was made for {n_labels} labels",
            seen=seen,
            remedy="pass one column per label, in the same order",
        )
