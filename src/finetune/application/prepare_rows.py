"""From the rows of files to examples, with every row that cannot be used listed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from finetune.application.config import DataConfig, DataFile
from finetune.application.ports import BadRow, ExampleSource, Progress, RawRow
from finetune.domain.errors import InvalidInput
from finetune.domain.examples import Example, content_id
from finetune.domain.labels import ABSTAIN, LabelSet, closest
from finetune.domain.splits import SPLITS

LISTED = 10
"""How many offending rows a message lists; the file has all."""


@dataclass
class ReadRows:
    """What the files held: usable rows with their positions, and the others."""

    examples: list[Example] = field(default_factory=list)
    positions: list[str] = field(default_factory=list)
    rejected: list[BadRow] = field(default_factory=list)

    def add(self, example: Example, position: str) -> None:
        """Add a usable row."""
        self.examples.append(example)
        self.positions.append(position)

    @property
    def total(self) -> int:
        """How many rows were read."""
        return len(self.examples) + len(self.rejected)


def read_rows(source: ExampleSource, data: DataConfig, labels: LabelSet, progress: Progress) -> ReadRows:
    """Read all files of a configuration.

    Raises
    ------
    InvalidInput
        A file cannot be read, has no text or no label column, or two rows have the same id.
    """
    rows = ReadRows()
    with progress.task("Reading", total=len(data.files)) as task:
        for file in data.files:
            for item in _with_labels(source, file, data):
                checked = _example(item, file, data, labels) if isinstance(item, RawRow) else item
                if isinstance(checked, BadRow):
                    rows.rejected.append(checked)
                else:
                    rows.add(checked, item.position)
                if rows.total % 1000 == 0:
                    task.describe(f"{rows.total:,} rows")
            task.describe(f"{rows.total:,} rows")
            task.advance()
    _refuse_repeated_ids(rows)
    return rows


def rejection_error(rejected: list[BadRow], file: str) -> InvalidInput:
    """Return the error for rows that cannot be used: the first ones with their positions."""
    lines = [f"{row.position}: {row.problem}" for row in rejected[:LISTED]]
    if len(rejected) > LISTED:
        lines.append(f"and {len(rejected) - LISTED:,} more")
    one = len(rejected) == 1
    return InvalidInput(
        f"{len(rejected):,} {'row' if one else 'rows'} cannot be used:\n  " + "\n  ".join(lines),
        remedy=f"correct {'it' if one else 'them'} (all are in {file}), "
        "or set data.on_bad_row to skip to leave them out",
    )


def _with_labels(source: ExampleSource, file: DataFile, data: DataConfig) -> Iterator[RawRow | BadRow]:
    """Yield the rows of a file; a file none of whose rows has the label column is an error."""
    name, columns = data.columns.label, Counter[str]()
    found = False
    for row in source.read(file, data.columns):
        if isinstance(row, RawRow) and not found:
            found = name in row.values
            columns.update(row.values)
        yield row
    if columns and not found:
        near = closest(name, columns)
        raise InvalidInput(
            f"there is no column {name!r} for the labels",
            where=str(file.path),
            seen=list(columns),
            remedy="set data.columns.label" + (f"; perhaps you meant {near!r}" if near else ""),
        )


def _example(row: RawRow, file: DataFile, data: DataConfig, labels: LabelSet) -> Example | BadRow:
    columns, values = data.columns, row.values
    text = values.get(columns.text) or ""
    name = values.get(columns.label)
    label = None if name is None else labels.resolve(name)
    split = file.split or _value(values, columns.split)
    problem = _text_problem(text, data.max_text_chars) or _label_problem(name, label, labels)
    if problem is None and split is not None and split not in SPLITS:
        problem = f"unknown split {_short(split)}; splits are {', '.join(SPLITS)}"
    if problem is not None or label is None:
        return BadRow(row.position, problem or "missing label", _content(values, data.max_text_chars))
    mapped = {columns.id, columns.text, columns.label, columns.rationale, columns.split}
    return Example(
        id=_value(values, columns.id) or content_id(text, label),
        text=text,
        label=label,
        rationale=_value(values, columns.rationale),
        split=split,
        metadata={key: value for key, value in values.items() if key not in mapped},
    )


def _text_problem(text: str, limit: int) -> str | None:
    if not text.strip():
        return "empty text"
    if len(text) > limit:
        return f"text of {len(text):,} characters; data.max_text_chars allows {limit:,}"
    return None


def _label_problem(name: str | None, label: str | None, labels: LabelSet) -> str | None:
    if name is None or not name.strip():
        return "missing label"
    if label is not None:
        return None
    if name == ABSTAIN:
        return f"label {ABSTAIN!r}, which the labels file does not describe under `abstain`"
    near = closest(name, labels.outcomes)
    return f"unknown label {_short(name)}" + (f"; perhaps {near!r}" if near else "")


def _refuse_repeated_ids(rows: ReadRows) -> None:
    """Tell copies without an id apart by a number; raise for ids of the data that repeat."""
    first: dict[str, int] = {}
    copies: Counter[str] = Counter()
    repeated: list[str] = []
    for index, example in enumerate(rows.examples):
        before = first.setdefault(example.id, index)
        if before == index:
            continue
        if example.id == content_id(example.text, example.label or ""):
            copies[example.id] += 1
            rows.examples[index] = replace(example, id=f"{example.id}-{copies[example.id] + 1}")
        else:
            repeated.append(
                f"{rows.positions[index]}: id {_short(example.id)} is also in {rows.positions[before]}"
            )
    if repeated:
        listed = repeated[:LISTED] + (
            [f"and {len(repeated) - LISTED:,} more"] if len(repeated) > LISTED else []
        )
        raise InvalidInput(
            "ids must be different:\n  " + "\n  ".join(listed),
            remedy="make them unique, or set data.columns.id to null to name rows by what they hold",
        )


def _value(values: Mapping[str, Any], column: str | None) -> str | None:
    return None if column is None else values.get(column) or None


def _content(values: Mapping[str, Any], limit: int) -> str:
    text = json.dumps(values, ensure_ascii=False, default=str)
    return text if len(text) <= limit else text[:limit] + "…"


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:79] + "…")
