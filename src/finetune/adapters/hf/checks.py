"""What is checked once a model is loaded, before anything rests on it."""

from __future__ import annotations

import numpy as np
import torch
from transformers import PreTrainedModel

from finetune.adapters.hf.encoder import HfEncoder
from finetune.adapters.hf.engine import log_softmax
from finetune.adapters.hf.row_attention import attend_in_rows, attends_in_rows
from finetune.adapters.hf.scorer import CausalLabelScorer
from finetune.adapters.hf.tree_gate import TreeChoice
from finetune.application.config import PredictionConfig
from finetune.domain.errors import InvalidInput

# Largest difference of a label's log-probability between a plain forward and scoring from a cache, for
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


def open_scorer(model: PreTrainedModel, encoder: HfEncoder, options: PredictionConfig) -> CausalLabelScorer:
    """Return the scorer of a model, after a comparison with plain forwards.

    Parameters
    ----------
    model, encoder
        The model and its encoder.
    options
        Batch size and pruning.

    Returns
    -------
    CausalLabelScorer
        Its ``path`` says how batches run, and why.  Where scores of token trees turn out wrong, they are
        padded.

    Raises
    ------
    InvalidInput
        Padded scores are wrong too: see :func:`check_scoring`.
    """
    scorer = CausalLabelScorer(model, encoder, options.batch_size, prune=options.prune)
    if scorer.path.path == "tree":
        problem = _compare(scorer)
        if problem is not None and attends_in_rows(model):
            attend_in_rows(model, enabled=False)
            reason = (
                f"Batches run as token trees, with one mask: in rows, labels had wrong scores ({problem})."
            )
            path = TreeChoice("tree", reason, scorer.path.difference)
            scorer = CausalLabelScorer(model, encoder, options.batch_size, prune=options.prune, path=path)
            problem = _compare(scorer)
        if problem is None:
            return scorer
        reason = f"Batches are padded: as token trees, labels had wrong scores ({problem})."
        path = TreeChoice("padded", reason, scorer.path.difference)
        scorer = CausalLabelScorer(model, encoder, options.batch_size, path=path)
    check_scoring(scorer)
    return scorer


def check_scoring(scorer: CausalLabelScorer) -> None:
    """Compare scores with plain forwards on two probes of different length.

    Raises
    ------
    InvalidInput
        They differ, as for some recurrent and hybrid architectures, or the architecture has no such cache.
    """
    problem = _compare(scorer)
    if problem is not None:
        raise _unsuited(scorer.model, problem)


def _compare(scorer: CausalLabelScorer) -> str | None:
    """Return how scores of all labels to their ends differ from plain forwards, or None where they agree."""
    paths, size = scorer.encoder.label_paths, scorer.engine.batch_size
    exact = CausalLabelScorer(scorer.model, scorer.encoder, size, path=scorer.path)
    chosen = sorted({0, max(range(len(paths)), key=lambda k: len(paths[k])), len(paths) - 1})
    try:
        scores = exact.score(_PROBES)
        found = (scores.log_probabilities + scores.label_mass[:, None])[:, chosen]
        expected = np.array([[_plain(scorer, text, paths[k]) for k in chosen] for text in _PROBES])
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
        return f"{type(error).__name__}: {error}"
    difference = float(np.abs(found - expected).max())
    allowed = _TOLERANCE.get(scorer.model.dtype, 0.25) * max(1.0, float(np.abs(expected).max()) / 10)
    return None if difference <= allowed else f"log-probabilities differ by {difference:.3g}"


def _plain(scorer: CausalLabelScorer, text: str, path: list[int]) -> float:
    model = scorer.model
    ids, _ = scorer.encoder.score_ids(text)
    with scorer.engine.session(), torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids + path], device=model.device)).logits[0]
    places = torch.arange(len(ids) - 1, len(ids) - 1 + len(path), device=logits.device)
    return float(log_softmax(logits)[places, torch.tensor(path, device=logits.device)].sum())


def _unsuited(model: PreTrainedModel, seen: str) -> InvalidInput:
    return InvalidInput(
        f"labels of this architecture ({model.config.model_type}) cannot be scored from a cache",
        where="model_id",
        seen=seen,
        remedy="choose a model with plain attention layers, such as Qwen2.5 or GLM-4",
    )
