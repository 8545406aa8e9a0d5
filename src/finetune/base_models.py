"""Names of base models that come with packages instead of from a hub."""

from __future__ import annotations

EMBEDDED_MODEL = "embedded"
MINILM = "minilm"


def resolve_model(model_id: str) -> str:
    """Return the folder of the shipped base model for ``embedded``, that of a package for ``minilm``.

    Any other id is left as it is.

    Raises
    ------
    InvalidInput
        The package with ``minilm`` is not installed.

    Examples
    --------
    >>> resolve_model("Qwen/Qwen2.5-7B")
    'Qwen/Qwen2.5-7B'
    """
    if model_id == EMBEDDED_MODEL:
        from finetune.adapters.embedded.base import model_folder

        return str(model_folder())
    if model_id == MINILM:
        from finetune.adapters.embedded.minilm import minilm_folder

        return str(minilm_folder())
    return model_id
