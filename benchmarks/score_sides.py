"""One side of the scoring comparison, in a process of its own.

    python -m benchmarks.score_sides SIDE SHAPE FOLDER TEXTS BATCH LIMIT

Each turn decides the first TEXTS texts anew, beginning with their characters; nothing of a text is kept.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from benchmarks.llm_measuring import Turn
from benchmarks.llm_tasks import Task, load_task, open_encoder
from transformers import AutoModelForCausalLM, PreTrainedModel

from finetune.adapters.hf.checks import open_scorer
from finetune.adapters.hf.encoder import HfEncoder
from finetune.adapters.hf.padded_scoring import left_pad
from finetune.adapters.hf.scorer import CausalLabelScorer
from finetune.adapters.hf.tree_gate import TreeChoice
from finetune.application.config import PredictionConfig
from finetune.domain.parsing import parse_answer
from finetune.domain.token_tree import TokenTree
from finetune.domain.tree_batches import shared_length

NEW_TOKENS = 32


class Setting(NamedTuple):
    """What a side works with."""

    task: Task
    encoder: HfEncoder
    model: PreTrainedModel
    batch: int
    limit: float


class Done(NamedTuple):
    """What a side did: the decisions, for how many texts' worth of work, and what else there is to say."""

    decisions: list[str | None]
    texts: float
    more: dict[str, float]


Run = Callable[[Sequence[str]], Done]
Side = Callable[[Setting], Run]


def trees(setting: Setting, prune: float) -> Run:
    options = PredictionConfig(batch_size=setting.batch, prune=prune)
    scorer = open_scorer(setting.model, setting.encoder, options)
    if scorer.path.path != "tree":
        raise RuntimeError(f"not run as trees: {scorer.path.reason}")
    return partial(_score, scorer)


def padded(setting: Setting) -> Run:
    path = TreeChoice("padded", "Batches are padded: asked for.")
    return partial(_score, CausalLabelScorer(setting.model, setting.encoder, setting.batch, path=path))


def _score(scorer: CausalLabelScorer, texts: Sequence[str]) -> Done:
    scores = scorer.score(texts)
    best = scores.log_probabilities.argmax(axis=1)
    sure = float(np.exp(scores.log_probabilities.max(axis=1)).mean())
    more = {"sure": sure, "left_out": float(scores.left_out.max())}
    return Done([scorer.outcomes[k] for k in best], len(texts), more)


def generate(setting: Setting) -> Run:
    """Answers of 32 tokens at most: greedy, batched, with a cache, until the model ends its turn."""
    model, encoder = setting.model, setting.encoder

    def run(texts: Sequence[str]) -> Done:
        answers: list[str | None] = [None] * len(texts)
        valid = 0
        prompts = [encoder.prompt_ids(text, NEW_TOKENS) for text in texts]
        for rows in _by_length(prompts, setting.batch):
            batch = left_pad([prompts[i] for i in rows], encoder.pad_id, model.device)
            written = model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                eos_token_id=encoder.end_id,
                pad_token_id=encoder.pad_id,
            )[:, batch["input_ids"].shape[1] :]
            for i, text in zip(
                rows, encoder.tokenizer.batch_decode(written, skip_special_tokens=True), strict=True
            ):
                parsed = parse_answer(text, setting.task.labels)
                answers[i] = parsed.decision
                valid += parsed.valid
        return Done(answers, len(texts), {"valid": valid / len(texts)})

    return run


