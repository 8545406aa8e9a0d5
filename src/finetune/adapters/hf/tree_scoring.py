"""Prompts as token trees: instructions are run once a model, texts hang from them, labels from the texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedModel

from finetune.adapters.hf.closing import closed_length
from finetune.adapters.hf.encoder import HfEncoder
from finetune.adapters.hf.engine import LOGIT_BUDGET, Engine, LabelSums, log_softmax
from finetune.adapters.hf.greedy import continue_greedily
from finetune.adapters.hf.tree_budget import scoring_budget
from finetune.adapters.hf.trees import CachedTree, Extension
from finetune.application.ports import ProgressTask
from finetune.domain.checks import IntArray
from finetune.domain.label_tree import LabelTree, LabelWalk, Run
from finetune.domain.tree_batches import shared_length

# Two texts without a common beginning: what their prompts share is the same in all prompts.
_PROBES = ("Hello", "2 of them")


class _Job(NamedTuple):
    """Tokens to run behind the prompt of a row that ends at a node of the tree."""

    row: int
    end: int
    run: Run


class TreeEngine(Engine):
    """Runs token trees, in which each token of a batch is computed once.

    The instructions stay in memory with their keys and values until the model's parameters change.  Changes
    that PyTorch does not count (fused optimisers, writing through ``.data``, adapters switched on and off)
    are only seen of a model in training mode: otherwise call :meth:`forget`.

    Parameters
    ----------
    model, encoder, batch_size
        As for :class:`Engine`.  Batches are cut earlier where a tree would pass its token budget.
    prune
        Largest share of a prompt's label mass that may be left out; 0 scores every label to its end.

    Notes
    -----
    Half of the budget is for the texts of a batch, half for their labels, which run in as many forwards as
    that and the memory of their logits ask for.  What is pruned, and how far labels are run at once, depends
    on the prompt alone, so that a score depends on its batch by rounding only.
    """

    def __init__(
        self, model: PreTrainedModel, encoder: HfEncoder, batch_size: int, prune: float = 0.0
    ) -> None:
        super().__init__(model, encoder, batch_size)
        self.prune = prune
        self._labels = LabelTree(encoder.label_paths)
        first, second = (encoder.score_ids(text)[0] for text in _PROBES)
        self._instructions = first[: shared_length(first, second)]
        keys = encoder.max_length + len(self._labels.ids)
        self._nodes = max(1, scoring_budget(model, keys) // 2)
        self._logits = max(1, LOGIT_BUDGET // model.get_input_embeddings().num_embeddings)
        self._cached: CachedTree | None = None
        self._version: tuple[tuple[int, int], ...] = ()

    def forget(self) -> None:
        """Drop the instructions' keys and values."""
        self._cached = None

    def score(self, prompts: Sequence[Sequence[int]], task: ProgressTask | None = None) -> LabelSums:
        """See :meth:`Engine.score`."""
        found = LabelSums(np.zeros((len(prompts), len(self.encoder.outcomes))), np.zeros(len(prompts)))
        with self.session():
            for rows in self._batches(prompts):
                with self._tree() as cached:
                    walks = self._walk(cached, [prompts[i] for i in rows])
                for i, walk in zip(rows, walks, strict=True):
                    found.sums[i], found.left_out[i] = walk.scores(), walk.left_out()
                if task is not None:
                    task.advance(len(rows))
        return found

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        *,
        stop_at_quote: bool,
        task: ProgressTask | None = None,
    ) -> list[str]:
        """See :meth:`Engine.write`."""
        written = [""] * len(prompts)
        with self.session():
            for rows in self._batches(prompts):
                with self._tree() as cached:
                    answers = continue_greedily(
                        cached,
                        [prompts[i] for i in rows],
                        max_new_tokens,
                        ends=self.ends,
                        finished=self._is_closed if stop_at_quote else lambda _: False,
                    )
                for i, tokens in zip(rows, answers, strict=True):
                    written[i] = self.readable(tokens)
                if task is not None:
                    task.advance(len(rows))
        return written

    @contextmanager
    def _tree(self) -> Iterator[CachedTree]:
        """Lend the tree of the instructions; what is added to it is taken back."""
        version = tuple((id(weight), weight._version) for weight in self.model.parameters())
        if self._cached is None or version != self._version:
            self._cached = CachedTree(self.model)
            self._cached.extend([self._instructions], logits_from=None)
            self._version = version
        cached = self._cached
        try:
            yield cached
        finally:
            cached.truncate(len(self._instructions))

    def _batches(self, prompts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Divide prompts into batches; in their order, neighbours share the most."""
        batch: list[int] = []
        before, size = self._instructions, 0
        for i in sorted(range(len(prompts)), key=lambda i: list(prompts[i])):
            new = len(prompts[i]) - shared_length(prompts[i], before)
            if batch and (len(batch) == min(self.batch_size, self._logits) or size + new > self._nodes):
                yield batch
                batch, size = [], 0
                new = len(prompts[i]) - shared_length(prompts[i], self._instructions)
            batch.append(i)
            before, size = prompts[i], size + new
        if batch:
            yield batch

    def _walk(self, cached: CachedTree, prompts: Sequence[Sequence[int]]) -> list[LabelWalk]:
        """Score the labels of a batch: first tokens from the texts, and then what is wanted of the rest."""
        own = [len(prompt) - len(self._instructions) for prompt in prompts]
        walks = [LabelWalk(self._labels, self.prune, room) for room in own]
        texts = cached.extend(prompts)
        ends = [int(path[-1]) for path in texts.paths]
        root = np.zeros(1, dtype=np.int64)
        jobs = [_Job(i, end, Run((), root)) for i, end in enumerate(ends)]
        self._learn(texts, [path[-1:] for path in texts.paths], jobs, walks)
        self._finish(cached, walks, ends, base=len(cached))
        return walks

    def _finish(self, cached: CachedTree, walks: Sequence[LabelWalk], ends: Sequence[int], base: int) -> None:
        """Run what is wanted of the labels of texts that end at these nodes, level by level.

        Where a level does not fit beside those above it, one half of the texts is run to its end before the
        other: nodes that are dropped between levels are run again.  Of a single text they have to be.
        """
        while jobs := [
            _Job(i, end, run)
            for i, (end, walk) in enumerate(zip(ends, walks, strict=True))
            for run in self._labels.runs(walk.wanted())
        ]:
            size = len(cached)
            if len(walks) > 1 and size + _count_new(cached, jobs) > base + self._nodes:
                half = len(walks) // 2
                self._finish(cached, walks[:half], ends[:half], base)
                cached.truncate(min(size, len(cached)))
                self._finish(cached, walks[half:], ends[half:], base)
                return
            for part in self._parts(jobs):
                if len(cached) + _count_new(cached, part) > base + self._nodes:
                    cached.truncate(base)
                grown = cached.extend(
                    [job.run.tokens for job in part],
                    starts=[job.end for job in part],
                    logits_from=[-len(job.run.nodes) for job in part],
                )
                asked = [path[-len(job.run.nodes) :] for path, job in zip(grown.paths, part, strict=True)]
                self._learn(grown, asked, part, walks)

    def _parts(self, jobs: Sequence[_Job]) -> Iterator[list[_Job]]:
        """Divide jobs into forwards whose nodes and logits fit, even where nothing of them is there."""
        part: list[_Job] = []
        nodes = logits = 0
        for job in jobs:
            fits = nodes + len(job.run.tokens) <= self._nodes and logits + len(job.run.nodes) <= self._logits
            if part and not fits:
                yield part
                part, nodes, logits = [], 0, 0
            part.append(job)
            nodes, logits = nodes + len(job.run.tokens), logits + len(job.run.nodes)
        if part:
            yield part

    def _learn(
        self,
        extension: Extension,
        asked: Sequence[IntArray],
        jobs: Sequence[_Job],
        walks: Sequence[LabelWalk],
    ) -> None:
        """Tell walks the probabilities of the label nodes below those that were run."""
        labels = self._labels
        edges = [labels.edges(job.run.nodes) for job in jobs]
        rows = [
            extension.rows(nodes)[np.searchsorted(job.run.nodes, labels.parents[below])]
            for nodes, job, below in zip(asked, jobs, edges, strict=True)
        ]
        # One transfer from the device for all of them.
        found = log_softmax(extension.logits)[np.concatenate(rows), labels.ids[np.concatenate(edges)]]
        values = np.split(found.cpu().double().numpy(), np.cumsum([len(below) for below in edges])[:-1])
        for job, below, part in zip(jobs, edges, values, strict=True):
            walks[job.row].learn(below, part)

    def _is_closed(self, tokens: list[int]) -> bool:
        return closed_length(self.encoder.tokenizer.decode(tokens)) is not None


def _count_new(cached: CachedTree, jobs: Sequence[_Job]) -> int:
    return cached.tree.count_new([job.run.tokens for job in jobs], [job.end for job in jobs])
