"""Training rows as tensors, and the order in which they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from finetune.adapters.hf.scorer import left_pad
from finetune.application.ports import EncodedExample

IGNORED = -100


class EncodedRows(Dataset[dict[str, list[int]]]):
    """Encoded examples as a map-style data set."""

    def __init__(self, rows: Sequence[EncodedExample]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        row = self._rows[index]
        ids = list(row.ids)
        return {"input_ids": ids, "labels": [IGNORED] * row.answer_start + ids[row.answer_start :]}


class AnswerCollator:
    """Pads on the left, so that the answers end together and only the last logits are needed."""

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def __call__(self, features: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        """Return ``input_ids, attention_mask, position_ids, labels``, each (B, T)."""
        batch = left_pad([row["input_ids"] for row in features], self._pad_id, torch.device("cpu"))
        labels = torch.full_like(batch["input_ids"], IGNORED)
        for i, row in enumerate(features):
            labels[i, labels.shape[1] - len(row["labels"]) :] = torch.tensor(row["labels"], dtype=torch.long)
        return {**batch, "labels": labels}


class LengthGroupedSampler(Sampler[int]):
    """A fresh shuffle per epoch in which neighbouring rows have similar lengths.

    The order depends on the seed and the epoch only, never on a global generator, so that a resumed run
    sees what an uninterrupted one would have seen.

    Parameters
    ----------
    lengths
        Tokens of each row.
    batch_size
        Rows of one optimiser step; rows are sorted by length within 16 such steps.
    seed
        Seed of the shuffles.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = np.asarray(lengths)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is given next."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self._seed, self._epoch])
        order = rng.permutation(len(self._lengths))
        window = 16 * self._batch_size
        batches: list[np.ndarray] = []
        for start in range(0, len(order), window):
            part = order[start : start + window]
            part = part[np.argsort(-self._lengths[part], kind="stable")]
            batches += [part[i : i + self._batch_size] for i in range(0, len(part), self._batch_size)]
        # A short last batch stays last: in the middle it would shift all others out of step.
        whole = [batch for batch in batches if len(batch) == self._batch_size]
        rest = [batch for batch in batches if len(batch) < self._batch_size]
        yield from (int(i) for k in rng.permutation(len(whole)) for i in whole[k])
        yield from (int(i) for batch in rest for i in batch)
