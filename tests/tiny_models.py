"""Tiny random models with real tokenisers, saved as local folders the way the hub lays them out."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    Gemma3TextConfig,
    Glm4Config,
    Glm4MoeConfig,
    GlmConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2MoeConfig,
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
    config, more = _CONFIGS[kind]
    return config(**_sizes(vocab_size), **more)


_EXPERTS = {"moe_intermediate_size": 16, "num_experts_per_tok": 2}
_CONFIGS = {
    "glm": (GlmConfig, {}),
    "glm4": (Glm4Config, {}),
    "glm4_moe": (Glm4MoeConfig, {**_EXPERTS, "n_routed_experts": 4, "first_k_dense_replace": 1}),
    "qwen2": (Qwen2Config, {}),
    "qwen3": (Qwen3Config, {}),
    "llama": (LlamaConfig, {}),
    "mistral": (MistralConfig, {}),
    "qwen2_moe": (Qwen2MoeConfig, {**_EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 16}),
    "phi3": (Phi3Config, {}),
    # A layer of each kind; prompts of up to 400 tokens fit into the window.
    "gemma3": (
        Gemma3TextConfig,
        {"sliding_window": 400, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "olmo2": (Olmo2Config, {}),
    "granite": (GraniteConfig, {}),
}
ARCHITECTURES = ("glm", "glm4", "glm4_moe", "qwen2", "qwen3", "llama")
"""Those that have target modules of their own."""
ALL_ARCHITECTURES = tuple(_CONFIGS)


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


def save_tiny_encoder(folder: Path, seed: int = 0) -> Path:
    """Save a tiny random BERT with a tokeniser; return the folder."""
    fast = tokenizer()
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        pad_token_id=fast.pad_token_id,
    )
    BertModel(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
