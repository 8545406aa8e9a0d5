"""The splits, and an order of rows that depends on nothing but their texts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from finetune.domain.duplicates import check_texts, normalise_text
from finetune.domain.errors import InvalidInput

SPLITS = ("train", "validation", "calibration", "test")
"""The splits, from the least to the most protected one."""


def hash_order(texts: Sequence[str], seed: int, purpose: str) -> list[int]:
    """Return the rows in an order that depends on each text, the seed and the purpose alone.

    Orders for different purposes are independent.  Equal normalised texts are ordered by text, then by row.
    """

    def key(row: int) -> tuple[bytes, str, int]:
        content = f"{seed}|{purpose}|{normalise_text(texts[row])}".encode("utf-8", "surrogatepass")
        return hashlib.sha256(content).digest(), texts[row], row

    return sorted(range(len(texts)), key=key)


def check_split(name: str, where: str) -> None:
    """Raise InvalidInput unless this is a split."""
    if name not in SPLITS:
        raise InvalidInput("unknown split", where=where, seen=name, remedy="use " + ", ".join(SPLITS))


def check_rows(texts: Sequence[str], **others: Sequence[object]) -> None:
    """Raise InvalidInput unless all are texts and there is one of the others for each."""
    check_texts(texts)
    for name, values in others.items():
        if len(values) != len(texts):
            raise InvalidInput(f"{name} and texts differ in length", seen=(len(values), len(texts)))
