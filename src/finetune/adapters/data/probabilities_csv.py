"""Probabilities from CSV."""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np

from finetune.adapters.data.csv_records import Broken, CsvRecords, Record
from finetune.adapters.data.lines import is_broken, printable
from finetune.adapters.data.probability_columns import Chosen, choose_columns, not_a_label
from finetune.application.ports import ProbabilityFile, ProbabilityRows, Progress, ProgressTask
from finetune.application.row_problems import RowProblems


def read_csv_probabilities(file: ProbabilityFile, progress: Progress) -> ProbabilityRows:
    """Read a comma-separated file with a header line."""
    path = file.path
    records = CsvRecords(path)
    chosen = choose_columns(records.header, file, f"{path}:1")
    names = tuple(records.header[position] for position in chosen.outcomes)
    problems = RowProblems(not_a_label(file))
    numbers, lines = array("d"), array("q")
    labels, ids = list[str](), list[str]()
    with progress.task(f"reading {path.name}, per cent", 100) as task:
        read = _Share(path, task)
        for record in records:
            if isinstance(record, Broken):
                problems.add(f"{path}:{record.line}", record.problem, record.content)
                continue
            read.add(len(record.raw))
            row = _numbers(record, chosen, names, path, problems)
            if row is None:
                continue
            numbers.extend(row)
            lines.append(record.line)
            if chosen.label is not None:
                labels.append(record.fields[chosen.label])
            if chosen.id is not None:
                ids.append(record.fields[chosen.id])
        read.end()
    problems.check()
    return ProbabilityRows(
        path=path,
        names=names,
        values=np.array(numbers, dtype=np.float64).reshape(-1, len(names)),
        inputs=file.inputs or "probabilities",
        labels=None if chosen.label is None else labels,
        ids=None if chosen.id is None else ids,
        lines=np.array(lines, dtype=np.int64),
    )


def _numbers(
    record: Record, chosen: Chosen, names: tuple[str, ...], path: Path, problems: RowProblems
) -> list[float] | None:
    fields = record.fields
    if is_broken(record.raw):
        problems.add(
            f"{path}:{record.line}", "not valid UTF-8: save the file in this encoding", printable(record.raw)
        )
        return None
    try:
        return [float(fields[position]) for position in chosen.outcomes]
    except ValueError:
        name, cell = next(
            (name, fields[position])
            for name, position in zip(names, chosen.outcomes, strict=True)
            if not _is_number(fields[position])
        )
    what = "this is not a number" if cell.strip() else "the cell is empty"
    problems.add(f"{path}:{record.line}: column {name!r}", what, cell)
    return None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


class _Share:
    """How much of a file has been read, in whole per cents."""

    def __init__(self, path: Path, task: ProgressTask) -> None:
        self._size = max(path.stat().st_size, 1)
        self._task = task
        self._read = self._shown = 0

    def add(self, characters: int) -> None:
        self._read += characters
        self._show(min(100 * self._read // self._size, 100))

    def end(self) -> None:
        self._show(100)

    def _show(self, percent: int) -> None:
        if percent > self._shown:
            self._task.advance(percent - self._shown)
            self._shown = percent
