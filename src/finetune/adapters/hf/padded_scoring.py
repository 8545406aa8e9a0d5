"""Prompts as padded batches, for models that cannot run token trees.

Each prompt is run once; its key-value cache is then expanded over the labels, so that a label costs its
own tokens only.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel, StoppingCriteria, StoppingCriteriaList

from finetune.adapters.hf.closing import closed_length
from finetune.adapters.hf.encoder import HfEncoder
from finetune.adapters.hf.engine import LOGIT_BUDGET, Engine, LabelSums, log_softmax
from finetune.adapters.hf.loading import accepts
from finetune.application.ports import ProgressTask
from finetune.domain.checks import FloatArray

# Bytes that the cache of one batch may take once it is expanded over labels.
_CACHE_BUDGET = 2**30


def left_pad(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Return ``input_ids``, ``attention_mask`` and ``position_ids`` (B, T), padded on the left."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask[i, width - len(row) :] = 1
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    batch = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    return {name: tensor.to(device) for name, tensor in batch.items()}


class PaddedEngine(Engine):
    """Runs padded batches; every label is scored to its end."""

    def __init__(self, model: PreTrainedModel, encoder: HfEncoder, batch_size: int) -> None:
        super().__init__(model, encoder, batch_size)
        self._last_logits = {"logits_to_keep": 1} if accepts(model, "logits_to_keep") else {}
        self._positions = accepts(model, "position_ids")

    def forget(self) -> None:
        """Do nothing: padded batches keep nothing."""

    def score(self, prompts: Sequence[Sequence[int]], task: ProgressTask | None = None) -> LabelSums:
        """See :meth:`Engine.score`."""
        sums = np.zeros((len(prompts), len(self.encoder.outcomes)))
        # Prompts of similar length together: the least padding.
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        with self.session(), torch.inference_mode():
            for start in range(0, len(order), self.batch_size):
                rows = order[start : start + self.batch_size]
                sums[rows] = self._score_batch([prompts[i] for i in rows])
                if task is not None:
                    task.advance(len(rows))
        return LabelSums(sums, np.zeros(len(prompts)))

    def _score_batch(self, prompts: Sequence[Sequence[int]]) -> FloatArray:
        model, paths = self.model, self.encoder.label_paths
        batch = left_pad(prompts, self.encoder.pad_id, model.device)
        cache = DynamicCache(config=model.config)
        output = model(**self._arguments(batch), past_key_values=cache, use_cache=True, **self._last_logits)
        first = log_softmax(output.logits[:, -1])
        scores = first[:, [path[0] for path in paths]].cpu().double().numpy()
        longer = [k for k, path in enumerate(paths) if len(path) > 1]
        tail = max(len(path) for path in paths) - 1
        rows = len(prompts)
        by_logits = LOGIT_BUDGET // (rows * max(tail, 1) * first.shape[1])
        chunk = max(1, min(by_logits, _CACHE_BUDGET // max(_nbytes(cache), 1)))
        for start in range(0, len(longer), chunk):
            chosen = longer[start : start + chunk]
            scores[:, chosen] += self._score_tails(batch, copy.deepcopy(cache), [paths[k] for k in chosen])
        return scores

    def _score_tails(
        self, batch: dict[str, torch.Tensor], cache: DynamicCache, paths: Sequence[Sequence[int]]
    ) -> FloatArray:
        """Log-probability of the paths' tokens after the first: (rows, labels)."""
        device, rows, labels = self.model.device, batch["input_ids"].shape[0], len(paths)
        repeat = torch.arange(rows, device=device).repeat_interleave(labels)
        cache.reorder_cache(repeat)
        width = max(len(path) for path in paths) - 1
        inputs = torch.full((labels, width), self.encoder.pad_id)
        targets = torch.zeros((labels, width), dtype=torch.long)
        used = torch.zeros((labels, width), dtype=torch.long)
        for k, path in enumerate(paths):
            n = len(path) - 1
            inputs[k, :n], targets[k, :n], used[k, :n] = torch.tensor(path[:-1]), torch.tensor(path[1:]), 1
        inputs, targets, used = (part.repeat(rows, 1).to(device) for part in (inputs, targets, used))
        positions = batch["position_ids"][repeat, -1:] + 1 + torch.arange(width, device=device)
        tails = {
            "input_ids": inputs,
            "attention_mask": torch.cat([batch["attention_mask"][repeat], used], dim=1),
            "position_ids": positions,
        }
        logits = self.model(**self._arguments(tails), past_key_values=cache, use_cache=True).logits
        picked = log_softmax(logits).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        return (picked * used).cpu().double().sum(1).view(rows, labels).numpy()

    def _arguments(self, batch: dict[str, torch.Tensor]) -> dict[str, Any]:
        return batch if self._positions else {k: v for k, v in batch.items() if k != "position_ids"}

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        *,
        stop_at_quote: bool,
        task: ProgressTask | None = None,
    ) -> list[str]:
        """See :meth:`Engine.write`."""
        written = []
        with self.session(), torch.inference_mode():
            for start in range(0, len(prompts), self.batch_size):
                rows = prompts[start : start + self.batch_size]
                written += [
                    self.readable(tokens) for tokens in self._generate(rows, max_new_tokens, stop_at_quote)
                ]
                if task is not None:
                    task.advance(len(rows))
        return written

    def _generate(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, stop_at_quote: bool
    ) -> list[list[int]]:
        batch = left_pad(prompts, self.encoder.pad_id, self.model.device)
        width = batch["input_ids"].shape[1]
        ids = self.model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=max_new_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            repetition_penalty=1.0,
            eos_token_id=sorted(self.ends),
            pad_token_id=self.encoder.pad_id,
            stopping_criteria=StoppingCriteriaList(
                [_StringClosed(self.encoder, width)] if stop_at_quote else []
            ),
        )
        return [list(row) for row in ids[:, width:].tolist()]


class _StringClosed(StoppingCriteria):
    """Ends each row once its JSON string is closed."""

    def __init__(self, encoder: HfEncoder, start: int) -> None:
        self._encoder = encoder
        self._start = start
        self._done: torch.Tensor | None = None

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: object) -> torch.Tensor:
        if self._done is None:
            self._done = torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
        for i in torch.nonzero(~self._done).flatten().tolist():
            text = self._encoder.tokenizer.decode(input_ids[i, self._start :])
            self._done[i] = closed_length(text) is not None
        return self._done


def _nbytes(cache: DynamicCache) -> int:
    return sum(
        tensor.nbytes
        for layer in cache.layers
        for tensor in vars(layer).values()
        if isinstance(tensor, torch.Tensor)
    )
