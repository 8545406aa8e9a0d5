"""Reading examples from CSV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from finetune.adapters.data.csv_records import Broken, CsvRecords, Record
from finetune.adapters.data.lines import is_broken, printable
from finetune.adapters.data.rows import checked_row, require_column
from finetune.application.config import Columns
from finetune.application.ports import BadRow, RawRow


def read_csv(path: Path, columns: Columns) -> Iterator[RawRow | BadRow]:
    """Yield the rows of a CSV file; an empty cell is ``""`` in the text column and no value elsewhere."""
    records = CsvRecords(path)
    require_column(columns.text, records.header, f"{path}:1")
    for record in records:
        if isinstance(record, Broken):
            yield BadRow(f"{path}:{record.line}", record.problem, record.content)
        else:
            yield _row(path, record, records.header, columns)


def _row(path: Path, record: Record, header: list[str], columns: Columns) -> RawRow | BadRow:
    position = f"{path}:{record.line}"
    if is_broken(record.raw):
        return BadRow(position, "not valid UTF-8", printable(record.raw))
    cells = zip(header, record.fields, strict=True)
    values = {name: cell if cell or name == columns.text else None for name, cell in cells}
    return checked_row(position, values, columns, printable(record.raw))
