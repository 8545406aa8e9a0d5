"""Opening a study, where Optuna is installed."""

from __future__ import annotations

from pathlib import Path

from finetune.application.ports import Direction, SearchStudy, Space
from finetune.domain.errors import MissingExtra


def open_study(folder: Path, space: Space, direction: Direction, seed: int) -> SearchStudy:
    """Open the study of a folder, or begin one.

    Raises
    ------
    MissingExtra
        Optuna is not installed.
    IntegrityError
        The folder holds something else.
    """
    try:
        from finetune.adapters.search.optuna_study import OptunaStudy
    except ImportError as error:
        raise MissingExtra("sweep", "finetune sweep") from error
    return OptunaStudy(folder, space, direction, seed)
