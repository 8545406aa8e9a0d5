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

from finetune.adapters.hf.label_loss import LabelLoss, Loss
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

    def loss(self, model: torch.nn.Module, batch: Any) -> Loss:
        """Run a batch; return the losses of its rows, each times its weight."""


class Step(TypedDict):
    """What one process does in one optimiser step."""

    batches: list[Batch]
    answers: int
    """Answer tokens of all processes together."""
    rows: int
    """Rows of all processes together."""
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
    labels
        An objective over the labels, which padded forwards run apart.
    """

    def __init__(
        self,
        batching: Batching,
        size: int,
        rank: int = 0,
        world: int = 1,
        labels: LabelLoss | None = None,
    ) -> None:
        self._batching = batching
        self._labels = labels
        self._size = size
        self._rank = rank
        self._world = world

    def __call__(self, rows: Sequence[EncodedExample]) -> Step:
        """Return this process's part of the step that has these rows."""
        # By turns: the rows are sorted by length, and blocks of them would be unequal work.
        mine = list(rows[self._rank :: self._world])
        if not mine:
            # Gradients are exchanged by all processes or none, so one that has no row runs one without loss.
            mine = [rows[0]._replace(answer_start=len(rows[0].ids), weight=0.0)]
        blocks = [mine[i : i + self._size] for i in range(0, len(mine), self._size)]
        return Step(
            batches=self._batching.divide(mine),
            answers=sum(len(row.ids) - row.answer_start for row in rows),
            rows=len(rows),
            padded_tokens=sum(
                count * longest for block in blocks for count, longest in padded_shapes(block, self._labels)
            ),
        )


def padded_shapes(
    rows: Sequence[EncodedExample], labels: LabelLoss | None = None
) -> Iterator[tuple[int, int]]:
    """Give the rectangles that padded rows make, those of their labels among them: rows and columns."""
    yield len(rows), max(len(row.ids) for row in rows)
    if labels is not None:
        stems = labels.stems.ids
        yield len(rows) * len(stems), max(row.label_start for row in rows) + max(map(len, stems))


@dataclass(frozen=True)
class PaddedBatch:
    """A rectangle of B rows, ``(B, T)``, and one of their labels where an objective looks at these.

    Parameters
    ----------
    inputs, targets
        What the model takes, and the tokens that carry a loss.
    longest_answer
        In tokens.
    weights, truth
        What each row counts, and its label, ``(B,)`` each.
    label_inputs
        Each row's prompt with all beginnings of labels behind it, ``(B * S, T')``.
    """

    inputs: dict[str, torch.Tensor]
    targets: torch.Tensor
    longest_answer: int
    weights: torch.Tensor
    truth: torch.Tensor | None = None
    label_inputs: dict[str, torch.Tensor] | None = None

    @property
    def tokens(self) -> int:
        """Tokens of the rectangles."""
        more = 0 if self.label_inputs is None else self.label_inputs["input_ids"].numel()
        return self.targets.numel() + more


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
    labels
        An objective over the labels, whose paths a forward of their own runs; None where there is none.
    """

    def __init__(
        self, model: PreTrainedModel, size: int, pad_id: int, labels: LabelLoss | None = None
    ) -> None:
        self._labels = labels
        self._device = model.device
        self._size = size
        self._pad_id = pad_id
        self._keeps_logits = accepts(model, "logits_to_keep")
        self._takes_positions = accepts(model, "position_ids")

    def divide(self, rows: Sequence[EncodedExample]) -> list[PaddedBatch]:
        """Return rectangles of ``size`` rows, in the order of the rows."""
        return [self._pad(rows[i : i + self._size]) for i in range(0, len(rows), self._size)]

    def loss(self, model: torch.nn.Module, batch: PaddedBatch) -> Loss:
        """Run a rectangle, and that of its labels where there is one; return the losses of its rows."""
        keep = batch.longest_answer
        logits = self._last_logits(model, batch.inputs, keep + 1)[:, :-1]
        losses = cross_entropy(
            logits.flatten(0, 1),
            batch.targets[:, -keep:].flatten(),
            ignore_index=IGNORED,
            reduction="none",
        )
        answers = (losses.view(-1, keep).sum(dim=1) * batch.weights).sum()
        if self._labels is None or batch.truth is None or batch.label_inputs is None:
            return Loss(answers)
        stems, tokens = self._labels.stems, self._labels.tokens
        longest = max(map(len, stems.ids))
        found = self._last_logits(model, batch.label_inputs, longest + 1).log_softmax(dim=-1)
        found = found.view(len(batch.weights), len(stems.ids), longest + 1, -1)
        stem, place, token = (
            torch.from_numpy(part).to(found.device)
            for part in (stems.stem, longest - stems.place, np.maximum(tokens, 0))
        )
        inside = torch.from_numpy(tokens >= 0).to(found.device)
        scores = torch.where(inside, found[:, stem, place, token], 0.0).sum(dim=-1)
        return Loss(answers, self._labels.total(scores, batch.truth, batch.weights))

    def _last_logits(
        self, model: torch.nn.Module, inputs: dict[str, torch.Tensor], count: int
    ) -> torch.Tensor:
        selection = {"logits_to_keep": count} if self._keeps_logits else {}
        logits: torch.Tensor = model(**inputs, **selection, use_cache=False).logits
        return logits[:, -count:].float()

    def _pad(self, rows: Sequence[EncodedExample]) -> PaddedBatch:
        inputs = self._fill([row.ids for row in rows])
        targets = inputs["input_ids"].clone()
        for i, row in enumerate(rows):
            targets[i, : targets.shape[1] - len(row.ids) + row.answer_start] = IGNORED
        longest = max(1, *(len(row.ids) - row.answer_start for row in rows))
        weights = torch.tensor([row.weight for row in rows], device=self._device)
        if self._labels is None:
            return PaddedBatch(inputs, targets, longest, weights)
        truth = torch.from_numpy(self._labels.truth(rows)).to(self._device)
        stems = self._labels.stems.ids
        label_inputs = self._fill([(*row.ids[: row.label_start], *stem) for row in rows for stem in stems])
        return PaddedBatch(inputs, targets, longest, weights, truth, label_inputs)

    def _fill(self, sequences: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        inputs = left_pad(sequences, self._pad_id, self._device)
        if not self._takes_positions:
            del inputs["position_ids"]
        return inputs


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
    shares
        Relative frequencies with which the rows of an epoch are drawn, with replacement; None: each row is in
        each epoch once.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, seed: int, shares: Sequence[float] | None = None
    ) -> None:
        self._shares = None if shares is None else np.asarray(shares) / np.sum(shares)
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
        n = len(self._lengths)
        order = rng.permutation(n) if self._shares is None else rng.choice(n, n, p=self._shares)
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
