"""Reading what ``prepare`` wrote, and refusing it where it was made for something else."""

from __future__ import annotations

from typing import Any

from finetune.application.config import ProjectConfig
from finetune.application.labels_file import LabelsFile
from finetune.application.ports import ArtifactStore
from finetune.domain.errors import IntegrityError, InvalidInput
from finetune.domain.examples import Example
from finetune.domain.splits import SPLITS

AGAIN = "run `finetune prepare` again"


def preparation_facts(config: ProjectConfig) -> dict[str, Any]:
    """Return everything of a configuration that the prepared data depend on."""
    return {
        "data": config.fingerprint("data"),
        "prompt": config.fingerprint("prompt"),
        "training.max_length": config.training.max_length,
        "model_id": config.model_id,
        "revision": config.revision,
        "tokenizer_id": config.tokenizer_id,
    }


def check_prepared(store: ArtifactStore, config: ProjectConfig, labels: LabelsFile | None = None) -> None:
    """Check that a folder holds whole prepared data for this configuration.

    Parameters
    ----------
    store
        The prepared folder.
    config
        The configuration about to be used.
    labels
        The labels file as it is now; ``None`` leaves it unchecked.  Costs may change freely.

    Raises
    ------
    InvalidInput
        Nothing was prepared.
    IntegrityError
        A file was changed, or the configuration or the labels were since.
    """
    if not store.exists("manifest.json"):
        raise InvalidInput(
            "there are no prepared data", where=str(store.folder), remedy="run `finetune prepare` first"
        )
    store.verify("labels.yaml", *(f"{split}.jsonl" for split in SPLITS))
    made_for = store.read_json("manifest.json").get("made_for")
    if not isinstance(made_for, dict):
        raise IntegrityError("this is no manifest of prepared data", where=str(store.folder), remedy=AGAIN)
    wanted = preparation_facts(config)
    if labels is not None:
        wanted["labels"] = labels.label_set().fingerprint()
    changed = [key for key, value in wanted.items() if made_for.get(key) != value]
    if changed:
        raise IntegrityError(
            f"the prepared data were made for another configuration; changed since: {', '.join(changed)}",
            where=str(store.folder),
            remedy=AGAIN,
        )


def split_hashes(store: ArtifactStore) -> dict[str, str]:
    """Return the SHA-256 of each split, the same for the same rows whenever they were prepared."""
    return {split: store.sha256(f"{split}.jsonl") for split in SPLITS}


def read_prepared(store: ArtifactStore, split: str) -> list[Example]:
    """Read the examples of one split in their order.

    Raises
    ------
    InvalidInput
        The split was not prepared.
    IntegrityError
        A row is damaged.
    """
    name = f"{split}.jsonl"
    if not store.exists(name):
        raise InvalidInput(
            f"there are no prepared {split} rows",
            where=str(store.folder / name),
            remedy="run `finetune prepare` first",
        )
    examples = []
    for number, row in enumerate(store.read_rows(name), start=1):
        try:
            example = Example(row["id"], row["text"], row["label"], row["rationale"], split, row["metadata"])
        except (KeyError, AttributeError, InvalidInput) as error:
            raise IntegrityError(
                "this is no prepared row", where=f"{store.folder / name}:{number}", remedy=AGAIN
            ) from error
        examples.append(example)
    return examples
