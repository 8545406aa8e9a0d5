"""What a model writes: the same from a tree, from padded batches and from plain ``generate``."""

from __future__ import annotations

import pytest
import torch
from tests.integration.test_hf_scoring import PADDED, TEXTS, open_tiny
from tests.tiny_models import ALL_ARCHITECTURES, save_tiny

from finetune.adapters.hf.closing import closed_length, read_string
from finetune.adapters.hf.greedy import continue_greedily
from finetune.adapters.hf.scorer import CausalLabelScorer
from finetune.adapters.hf.trees import CachedTree
from finetune.adapters.hf.writer import CausalRationaleWriter

CAP = 12


def generated(engine, prompt: list[int], stop_at_quote: bool) -> str:
    """The text that ``generate`` writes after one prompt, cut as documented."""
    with torch.inference_mode():
        ids = engine.model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=CAP,
            do_sample=False,
            eos_token_id=sorted(engine.ends),
            pad_token_id=engine.encoder.pad_id,
        )[0, len(prompt) :].tolist()
    text = engine.readable(ids)
    return text if not stop_at_quote or (end := closed_length(text)) is None else text[: end + 1]


def closed(text: str) -> str:
    """Up to the quote: what else its last token holds is cut away by whoever reads it."""
    end = closed_length(text)
    return text if end is None else text[: end + 1]


@pytest.mark.parametrize("kind", ALL_ARCHITECTURES)
def test_the_written_text_is_that_of_generate(kind, tmp_path):
    scorer = open_tiny(save_tiny(kind, tmp_path)).scorer
    encoder = scorer.encoder
    assert scorer.path.path == "tree"
    padded = CausalLabelScorer(scorer.model, encoder, 3, path=PADDED).engine
    heads = [encoder.rationale_ids(text, "card_lost", CAP) for text in TEXTS]
    free = [encoder.prompt_ids(text, CAP) for text in TEXTS]
    for engine in (scorer.engine, padded):
        closing = [closed(text) for text in engine.write(heads, CAP, stop_at_quote=True)]
        assert closing == [generated(engine, prompt, True) for prompt in heads]
        assert engine.write(free, CAP, stop_at_quote=False) == [
            generated(engine, prompt, False) for prompt in free
        ]


@pytest.mark.parametrize("path", [None, PADDED], ids=["tree", "padded"])
def test_asking_for_a_rationale_changes_no_score(path, tmp_path):
    opened = open_tiny(save_tiny("qwen2", tmp_path)).scorer
    scorer = CausalLabelScorer(opened.model, opened.encoder, 3, prune=1e-3, path=path)
    writer = CausalRationaleWriter(scorer.engine, opened.encoder, CAP)
    before = scorer.score(TEXTS)
    decisions = [scorer.outcomes[k] for k in before.log_probabilities.argmax(axis=1)]
    first = writer.write(TEXTS, decisions)
    after = scorer.score(TEXTS)
    for one, other in zip(before, after, strict=True):
        assert (one == other).all()
    assert writer.write(TEXTS, decisions) == first


def test_each_row_stops_by_itself(tmp_path):
    """At its own end, at its own closing, or at the cap; and what the others do does not matter."""
    scorer = open_tiny(save_tiny("qwen2", tmp_path)).scorer
    prompts = [scorer.encoder.prompt_ids(text, CAP) for text in TEXTS]

    def write(rows, **options):
        return continue_greedily(CachedTree(scorer.model), rows, **options)

    free = write(prompts, max_new_tokens=CAP, ends=set(), finished=lambda _: False)
    assert [len(tokens) for tokens in free] == [CAP] * len(prompts)
    end = free[1][3]
    cut = write(prompts, max_new_tokens=CAP, ends={end}, finished=lambda _: False)
    assert cut == [tokens[: tokens.index(end)] if end in tokens else tokens for tokens in free], (
        "an end is no part of a text"
    )
    assert len({len(tokens) for tokens in cut}) > 1
    half = write(prompts, max_new_tokens=CAP, ends=set(), finished=lambda tokens: tokens[-1] == end)
    assert half == [tokens[: tokens.index(end) + 1] if end in tokens else tokens for tokens in free]
    assert write(prompts, max_new_tokens=1, ends=set(), finished=lambda _: False) == [t[:1] for t in free]
    assert [
        write([row], max_new_tokens=CAP, ends=set(), finished=lambda _: False)[0] for row in prompts
    ] == free


def test_settings_for_sampling_and_penalties_are_not_applied(tmp_path):
    opened = open_tiny(save_tiny("qwen2", tmp_path)).scorer
    prompts = [opened.encoder.prompt_ids(text, CAP) for text in TEXTS]
    padded = CausalLabelScorer(opened.model, opened.encoder, 3, path=PADDED).engine
    expected = padded.write(prompts, CAP, stop_at_quote=False)
    opened.model.generation_config.repetition_penalty = 5.0
    opened.model.generation_config.temperature = 0.1
    assert padded.write(prompts, CAP, stop_at_quote=False) == expected
    assert opened.engine.write(prompts, CAP, stop_at_quote=False) == expected


@pytest.mark.parametrize(
    ("written", "read"),
    [('done", "x": 1', "done"), (r"a \"b\" c", 'a "b" c'), ("half \\u00", "half"), ("\\ud83d", "?")],
)
def test_strings_are_closed_whatever_the_model_wrote(written, read):
    assert read_string(written) == read
