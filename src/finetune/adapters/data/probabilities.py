"""Reading probabilities of any model from CSV, Parquet and NPZ."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from finetune.adapters.data.probabilities_csv import read_csv_probabilities
from finetune.adapters.data.probabilities_npz import read_npz_probabilities
from finetune.adapters.data.probabilities_parquet import read_parquet_probabilities
from finetune.application.ports import ProbabilityFile, ProbabilityRows, Progress
from finetune.domain.errors import InvalidInput

READERS: Mapping[str, Callable[[ProbabilityFile, Progress], ProbabilityRows]] = {
    ".csv": read_csv_probabilities,
    ".parquet": read_parquet_probabilities,
    ".npz": read_npz_probabilities,
}
"""Readers by suffix."""


class ProbabilityFiles:
    """Reads CSV, Parquet and NPZ, told apart by suffix; the whole file is held in memory.

    Examples
    --------
    >>> READERS.keys() == {".csv", ".parquet", ".npz"}
    True
    """

    def read(self, file: ProbabilityFile, progress: Progress) -> ProbabilityRows:
        """Read a whole file; no row is left out.

        Raises
        ------
        InvalidInput
            Where the file is missing or of an unknown type, or a row or column cannot be used.
        MissingExtra
            For Parquet without pyarrow.
        """
        path = file.path
        reader = READERS.get(path.suffix.lower())
        if reader is None:
            raise InvalidInput(
                f"probabilities cannot be read from files of this type; supported are {', '.join(READERS)}",
                where=str(path),
                seen=path.suffix,
                remedy="convert the file",
            )
        if not path.is_file():
            raise InvalidInput(
                "there is no such file",
                where=str(path),
                remedy="check the path; it is relative to the folder that the command was started in",
            )
        return reader(file, progress)
