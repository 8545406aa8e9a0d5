"""The rows of one optimiser step: in which order they come, and how they are divided into forwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypedDict

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import Sampler
from transformers import PreTrainedModel

from finetune.adapters.hf.loading import accepts
from finetune.adapters.hf.padded_scoring import left_pad
from finetune.application.ports import EncodedExample

IGNORED = -100


class Batch(Protocol):
    """What one forward runs."""

    @property
    def tokens(self) -> int:
        """Tokens that the forward computes, padding among them."""


class Batching(Protocol):
    """A way to run rows: padded, or as trees."""

    def divide(self, rows: Sequence[EncodedExample]) -> list[Any]:
        """Divide rows, one or more, into batches; each row is in exactly one of them."""

    def loss(self, model: torch.nn.Module, batch: Any) -> torch.Tensor:
        """Run a batch; return the sum of the cross-entropies of its answer tokens, a float32 scalar."""


class Step(TypedDict):
    """What one process does in one optimiser step."""

    batches: list[Batch]
    answers: int
    """Answer tokens of all processes together."""
    padded_tokens: int
    """Tokens that this process would compute with padding."""


class StepCollator:
    """Gives each process its share of the rows of a step.

    Every process sees all rows of the step, so that the answer tokens need not be gathered, and a step has
    the same rows however many processes there are: none is left out or repeated to make the shares even.

    Parameters
    ----------
    batching
        How the share is run.
    size
        Rows of one padded forward.
    rank, world
        The number of this process, and of all.
    """

    def __init__(self, batching: Batching, size: int, rank: int = 0, world: int = 1) -> None:
        self._batching = batching
        self._size = size
        self._rank = rank
        self._world = world

    def __call__(self, rows: Sequence[EncodedExample]) -> Step:
        """Return this process's part of the step that has these rows."""
        # By turns: the rows are sorted by length, and blocks of them would be unequal work.
        mine = list(rows[self._rank :: self._world])
        if not mine:
            # Gradients are exchanged by all processes or none, so one that has no row runs one without loss.
            mine = [rows[0]._replace(answer_start=len(rows[0].ids))]
        lengths = [len(row.ids) for row in mine]
        blocks = [lengths[i : i + self._size] for i in range(0, len(lengths), self._size)]
        return Step(
            batches=self._batching.divide(mine),
            answers=sum(len(row.ids) - row.answer_start for row in rows),
            padded_tokens=sum(len(block) * max(block) for block in blocks),
        )


@dataclass(frozen=True)
class PaddedBatch:
    """A rectangle of rows: what the model takes, and the labels, each (B, T)."""

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor
    longest_answer: int

    @property
    def tokens(self) -> int:
        """Tokens of the rectangle."""
        return self.labels.numel()


class PaddedBatches:
    """Rectangles, padded on the left: the answers end together and only the last logits are needed.

    Parameters
    ----------
    model
        The model in training, on its device.
    size
        Rows of one forward.
    pad_id
        The token that fills up.
    """

    def __init__(self, model: PreTrainedModel, size: int, pad_id: int) -> None:
        self._device = model.device
        self._size = size
        self._pad_id = pad_id
        self._keeps_logits = accepts(model, "logits_to_keep")
        self._takes_positions = accepts(model, "position_ids")

    def divide(self, rows: Sequence[EncodedExample]) -> list[PaddedBatch]:
        """Return rectangles of ``size`` rows, in the order of the rows."""
        return [self._pad(rows[i : i + self._size]) for i in range(0, len(rows), self._size)]

    def loss(self, model: torch.nn.Module, batch: PaddedBatch) -> torch.Tensor:
        """Run a rectangle; return the sum of the cross-entropies of its answer tokens."""
        keep = batch.longest_answer
        selection = {"logits_to_keep": keep + 1} if self._keeps_logits else {}
        logits = model(**batch.inputs, **selection, use_cache=False).logits[:, -keep - 1 : -1].float()
        labels = batch.labels[:, -keep:]
        return cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")

    def _pad(self, rows: Sequence[EncodedExample]) -> PaddedBatch:
        inputs = left_pad([row.ids for row in rows], self._pad_id, self._device)
        labels = inputs["input_ids"].clone()
        for i, row in enumerate(rows):
            labels[i, : labels.shape[1] - len(row.ids) + row.answer_start] = IGNORED
        if not self._takes_positions:
            del inputs["position_ids"]
        return PaddedBatch(inputs, labels, max(1, *(len(row.ids) - row.answer_start for row in rows)))


class LengthGroupedSampler(Sampler[int]):
    """A fresh shuffle per epoch in which neighbouring rows have similar lengths.

    The order depends on the seed and the epoch only, never on a global generator, so that a resumed run
    sees what an uninterrupted one would have seen.  Trees do not need similar lengths, for they are not
    padded; they come in the same order, so that the way in which rows are run does not change the steps.

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
        self.batch_size = batch_size
        self._lengths = np.asarray(lengths)
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is given next."""
        self._epoch = epoch

    def first_steps(self, count: int) -> list[list[int]]:
        """Return the rows of the first steps of the epoch, fewer where it ends before."""
        order = list(islice(self, count * self.batch_size))
        return [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self._seed, self._epoch])
        order = rng.permutation(len(self._lengths))
        window = 16 * self.batch_size
        batches: list[np.ndarray] = []
        for start in range(0, len(order), window):
            part = order[start : start + window]
            part = part[np.argsort(-self._lengths[part], kind="stable")]
            batches += [part[i : i + self.batch_size] for i in range(0, len(part), self.batch_size)]
        # A short last batch stays last: in the middle it would shift all others out of step.
        whole = [batch for batch in batches if len(batch) == self.batch_size]
        rest = [batch for batch in batches if len(batch) < self.batch_size]
        yield from (int(i) for k in rng.permutation(len(whole)) for i in whole[k])
        yield from (int(i) for batch in rest for i in batch)
