"""Who is in which split: by content hash, once, and nobody in two of them."""

from finetune.domain.splits.deduplication import (
    DuplicateReport,
    Leak,
    Removed,
    detect_leakage,
    remove_duplicates,
)
from finetune.domain.splits.division import assign_splits, split_calibration
from finetune.domain.splits.rows import SPLITS, hash_order

__all__ = [
    "SPLITS",
    "DuplicateReport",
    "Leak",
    "Removed",
    "assign_splits",
    "detect_leakage",
    "hash_order",
    "remove_duplicates",
    "split_calibration",
]
