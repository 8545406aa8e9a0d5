"""Reading examples from JSONL, CSV and Parquet, row by row.

A row that cannot be read is handed on as a :class:`BadRow` with its position; reading goes on after it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from finetune.adapters.data.csv_rows import read_csv
from finetune.adapters.data.lines import is_broken, numbered_lines, printable
from finetune.adapters.data.rows import checked_row, require_column
from finetune.application.config import Columns, DataFile
from finetune.application.ports import BadRow, RawRow
from finetune.domain.errors import InvalidInput, MissingExtra

Reader = Callable[[Path, Columns], Iterator[RawRow | BadRow]]

_BATCH_ROWS = 1024


class FileSource:
    r"""Reads JSONL, CSV and Parquet, told apart by suffix.

    Memory is bounded by one row (by a batch of 1,024 rows for Parquet).

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a.csv"
    ...     _ = path.write_text("text,label\nhello,greeting\n")
    ...     [dict(row.values) for row in FileSource().read(DataFile(path=path), Columns())]
    [{'text': 'hello', 'label': 'greeting'}]
    """

    def read(self, file: DataFile, columns: Columns) -> Iterator[RawRow | BadRow]:
        """Yield every row of one file in order; a broken row is a :class:`BadRow`, never an exception.

        Raises
        ------
        InvalidInput
            Where the file is missing, of an unknown type, unreadable as a whole, or has no text column.
        MissingExtra
            For Parquet without pyarrow.
        """
        path = file.path
        reader = READERS.get(path.suffix.lower())
        if reader is None:
            raise InvalidInput(
                f"files of this type cannot be read; supported are {', '.join(READERS)}",
                where=str(path),
                seen=path.suffix,
                remedy="convert the file (JSONL holds one JSON object a line)",
            )
        if not path.is_file():
            raise InvalidInput(
                "there is no such file",
                where=str(path),
                remedy="check the path; it is relative to the folder that the command was started in",
            )
        yield from reader(path, columns)


def read_jsonl(path: Path, columns: Columns) -> Iterator[RawRow | BadRow]:
    """Yield the rows of a file with one JSON object a line; blank lines are skipped."""
    first = True
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        position, content = f"{path}:{number}", printable(line)
        if is_broken(line):
            yield BadRow(position, "not valid UTF-8", content)
            continue
        try:
            values = json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            yield BadRow(position, f"not JSON: {error}", content)
            continue
        if not isinstance(values, dict):
            yield BadRow(position, "not a JSON object", content)
            continue
        if first:
            require_column(columns.text, list(values), position)
            first = False
        yield checked_row(position, values, columns, content)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def read_parquet(path: Path, columns: Columns) -> Iterator[RawRow | BadRow]:
    """Yield the rows of a Parquet file; positions count rows from 1."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtra("parquet", "Reading Parquet files") from error
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise InvalidInput(
            f"not a readable Parquet file: {error}", where=str(path), remedy="write the file again"
        ) from error
    with file:
        require_column(columns.text, file.schema_arrow.names, str(path))
        number = 0
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            for values in batch.to_pylist():
                number += 1
                row = {name: _json_value(value) for name, value in values.items()}
                yield checked_row(f"{path}:{number}", row, columns, str(values))


def _json_value(value: Any) -> Any:
    """Return a value that JSON has: dates, decimals and bytes become text, NaN becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json_value(item) for item in value]
    if isinstance(value, float):
        return value if value - value == 0.0 else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)


READERS: Mapping[str, Reader] = {".jsonl": read_jsonl, ".csv": read_csv, ".parquet": read_parquet}
"""Readers by suffix."""
