"""Label probabilities: the sum of the log-probabilities of a label's tokens, closing quote included.

Each prompt is run once; its key-value cache is then expanded over the labels, so that a label costs its
own tokens only.  Greedy generation is not used: it commits to the first token.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel

from finetune.adapters.hf.encoder import HfEncoder
from finetune.adapters.hf.loading import accepts
from finetune.application.ports import LabelScores, ProgressTask
from finetune.domain.errors import InvalidInput

# Vocabulary logits of one expanded forward may take this many float32 values (256 MiB).
_LOGIT_BUDGET = 64 * 1024 * 1024
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


class CausalLabelScorer:
    """Scores every outcome of a label set with a causal language model.

    Parameters
    ----------
    model
        A causal LM, wrapped by peft or not; put into evaluation mode for each call.
    encoder
        Its encoder.
    batch_size
        Prompts per forward.
    """

    def __init__(self, model: PreTrainedModel, encoder: HfEncoder, batch_size: int) -> None:
        self.model = model
        self.encoder = encoder
        self.batch_size = batch_size
        self._last_logits = {"logits_to_keep": 1} if accepts(model, "logits_to_keep") else {}
        self._positions = accepts(model, "position_ids")

    @property
    def outcomes(self) -> tuple[str, ...]:
        """Names of the columns of the scores."""
        return self.encoder.outcomes

    def score(self, texts: Sequence[str], task: ProgressTask | None = None) -> LabelScores:
        """Score every outcome for every text.

        Parameters
        ----------
        texts
            ``n`` texts; those that do not fit are shortened and counted.
        task
            Advanced by one for each text.

        Returns
        -------
        LabelScores
            ``n`` rows; the log-probabilities are normalised over the outcomes in float64.

        Raises
        ------
        InvalidInput
            The model returned NaN.
        """
        encoded = [self.encoder.score_ids(text) for text in texts]
        sums = np.zeros((len(texts), len(self.outcomes)))
        # Prompts of similar length together: the least padding.
        order = sorted(range(len(texts)), key=lambda i: len(encoded[i][0]))
        training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                for start in range(0, len(order), self.batch_size):
                    rows = order[start : start + self.batch_size]
                    sums[rows] = self._score_batch([encoded[i][0] for i in rows])
                    if task is not None:
                        task.advance(len(rows))
        finally:
            self.model.train(training)
        if not np.isfinite(sums).all():
            first = int(np.flatnonzero(~np.isfinite(sums).all(axis=1))[0])
            raise InvalidInput(
                "the model gave a label a probability that is not a number",
                where=f"text {first}",
                seen=texts[first],
                remedy="check the adapter and the precision (training.bf16: false)",
            )
        mass = np.logaddexp.reduce(sums, axis=1, keepdims=True) if len(texts) else np.zeros((0, 1))
        removed = np.array([count for _, count in encoded], dtype=np.int64)
        return LabelScores(sums - mass, np.minimum(mass[:, 0], 0.0), removed)

    def _score_batch(self, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        model, paths = self.model, self.encoder.label_paths
        batch = left_pad(prompts, self.encoder.pad_id, model.device)
        cache = DynamicCache(config=model.config)
        output = model(**self._arguments(batch), past_key_values=cache, use_cache=True, **self._last_logits)
        first = _log_softmax(output.logits[:, -1])
        scores = first[:, [path[0] for path in paths]].cpu().numpy()
        longer = [k for k, path in enumerate(paths) if len(path) > 1]
        tail = max(len(path) for path in paths) - 1
        rows = len(prompts)
        by_logits = _LOGIT_BUDGET // (rows * max(tail, 1) * first.shape[1])
        chunk = max(1, min(by_logits, _CACHE_BUDGET // max(_nbytes(cache), 1)))
        for start in range(0, len(longer), chunk):
            chosen = longer[start : start + chunk]
            scores[:, chosen] += self._score_tails(batch, copy.deepcopy(cache), [paths[k] for k in chosen])
        return scores

    def _score_tails(
        self, batch: dict[str, torch.Tensor], cache: DynamicCache, paths: Sequence[Sequence[int]]
    ) -> np.ndarray:
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
        picked = _log_softmax(logits).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        return (picked * used).sum(1).view(rows, labels).cpu().numpy()

    def _arguments(self, batch: dict[str, torch.Tensor]) -> dict[str, Any]:
        return batch if self._positions else {k: v for k, v in batch.items() if k != "position_ids"}


def _nbytes(cache: DynamicCache) -> int:
    return sum(
        tensor.nbytes
        for layer in cache.layers
        for tensor in vars(layer).values()
        if isinstance(tensor, torch.Tensor)
    )


def _log_softmax(logits: torch.Tensor) -> torch.Tensor:
    # The log-softmax of bf16 logits is off by 1e-2.
    return torch.log_softmax(logits.float(), dim=-1)
