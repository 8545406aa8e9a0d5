"""Tiny random models with real tokenisers, saved as local folders the way the hub lays them out."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Glm4Config,
    Glm4MoeConfig,
    GlmConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

# How Qwen and GLM cut text before merging bytes.
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Like GLM's: nothing stands behind the answer.
GLM = (
    "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
GLM_SPECIAL = ["<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>"]
WORDS = [
    'Answer: {"decision": "<label>", "abstain": true|false, "rationale": "<why>"}',
    '{"decision": "abstain", "abstain": true, "rationale": "no reason"}',
    '{"decision": "emergency", "abstain": false, "rationale": "chest pain"}',
    "the quick brown fox jumps over the lazy dog and wants a refill of its medicine",
]


def tokenizer(glm: bool = False, vocab_size: int = 400) -> PreTrainedTokenizerFast:
    special = GLM_SPECIAL if glm else SPECIAL
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(WORDS * 5, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|endoftext|>", pad_token="<|endoftext|>" if glm else "<|im_end|>"
    )
    fast.add_special_tokens({"additional_special_tokens": special[1:]})
    fast.chat_template = GLM if glm else CHATML
    return fast


def _sizes(vocab_size: int) -> dict[str, object]:
    return {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": 0,
    }


def _config(kind: str, vocab_size: int):
    sizes = _sizes(vocab_size)
    if kind == "glm4_moe":
        return Glm4MoeConfig(
            **sizes,
            moe_intermediate_size=16,
            n_routed_experts=4,
            num_experts_per_tok=2,
            first_k_dense_replace=1,
        )
    kinds = {
        "glm": GlmConfig,
        "glm4": Glm4Config,
        "llama": LlamaConfig,
        "qwen2": Qwen2Config,
        "qwen3": Qwen3Config,
    }
    return kinds[kind](**sizes)


ARCHITECTURES = ("glm", "glm4", "glm4_moe", "qwen2", "qwen3", "llama")


def save_tiny(kind: str, folder: Path, seed: int = 0) -> Path:
    """Save a tiny random model of an architecture with its tokeniser; return the folder."""
    fast = tokenizer(glm=kind.startswith("glm"))
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(_config(kind, len(fast)), dtype=torch.float32)
    # Default initialisation makes nearly uniform predictions; wider weights make tests tell right from wrong.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5.0)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
