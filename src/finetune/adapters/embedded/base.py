"""The small base model that comes with the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from finetune.domain.errors import IntegrityError


def model_folder() -> Path:
    """Return the folder of the shipped base model.

    Raises
    ------
    IntegrityError
        The installation lacks it.
    """
    folder = Path(str(files("finetune.adapters.embedded") / "model"))
    if not (folder / "model.safetensors").is_file():
        raise IntegrityError(
            "the embedded base model is missing from this installation",
            where=str(folder),
            remedy="install the package again, or run scripts/build_base_model.py in a source tree",
        )
    return folder
