"""Probabilities from Parquet."""

from __future__ import annotations

from typing import Any

import numpy as np

from finetune.adapters.data.probability_columns import choose_columns, not_a_label
from finetune.adapters.data.rows import as_text
from finetune.application.ports import ProbabilityFile, ProbabilityRows, Progress
from finetune.domain.errors import InvalidInput, MissingExtra


def read_parquet_probabilities(file: ProbabilityFile, progress: Progress) -> ProbabilityRows:
    """Read the wanted columns of a Parquet file; rows count from 1."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtra("parquet", "Reading Parquet files") from error
    path = file.path
    try:
        opened = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise InvalidInput(
            f"not a readable Parquet file: {error}", where=str(path), remedy="write the file again"
        ) from error
    with opened:
        header = opened.schema_arrow.names
        chosen = choose_columns(header, file, str(path))
        names = tuple(header[position] for position in chosen.outcomes)
        n = opened.metadata.num_rows
        wanted = [header[position] for position in (chosen.label, chosen.id) if position is not None]
        table = opened.read(columns=[*names, *wanted])
    single = all(table.schema.field(name).type == pa.float32() for name in names)
    values = np.empty((n, len(names)), dtype=np.float32 if single else np.float64)
    with progress.task(f"reading {path.name}, columns", len(names)) as task:
        for position, name in enumerate(names):
            values[:, position] = _column(table.column(name), name, file)
            task.advance()
    return ProbabilityRows(
        path=path,
        names=names,
        values=values,
        inputs=file.inputs or "probabilities",
        labels=None if chosen.label is None else _texts(table.column(header[chosen.label])),
        ids=None if chosen.id is None else _texts(table.column(header[chosen.id])),
        lines=np.arange(1, n + 1),
    )


def _column(column: Any, name: str, file: ProbabilityFile) -> Any:
    import pyarrow as pa

    kind = column.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
        raise InvalidInput(
            f"the column is of type {kind}, not of numbers",
            where=f"{file.path}: column {name!r}",
            seen=column[0].as_py() if len(column) else None,
            remedy=not_a_label(file),
        )
    if column.null_count:
        row = column.is_null().to_pylist().index(True) + 1
        more = f" ({column.null_count - 1:,} more are)" if column.null_count > 1 else ""
        raise InvalidInput(
            f"the cell is empty{more}",
            where=f"{file.path}:{row}: column {name!r}",
            seen="null",
            remedy=not_a_label(file),
        )
    return column.cast(pa.float64() if not pa.types.is_floating(kind) else kind).to_numpy()


def _texts(column: Any) -> list[str]:
    # An empty cell stays an empty text, which is refused where it matters, with its row.
    return [as_text(value) or "" for value in column.to_pylist()]
