"""What ``prepare`` found, for people and as ``report.json``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finetune.application.ports import BadRow, EncodedExample
from finetune.domain.conformal.quantile import conformal_rank
from finetune.domain.examples import Example
from finetune.domain.labels import ABSTAIN
from finetune.domain.splits import SPLITS, DuplicateReport

MIN_TRAINING_ROWS = 10
"""A label with fewer training rows is named in a notice."""

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


def find_notices(
    labels: Mapping[str, Mapping[str, int]], conflicts: int, rejected: int, alpha: float
) -> list[str]:
    """Return what people should know before they train: one line each."""
    notices = []
    if rejected:
        notices.append(f"{_rows(rejected)} left out because they cannot be used; all are in rejects.jsonl")
    if conflicts:
        notices.append(
            f"{conflicts:,} {'text has' if conflicts == 1 else 'texts have'} several labels in the data; "
            "which one is right is for a person to say (listed in duplicates.jsonl)"
        )
    absent = [label for label, counts in labels.items() if not any(counts.values())]
    if absent:
        notices.append(f"no row at all for {_names(absent)}: the model cannot learn to answer so")
    present = {label: counts for label, counts in labels.items() if label not in absent}
    rare = [label for label, counts in present.items() if counts["train"] < MIN_TRAINING_ROWS]
    if rare:
        notices.append(f"fewer than {MIN_TRAINING_ROWS} training rows for {_names(rare)}")
    for split in SPLITS[1:]:
        missing = [label for label, counts in present.items() if not counts[split]]
        if missing:
            notices.append(f"no {split} row for {_names(missing)}")
    # Half of the calibration rows set the conformal threshold (see split_calibration).
    half = (sum(counts["calibration"] for counts in labels.values()) + 1) // 2
    if half and conformal_rank(half, alpha) > half:
        needed = next(n for n in range(half, 10**9) if conformal_rank(n, alpha) <= n)
        notices.append(
            f"too few calibration rows for prediction sets at alpha {alpha:g}: half of them, {half:,}, set "
            f"the threshold and {needed:,} are needed; every set will hold every label"
        )
    return notices


def dropped_abstention() -> str:
    """Return the notice for labels that describe abstention and data without an example of it."""
    return (
        f"the labels file describes `{ABSTAIN}`, but no row has this label: it is left out of this run. The "
        "model will abstain for lack of confidence only; add out-of-scope texts to let it learn them"
    )


def _rows(number: int) -> str:
    return f"{number:,} {'row was' if number == 1 else 'rows were'}"


def _names(labels: Sequence[str]) -> str:
    listed = ", ".join(labels[:5])
    return listed if len(labels) <= 5 else f"{listed} and {len(labels) - 5:,} more labels"
