"""Scores from token trees: what is kept between calls, what is left out, and that batches do not matter."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from tests.contracts.scorer_contract import Counter
from tests.integration.test_hf_scoring import PADDED, TEXTS, assert_scores, open_tiny, plain_scores
from tests.integration.test_tree_equality import with_lora
from tests.tiny_models import save_tiny, tokenizer

from finetune.adapters.hf import trees
from finetune.adapters.hf.checks import open_scorer
from finetune.adapters.hf.encoder import HfEncoder
from finetune.adapters.hf.engine import LabelSums
from finetune.adapters.hf.row_attention import attend_in_rows, attends_in_rows
from finetune.adapters.hf.scorer import CausalLabelScorer
from finetune.adapters.hf.tree_scoring import TreeEngine
from finetune.adapters.hf.validation import ValidationMetrics
from finetune.application.batch_effect import measure_batch_effect
from finetune.application.config import PredictionConfig
from finetune.domain.errors import InvalidInput
from finetune.domain.examples import Example
from finetune.domain.labels import Abstention, Label, LabelSet
from finetune.domain.prompts import default_prompt

CARDS = LabelSet(
    "Cards",
    tuple(
        Label(f"{what}{how}")
        for what in ("card", "fee", "pin")
        for how in ("", "_lost", "_lost_abroad", " x")
    ),
    Abstention("undecidable"),
)
MANY = [f"{word} {i} about a card" for i, word in enumerate(["lost", "stolen", "new", "my"] * 8)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny("qwen2", tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def model(tiny):
    """A model that is not too sure, so that a little is left out at every limit."""
    model = open_tiny(tiny).scorer.model
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(0.3)
    return model


@pytest.fixture(scope="module")
def encoder():
    return HfEncoder(tokenizer(), CARDS, default_prompt(CARDS), 400)


def make(model, encoder, batch_size=3, **options) -> CausalLabelScorer:
    scorer = CausalLabelScorer(model, encoder, batch_size, **options)
    assert scorer.path.path == "tree"
    return scorer


@pytest.fixture
def forwards(monkeypatch) -> list[int]:
    """Tokens of each forward over a tree."""
    sizes: list[int] = []
    run = trees._forward

    def counted(model, tree, nodes, *rest):
        sizes.append(len(nodes))
        return run(model, tree, nodes, *rest)

    monkeypatch.setattr(trees, "_forward", counted)
    return sizes


def same(one, other, tolerance=1e-5) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


# What is run -----------------------------------------------------------------------------------------


def test_instructions_are_run_once_a_model_and_shared_tokens_once_a_batch(model, encoder, forwards):
    scorer = make(model, encoder, batch_size=64)
    scorer.engine._nodes = 10_000
    forwards.clear()
    scorer.score(TEXTS)
    prompts = {tuple(encoder.score_ids(text)[0]) for text in TEXTS}
    known = len(scorer.engine._instructions)
    assert known > 50
    behind = {prompt[:n] for prompt in prompts for n in range(known + 1, len(prompt) + 1)}
    inner = scorer.engine._labels.inner.sum() - 1
    assert forwards == [known, len(behind), inner * len(prompts)]
    forwards.clear()
    scorer.score(TEXTS)
    assert forwards == [len(behind), inner * len(prompts)]


def test_nothing_but_the_instructions_is_kept(model, encoder):
    scorer = make(model, encoder)
    scorer.score(TEXTS)
    scorer.engine.write([encoder.prompt_ids(TEXTS[0], 12)], 12, stop_at_quote=False)
    cached = scorer.engine._cached
    assert len(cached) == len(scorer.engine._instructions)
    assert {layer.get_seq_length() for layer in cached._cache.layers} == {len(cached)}


def test_an_error_leaves_a_scorer_as_it_was(model, encoder, monkeypatch):
    scorer = make(model, encoder)
    expected = scorer.score(TEXTS)
    with monkeypatch.context() as patch:
        patch.setattr(TreeEngine, "_learn", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            scorer.score(TEXTS)
    same(scorer.score(TEXTS), expected, 0.0)


# Batches ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prune", [0.0, 1e-6, 1e-3])
def test_a_score_does_not_depend_on_its_batch(model, encoder, prune):
    whole = make(model, encoder, batch_size=64, prune=prune)
    whole.engine._nodes = 10_000
    expected = whole.score(MANY)
    for batch_size in (1, 5):
        same(make(model, encoder, batch_size, prune=prune).score(MANY), expected)
    order = np.random.default_rng(0).permutation(len(MANY))
    same(whole.score([MANY[i] for i in order]), expected.part(order))


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_how_much_the_batch_moves_a_score_is_measured(model, encoder, dtype, most):
    scorer = make(deepcopy(model).to(dtype), encoder, batch_size=64, prune=1e-6)
    # Under one mask: in rows of bfloat16 there may be no difference to be measured.
    attend_in_rows(scorer.model, enabled=False)
    scorer.engine._nodes = 10_000
    together = scorer.score([*TEXTS, *MANY]).part(slice(len(TEXTS)))
    effect = measure_batch_effect(scorer, TEXTS, together, Counter())
    assert 0.0 < effect.log_probability < most
    assert 0.0 < effect.total_variation < most


@pytest.mark.parametrize(("nodes", "logits"), [(1, 10_000), (40, 10_000), (10_000, 1), (10_000, 7), (9, 3)])
@pytest.mark.parametrize("prune", [0.0, 1e-3])
def test_labels_are_divided_where_nodes_or_logits_are_too_many(
    model, encoder, forwards, nodes, logits, prune
):
    expected = make(model, encoder, prune=prune).score(MANY)
    scorer = make(model, encoder, prune=prune)
    scorer.engine._nodes, scorer.engine._logits = nodes, logits
    scorer.score(MANY[:1])
    longest = max(len(path) for path in encoder.label_paths)
    longest_text = max(len(encoder.score_ids(text)[0]) for text in MANY) - len(scorer.engine._instructions)
    forwards.clear()
    same(scorer.score(MANY), expected)
    assert max(forwards) <= max(nodes, longest, longest_text)


def test_prompts_that_do_not_begin_with_the_instructions_are_right(model, encoder, monkeypatch):
    """Templates may put anything before them: nothing shared, a part of them, them alone, or less."""
    scorer = make(model, encoder)
    known = scorer.engine._instructions
    prompts = {
        "usual": encoder.score_ids("hello")[0],
        "nothing shared": [7, *encoder.score_ids("hello")[0]],
        "a part": [*known[:20], 11, 12, 13],
        "all of it": list(known),
        "less": list(known[:15]),
        "one token": [9],
    }
    monkeypatch.setattr(encoder, "score_ids", lambda text: (prompts[text], 0))
    names = [*prompts, "less", "nothing shared"]
    scores = scorer.score(names)
    assert_scores(scores, plain_scores(model, encoder, [prompts[name] for name in names]))


def test_a_template_that_puts_the_text_first_is_right(model, monkeypatch):
    fast = tokenizer()
    fast.chat_template = (
        "{% for m in messages | reverse %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    encoder = HfEncoder(fast, CARDS, default_prompt(CARDS), 400)
    scorer = make(model, encoder)
    assert len(scorer.engine._instructions) < 10
    prompts = [encoder.score_ids(text)[0] for text in TEXTS]
    assert_scores(scorer.score(TEXTS), plain_scores(model, encoder, prompts))


# Pruning ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prune", [1e-6, 1e-4, 1e-2])
def test_what_is_left_out_is_bounded_by_what_is_said_and_that_by_what_was_asked(model, encoder, prune):
    exact, pruned = make(model, encoder).score(MANY), make(model, encoder, prune=prune).score(MANY)
    moved = 0.5 * np.abs(np.exp(pruned.log_probabilities) - np.exp(exact.log_probabilities)).sum(axis=1)
    assert (moved <= pruned.left_out + 1e-6).all()
    assert (pruned.left_out <= prune).all()
    assert pruned.left_out.max() > prune / 1e3, "something is left out"
    assert np.isfinite(pruned.log_probabilities).all()
    np.testing.assert_allclose(pruned.label_mass, exact.label_mass, atol=1e-5 + 2 * prune)


def test_pruning_saves_tokens(model, encoder, forwards):
    def tokens(prune: float) -> int:
        scorer = make(model, encoder, batch_size=64, prune=prune)
        scorer.score(MANY[:1])
        forwards.clear()
        scorer.score(MANY)
        return sum(forwards)

    assert tokens(1e-2) < tokens(1e-6) < tokens(0.0)


def test_no_token_is_run_twice_where_the_labels_of_a_batch_do_not_fit(model, encoder, forwards):
    def tokens(nodes: int) -> int:
        scorer = make(model, encoder, batch_size=8, prune=1e-4)
        scorer.score(MANY[:1])
        scorer.engine._nodes = nodes
        forwards.clear()
        same(scorer.score(MANY[:8]), expected)
        return sum(forwards)

    expected = make(model, encoder, prune=1e-4).score(MANY[:8])
    texts = sum(len(encoder.score_ids(text)[0]) for text in MANY[:8])
    assert tokens(texts) == tokens(10_000)


# Weights ---------------------------------------------------------------------------------------------


@pytest.fixture
def adapted(tiny):
    return with_lora(open_tiny(tiny).scorer.model).eval()


def change(model, *, counted: bool) -> None:
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            if counted:
                with torch.no_grad():
                    parameter.add_(0.05)
            else:
                parameter.data.add_(0.05)


def test_instructions_are_run_anew_once_weights_have_changed(adapted, encoder):
    scorer = make(adapted, encoder)
    before = scorer.score(TEXTS)
    change(adapted, counted=True)
    after = scorer.score(TEXTS)
    same(after, make(adapted, encoder).score(TEXTS), 0.0)
    assert np.abs(after.log_probabilities - before.log_probabilities).max() > 1e-3


def test_of_a_model_in_training_nothing_is_kept(adapted, encoder):
    adapted.train()
    scorer = make(adapted, encoder)
    scorer.score(TEXTS)
    change(adapted, counted=False)
    after = scorer.score(TEXTS)
    assert adapted.training
    adapted.eval()
    same(after, make(adapted, encoder).score(TEXTS), 0.0)


def test_changes_that_are_not_counted_can_be_told(adapted, encoder):
    scorer = make(adapted, encoder)
    scorer.score(TEXTS)
    change(adapted, counted=False)
    scorer.engine.forget()
    same(scorer.score(TEXTS), make(adapted, encoder).score(TEXTS), 0.0)


@pytest.mark.parametrize("training", [True, False])
def test_validation_measures_the_weights_as_they_are(adapted, encoder, training, forwards):
    rows = [Example(str(i), text, "card", None) for i, text in enumerate(TEXTS)]

    def validation() -> ValidationMetrics:
        return ValidationMetrics(make(adapted, encoder), encoder, CARDS, rows, json_samples=2)

    metrics = validation()
    adapted.train(training)
    before = dict(metrics())
    change(adapted, counted=False)
    forwards.clear()
    after = dict(metrics())
    instructions = len(metrics._scorer.engine._instructions)
    assert forwards.count(instructions) == 1, "scores and free answers share them"
    assert adapted.training is training
    assert after == validation()()
    assert after["log_loss"] != before["log_loss"]


# The choice ------------------------------------------------------------------------------------------


def test_wrong_scores_of_a_tree_are_answered_with_padded_batches(model, encoder, monkeypatch):
    score = TreeEngine.score

    def off(self, prompts, task=None):
        sums, left_out = score(self, prompts, task)
        return LabelSums(sums - 1.0, left_out)

    monkeypatch.setattr(TreeEngine, "score", off)
    scorer = open_scorer(model, encoder, PredictionConfig(prune=1e-4))
    assert scorer.path.path == "padded"
    assert "log-probabilities differ by 1" in scorer.path.reason
    assert scorer.engine.prune == 0.0
    prompts = [encoder.score_ids(text)[0] for text in TEXTS]
    assert_scores(scorer.score(TEXTS), plain_scores(model, encoder, prompts))


def test_scores_that_are_wrong_in_rows_only_are_answered_with_one_mask(model, encoder, monkeypatch):
    score = TreeEngine.score

    def off(self, prompts, task=None):
        sums, left_out = score(self, prompts, task)
        return LabelSums(sums - 1.0 * attends_in_rows(self.model), left_out)

    monkeypatch.setattr(TreeEngine, "score", off)
    scorer = open_scorer(model, encoder, PredictionConfig(prune=1e-4))
    assert scorer.path.path == "tree"
    assert "with one mask: in rows, labels had wrong scores" in scorer.path.reason
    assert not attends_in_rows(model)
    assert scorer.engine.prune == 1e-4
    attend_in_rows(model, enabled=True)


def test_the_path_may_be_given(model, encoder):
    scorer = CausalLabelScorer(model, encoder, 3, prune=1e-3, path=PADDED)
    assert scorer.path is PADDED
    assert scorer.engine.prune == 0.0
    assert scorer.score(TEXTS).left_out.tolist() == [0.0] * len(TEXTS)


def test_a_score_that_is_not_a_number_is_an_error(model, encoder):
    scorer = make(model, encoder, prune=1e-3)
    weight = model.get_output_embeddings().weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(float("nan"))
    try:
        with pytest.raises(InvalidInput, match="not a number"):
            scorer.score(TEXTS)
    finally:
        with torch.no_grad():
            weight.copy_(before)
