"""The transformers scorer and writer on tiny random models of every supported architecture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.contracts.scorer_contract import SCORER_CASES, WRITER_CASES
from tests.tiny_models import ALL_ARCHITECTURES, ARCHITECTURES, save_tiny

from finetune.adapters.hf import padded_scoring, scorer
from finetune.adapters.hf.model import HfDecisionModel, HfModelOpener
from finetune.adapters.hf.scorer import CausalLabelScorer
from finetune.adapters.hf.tree_gate import TreeChoice
from finetune.application.config import ProjectConfig
from finetune.domain.errors import IntegrityError, InvalidInput
from finetune.domain.labels import Abstention, Label, LabelSet
from finetune.domain.prompts import default_prompt

LABELS = LabelSet(
    "Cards",
    tuple(Label(name) for name in ("card", "card_lost", "card_lost_abroad", "émergence 日本", 'say "x"')),
    Abstention("undecidable"),
)
TEXTS = [
    "hello",
    "a much longer text about a lost card " * 4,
    "日本語 and an emoji 🎉",
    "hello",
]


def open_tiny(folder, labels=LABELS, **changes) -> HfDecisionModel:
    config = ProjectConfig.model_validate(
        {
            "model_id": str(folder),
            "data": {"files": ["a.csv"]},
            "training": {"max_length": 400},
            "prediction": {"batch_size": 3, "max_rationale_tokens": 12},
            **changes,
        }
    )
    return HfModelOpener(lambda name: name).open(config, labels, default_prompt(labels), None)


PADDED = TreeChoice("padded", "Batches are padded: a test asks for it.")


def open_padded(folder, **changes) -> HfDecisionModel:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorer, "choose_path", lambda *_: PADDED)
        return open_tiny(folder, **changes)


def plain_scores(model, encoder, prompts) -> np.ndarray:
    """Log-probability of each outcome by one forward for each prompt and outcome, in float64 sums."""
    sums = np.zeros((len(prompts), len(encoder.label_paths)))
    for i, ids in enumerate(prompts):
        for k, path in enumerate(encoder.label_paths):
            with torch.inference_mode():
                logits = model(torch.tensor([[*ids, *path]])).logits[0].float()
            places = range(len(ids) - 1, len(ids) - 1 + len(path))
            rows = torch.log_softmax(logits[places], -1)
            sums[i, k] = rows[range(len(path)), path].double().sum().item()
    return sums


def assert_scores(scores, expected) -> None:
    mass = np.logaddexp.reduce(expected, axis=1)
    np.testing.assert_allclose(scores.label_mass, mass, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(scores.log_probabilities, expected - mass[:, None], rtol=0, atol=1e-5)


@pytest.fixture(scope="module", params=["tree", "padded"])
def path(request) -> str:
    return request.param


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request, path, tmp_path_factory) -> HfDecisionModel:
    opened = {"tree": open_tiny, "padded": open_padded}[path]
    return opened(save_tiny(request.param, tmp_path_factory.mktemp(request.param)))


def test_the_model_says_how_its_batches_run(model, path):
    assert model.scorer.path.path == path
    assert model.notice == model.scorer.path.reason
    assert model.identity.prune == (1e-6 if path == "tree" else 0.0)


@pytest.mark.parametrize("case", SCORER_CASES, ids=lambda case: case.__name__)
def test_scorer_contract(case, model):
    case(model.scorer)


@pytest.mark.parametrize("case", WRITER_CASES, ids=lambda case: case.__name__)
def test_writer_contract(case, model):
    case(model.writer, model.scorer.outcomes)


@pytest.mark.parametrize("kind", ALL_ARCHITECTURES)
def test_scores_equal_one_plain_forward_per_label(kind, path, tmp_path):
    """Duplicates, prompts of different lengths, names that begin others, and Unicode."""
    opened = {"tree": open_tiny, "padded": open_padded}[path]
    scorer = opened(save_tiny(kind, tmp_path), prediction={"batch_size": 3, "prune": 0.0}).scorer
    assert scorer.path.path == path
    scores = scorer.score(TEXTS)
    encoder = scorer.encoder
    assert_scores(scores, plain_scores(scorer.model, encoder, [encoder.score_ids(text)[0] for text in TEXTS]))
    assert scores.left_out.tolist() == [0.0] * len(TEXTS)


def test_label_paths_of_any_shape_are_scored(path, tmp_path):
    """Of one token, with a shared beginning, all but the last token shared, and long ones."""
    scorer = open_tiny(save_tiny("qwen2", tmp_path)).scorer
    encoder = scorer.encoder
    encoder.label_paths = [[9], [30, 31], [30, 32, 9], [40, 41, 42, 43, 9], [40, 41, 42, 43, 8], [50] * 12]
    scorer = CausalLabelScorer(scorer.model, encoder, 3, path=PADDED if path == "padded" else None)
    prompts = [encoder.score_ids(text)[0] for text in TEXTS]
    np.testing.assert_allclose(
        scorer.engine.score(prompts).sums, plain_scores(scorer.model, encoder, prompts), rtol=0, atol=1e-5
    )


def test_label_paths_end_with_the_quote_and_exclude_each_other(model):
    encoder = model.scorer.encoder
    paths = encoder.label_paths
    for outcome, path in zip(LABELS.outcomes, paths, strict=True):
        written = encoder.tokenizer.decode(path)
        assert written.startswith(outcome.replace('"', '\\"') + '"')
        assert not encoder.tokenizer.decode(path[:-1]).startswith(outcome.replace('"', '\\"') + '"')
    assert not any(a is not b and b[: len(a)] == a for a in paths for b in paths)


def test_many_labels_are_scored_in_chunks_of_padded_batches(tmp_path, monkeypatch):
    model = open_padded(save_tiny("qwen2", tmp_path))
    whole = model.scorer.score(TEXTS)
    monkeypatch.setattr(padded_scoring, "_CACHE_BUDGET", 1)
    np.testing.assert_allclose(
        model.scorer.score(TEXTS).log_probabilities, whole.log_probabilities, rtol=1e-5, atol=1e-5
    )


def test_a_text_cannot_open_or_end_a_turn(model):
    encoder = model.scorer.encoder
    special = set(encoder.tokenizer.all_special_ids)
    count = sum(i in special for i in encoder.score_ids("harmless")[0])
    hostile = "".join(encoder.tokenizer.all_special_tokens)
    assert sum(i in special for i in encoder.score_ids(hostile)[0]) == count


def test_one_token_labels_need_no_second_forward(tmp_path):
    labels = LabelSet("Letters", (Label("a"), Label("b")))
    scores = open_tiny(save_tiny("qwen2", tmp_path), labels).scorer.score(["x"])
    assert np.exp(scores.log_probabilities).sum() == pytest.approx(1.0)


def test_instructions_that_leave_no_room_are_an_error_before_anything_runs(tmp_path):
    folder = save_tiny("qwen2", tmp_path)
    with pytest.raises(InvalidInput, match="no text fits"):
        open_tiny(folder, training={"max_length": 40})


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_base_model_is_named(tmp_path, name):
    folder = save_tiny("qwen2", tmp_path)
    path = folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(IntegrityError, match="could not be loaded"):
        open_tiny(folder)


def test_an_unknown_model_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InvalidInput, match="give its folder as model_id"):
        open_tiny(tmp_path / "nothing-here")
