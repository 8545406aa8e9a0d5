"""What is checked once a model is loaded, before anything rests on it."""

from __future__ import annotations

import numpy as np
import torch
from transformers import PreTrainedModel

from finetune.adapters.hf.encoder import HfEncoder
from finetune.adapters.hf.scorer import CausalLabelScorer
from finetune.domain.errors import FinetuneError, InvalidInput

# Largest difference of a label's log-probability between a plain forward and cached, padded scoring, for
# log-probabilities of size 10.  Where an architecture's cache is not understood it is many times as large.
_TOLERANCE = {torch.float32: 1e-2, torch.float16: 0.1, torch.bfloat16: 0.25}
_PROBES = ("Hello", "A second and somewhat longer text, so that the first one is padded.")


def check_fits(model: PreTrainedModel, encoder: HfEncoder) -> None:
    """Check that positions and vocabulary of the model hold what the encoder makes.

    Raises
    ------
    InvalidInput
        ``training.max_length`` exceeds the model's positions, or the tokeniser belongs to another model.
    """
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is not None and encoder.max_length > positions:
        raise InvalidInput(
            f"the model has {positions} positions only",
            where="training.max_length",
            seen=encoder.max_length,
            remedy=f"set it to {positions} or less",
        )
    rows = model.get_input_embeddings().num_embeddings
    largest = max(encoder.end_id, encoder.pad_id, len(encoder.tokenizer) - 1)
    if largest >= rows:
        raise InvalidInput(
            f"the tokeniser has a token {largest}, and the model embeds {rows} only",
            where="tokenizer_id",
            seen=encoder.tokenizer.name_or_path,
            remedy="use the model's own tokeniser",
        )


def check_scoring(scorer: CausalLabelScorer) -> None:
    """Compare cached, padded scoring with plain forwards on two probes of different length.

    Raises
    ------
    InvalidInput
        They differ, as for some recurrent and hybrid architectures, or the architecture has no such cache.
    """
    model, paths = scorer.model, scorer.encoder.label_paths
    chosen = sorted({0, max(range(len(paths)), key=lambda k: len(paths[k])), len(paths) - 1})
    try:
        scores = scorer.score(_PROBES)
        found = (scores.log_probabilities + scores.label_mass[:, None])[:, chosen]
        expected = np.array([[_plain(scorer, text, paths[k]) for k in chosen] for text in _PROBES])
    except FinetuneError:
        raise
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise _unsuited(model, f"{type(error).__name__}: {error}") from error
    difference = float(np.abs(found - expected).max())
    if difference > _TOLERANCE.get(model.dtype, 0.25) * max(1.0, float(np.abs(expected).max()) / 10):
        raise _unsuited(model, f"log-probabilities differ by {difference:.3g}")


def _plain(scorer: CausalLabelScorer, text: str, path: list[int]) -> float:
    model = scorer.model
    ids, _ = scorer.encoder.score_ids(text)
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids + path], device=model.device)).logits[0].float()
    finally:
        model.train(training)
    log_probabilities = torch.log_softmax(logits, dim=-1)
    places = torch.arange(len(ids) - 1, len(ids) - 1 + len(path), device=logits.device)
    return float(log_probabilities[places, torch.tensor(path, device=logits.device)].sum())


def _unsuited(model: PreTrainedModel, seen: str) -> InvalidInput:
    return InvalidInput(
        f"labels of this architecture ({model.config.model_type}) cannot be scored from a cache",
        where="model_id",
        seen=seen,
        remedy="choose a model with plain attention layers, such as Qwen2.5 or GLM-4",
    )
