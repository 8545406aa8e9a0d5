"""What ``prepare`` found, for people and as ``report.json``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finetune.application.ports import BadRow, EncodedExample
from finetune.domain.examples import Example
from finetune.domain.splits import SPLITS, DuplicateReport

_LISTED = 20


@dataclass(frozen=True)
class TokenLengths:
    """Lengths of prompt and answer in tokens, and how many texts had to be shortened to fit."""

    mean: float
    median: int
    p95: int
    max: int
    shortened: int


@dataclass(frozen=True)
class Conflict:
    """One text with several labels in the data."""

    text: str
    labels: tuple[str, ...]
    positions: tuple[str, ...]


@dataclass(frozen=True)
class LossExample:
    """One training example as tokens, each with whether the loss counts it."""

    id: str
    tokens: tuple[tuple[str, bool], ...]

    def text(self) -> str:
        """Return the example with ``[[ ]]`` around what the loss counts.

        Examples
        --------
        >>> LossExample("7", (("Which?", False), (" card", True), ("<end>", True))).text()
        'Which?[[ card<end>]]'
        """
        parts: list[str] = []
        inside = False
        for token, counted in self.tokens:
            if counted != inside:
                parts.append("[[" if counted else "]]")
                inside = counted
            parts.append(token)
        return "".join(parts) + ("]]" if inside else "")


@dataclass(frozen=True)
class PrepareReport:
    """Everything that ``prepare`` counted; ``labels`` maps label to split to rows."""

    folder: Path
    read: int
    rejected: tuple[BadRow, ...]
    exact_duplicates: int
    near_duplicates: int
    conflicts: tuple[Conflict, ...]
    labels: Mapping[str, Mapping[str, int]]
    tokens: Mapping[str, TokenLengths]
    example: LossExample
    notices: tuple[str, ...]

    @property
    def splits(self) -> dict[str, int]:
        """Rows of each split."""
        return {split: sum(counts[split] for counts in self.labels.values()) for split in SPLITS}

    def document(self) -> dict[str, Any]:
        """Return ``report.json``; of rejected rows and conflicts it lists the first 20."""
        splits = self.splits
        return {
            "version": 1,
            "folder": str(self.folder),
            "rows": {"read": self.read, "rejected": len(self.rejected), "kept": sum(splits.values())},
            "splits": splits,
            "labels": {label: dict(counts) for label, counts in self.labels.items()},
            "duplicates": {
                "exact": self.exact_duplicates,
                "near": self.near_duplicates,
                "conflicting": len(self.conflicts),
                "conflicts": [asdict(conflict) for conflict in self.conflicts[:_LISTED]],
            },
            "rejected": [
                {"position": row.position, "problem": row.problem} for row in self.rejected[:_LISTED]
            ],
            "tokens": {split: asdict(lengths) for split, lengths in self.tokens.items()},
            "example": {
                "id": self.example.id,
                "tokens": [list(token) for token in self.example.tokens],
                "text": self.example.text(),
            },
            "notices": list(self.notices),
        }


def token_lengths(encoded: Sequence[EncodedExample]) -> TokenLengths:
    """Summarise at least one encoded example; the quantiles are lengths that occur.

    Examples
    --------
    >>> token_lengths([EncodedExample((1, 2, 3), 1, 0), EncodedExample((1,), 0, 9)])
    TokenLengths(mean=2.0, median=1, p95=3, max=3, shortened=1)
    """
    lengths = np.array([len(item.ids) for item in encoded])
    median, p95 = np.quantile(lengths, [0.5, 0.95], method="inverted_cdf")
    return TokenLengths(
        mean=round(float(lengths.mean()), 1),
        median=int(median),
        p95=int(p95),
        max=int(lengths.max()),
        shortened=sum(item.removed_chars > 0 for item in encoded),
    )


def label_counts(
    examples: Sequence[Example], splits: Sequence[str], outcomes: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Count rows by label and split, in the order of the outcomes."""
    pairs = zip((example.label for example in examples), splits, strict=True)
    counts = Counter(pairs)
    return {label: {split: counts[label, split] for split in SPLITS} for label in outcomes}


def find_conflicts(
    examples: Sequence[Example], positions: Sequence[str], duplicates: DuplicateReport
) -> tuple[Conflict, ...]:
    """Return the texts that the data give several labels."""
    return tuple(
        Conflict(
            text=examples[rows[0]].text,
            labels=tuple(dict.fromkeys(str(examples[row].label) for row in rows)),
            positions=tuple(positions[row] for row in rows),
        )
        for rows in duplicates.conflicting
    )
