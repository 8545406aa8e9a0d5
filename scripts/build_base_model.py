"""Build the small base model that the project ships: tokeniser, weights and a record of both.

    python scripts/build_base_model.py --steps 2400

A Qwen2-architecture causal LM of about 2.3 million parameters with its own byte-level BPE, pre-trained on
unlabelled generated text (``finetune.adapters.embedded.corpus``).  It never sees a label of the triage task.
The result is small on purpose and says so: it makes the main job runnable without a download, no more.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

from finetune.adapters.embedded.corpus import extractions, unlabelled_documents
from finetune.adapters.embedded.messages import OUTCOMES

TARGET = Path(__file__).parents[1] / "src" / "finetune" / "adapters" / "embedded" / "model"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCABULARY = 3072
WINDOW = 256
ROWS = 16
# Qwen2's way of cutting text before bytes are merged.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Words that every real model knows, the names of the outcomes among them.  They are learnt as words, drawn
# at random and never beside a message: what they have to do with messages is left for the tuning to find.
COMMON_WORDS = (
    "decision rationale label labels answer true false null why text message messages name value kind note "
    f"system user assistant none other yes no {' '.join(OUTCOMES)} Answer Labels Triage of patient not "
    "decidable from about something else doctor nurse clinic"
).split()
WORD_SHARE = 0.1
CHAT_SHARE = 0.6


def build_tokenizer(documents: int) -> PreTrainedTokenizerFast:
    """Train the byte-level BPE on generated text and on common words."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = [f'{{"{word}": "{word}", "{word}": true}} {word} <{word}>' for word in COMMON_WORDS] * 200
    text = itertools.islice(unlabelled_documents(0), documents)
    core.train_from_iterator(itertools.chain(text, words), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        model_max_length=1024,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def chat(*turns: tuple[str, str]) -> str:
    """Write turns of (role, content) in the chat format."""
    return "\n".join(f"<|im_start|>{role}\n{content}<|im_end|>" for role, content in turns)


def word_document(draws: random.Random) -> str:
    """Write a list, a JSON object or a chat of common words drawn at random."""
    words = draws.choices(COMMON_WORDS, k=8)
    flags = [draws.random() < 0.5 for _ in range(4)]
    pairs = {
        key: draws.choice([value, flag]) for key, value, flag in zip(words[:4], words[4:], flags, strict=True)
    }
    written = json.dumps(dict(list(pairs.items())[: draws.randint(1, 4)]))
    return draws.choice(
        [
            " ".join(words),
            written,
            chat(("system", " ".join(words)), ("assistant", written)),
        ]
    )


def windows(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[list[int]]:
    """Yield token windows packed from documents without end."""
    draws = random.Random(seed)
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    buffer: list[int] = []
    texts, read = unlabelled_documents(seed), extractions(seed)
    while True:
        kind = draws.random()
        if kind < WORD_SHARE:
            written = word_document(draws)
        elif kind < WORD_SHARE + CHAT_SHARE:
            request, text, answer = next(read)
            system = " ".join([*draws.sample(COMMON_WORDS, 3), "Answer:", request])
            written = chat(("system", system), ("user", text), ("assistant", answer))
        else:
            written = next(texts)
        buffer += [*tokenizer(written, add_special_tokens=False)["input_ids"], end]
        while len(buffer) > WINDOW:
            yield buffer[: WINDOW + 1]
            buffer = buffer[WINDOW:]


def main() -> None:
    """Build tokeniser and weights and save them beside the adapter's code."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--steps", type=int, default=2400, help="optimiser steps of 16 windows")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--learning-rate", type=float, default=2.5e-3)
    options.add_argument("--out", type=Path, default=TARGET)
    given = options.parse_args()
    began = time.monotonic()
    tokenizer = build_tokenizer(40_000)
    torch.manual_seed(given.seed)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=576,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=given.learning_rate, betas=(0.9, 0.95), weight_decay=0.05
    )
    warm = 100
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min((step + 1) / warm, 0.02 + 0.98 * (1 + math.cos(math.pi * step / given.steps)) / 2),
    )
    stream = windows(tokenizer, given.seed)
    average = None
    for step in range(given.steps):
        batch = torch.tensor(list(itertools.islice(stream, ROWS)))
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(batch[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        average = loss.item() if average is None else 0.98 * average + 0.02 * loss.item()
        if step % 50 == 0 or step == given.steps - 1:
            print(f"step {step}: loss {average:.3f}, {time.monotonic() - began:.0f} s", flush=True)
    model.to(torch.bfloat16).save_pretrained(given.out)
    tokenizer.save_pretrained(given.out)
    record = {
        "command": f"python scripts/build_base_model.py --steps {given.steps} --seed {given.seed}",
        "parameters": sum(p.numel() for p in model.parameters()),
        "training_tokens": given.steps * ROWS * WINDOW,
        "loss_nats_per_token": round(average or 0.0, 3),
    }
    (given.out / "recipe.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