def one_forward_per_label(setting: Setting) -> Run:
    """As in lm-evaluation-harness: prompt and label as one row, longest first, all logits, right-padded."""
    model, encoder = setting.model, setting.encoder

    def run(texts: Sequence[str]) -> Done:
        began = time.perf_counter()
        prompts = [encoder.score_ids(text)[0] for text in texts]
        pairs = [(i, k) for i in range(len(texts)) for k in range(len(encoder.outcomes))]
        rows = [prompts[i] + encoder.label_paths[k] for i, k in pairs]
        scores = np.full((len(texts), len(encoder.outcomes)), -np.inf)
        done = 0
        for batch in _by_length(rows, setting.batch):
            inputs = torch.full((len(batch), len(rows[batch[0]]) - 1), encoder.pad_id)
            mask = torch.zeros_like(inputs)
            for place, i in enumerate(batch):
                length = len(rows[i]) - 1
                inputs[place, :length], mask[place, :length] = torch.tensor(rows[i][:-1]), 1
            found = torch.log_softmax(model(input_ids=inputs, attention_mask=mask).logits, dim=-1)
            for place, i in enumerate(batch):
                text, label = pairs[i]
                path, first = encoder.label_paths[label], len(prompts[text]) - 1
                taken = found[place, first : first + len(path)].gather(1, torch.tensor(path)[:, None])
                scores[text, label] = float(taken.sum())
            done += len(batch)
            if time.perf_counter() - began > setting.limit:
                break
        whole = done == len(pairs)
        decisions = [encoder.outcomes[k] if whole else None for k in scores.argmax(axis=1)]
        return Done(decisions, done / len(encoder.outcomes), {"share": done / len(pairs)})

    return run


def prefill(setting: Setting, length: int | None, *, logits: bool = False) -> Run:
    """Run the unique tokens of the texts and labels in one plain forward, for the cache alone or the logits.

    A tree asks for the logits of almost all tokens of labels.
    """
    model = setting.model

    def run(texts: Sequence[str]) -> Done:
        tokens = unique_tokens(setting.encoder, texts)
        rows = 1 if length is None else max(1, round(len(tokens) / length))
        inputs = torch.tensor(tokens[: len(tokens) // rows * rows]).view(rows, -1)
        found = model(input_ids=inputs, use_cache=True, logits_to_keep=0 if logits else 1)
        if logits:
            # As much as is read off: one probability a token.
            torch.log_softmax(found.logits.float(), dim=-1)
        return Done([], len(texts) * inputs.numel() / len(tokens), {})

    return run


def unique_tokens(encoder: HfEncoder, texts: Sequence[str]) -> list[int]:
    """Return each token that all labels of all texts need run once, the instructions apart.

    A label's last token is read off the one before it, and not run.
    """
    tree = TokenTree()
    prompts = [encoder.score_ids(text)[0] for text in texts]
    for prompt in prompts:
        for path in encoder.label_paths:
            tree.add([*prompt, *path[:-1]])
    instructions = min(shared_length(prompts[0], prompt) for prompt in prompts)
    return list(map(int, tree.ids[instructions:]))


def _by_length(rows: Sequence[Sequence[int]], batch: int) -> list[list[int]]:
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    return [order[start : start + batch] for start in range(0, len(order), batch)]


ALL, PRUNED = "finetune, trees, all labels", "finetune, trees"
MORE_PRUNED, MORE = "finetune, trees, prune 0.001", 1e-3
EXPANDED = "finetune, padded (cache expansion)"
GENERATE, PER_LABEL = "generate 32 tokens, parse", "one forward per label"
PREFILL, PREFILL_ROWS = "plain forward, one row", "plain forward, rows of 512"
PREFILL_LOGITS = "plain forward, rows of 512, logits"
SIDES: dict[str, Side] = {
    PRUNED: partial(trees, prune=PredictionConfig().prune),
    MORE_PRUNED: partial(trees, prune=MORE),
    ALL: partial(trees, prune=0.0),
    EXPANDED: padded,
    GENERATE: generate,
    PER_LABEL: one_forward_per_label,
    PREFILL: partial(prefill, length=None),
    PREFILL_ROWS: partial(prefill, length=512),
    PREFILL_LOGITS: partial(prefill, length=512, logits=True),
}


def main() -> None:
    side, shape, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    n, batch, limit = int(sys.argv[4]), int(sys.argv[5]), float(sys.argv[6])
    turn = Turn()
    task = load_task(shape)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    run = SIDES[side](Setting(task, open_encoder(folder, task), model, batch, limit))
    forwarded = [0]

    def count(_: Any, __: Any, arguments: dict[str, Any]) -> None:
        forwarded[0] += arguments["input_ids"].numel()

    model.register_forward_pre_hook(count, with_kwargs=True)
    turn.say()
    while True:
        turn.wait()
        forwarded[0] = 0
        with torch.inference_mode():
            done = run(task.texts[:n])
        turn.tell(tokens=forwarded[0], texts=done.texts, decisions=done.decisions, **done.more)


if __name__ == "__main__":
    main()
