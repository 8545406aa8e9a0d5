"""The transformers scorer and writer on tiny random models of every supported architecture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.contracts.scorer_contract import SCORER_CASES, WRITER_CASES
from tests.tiny_models import ARCHITECTURES, save_tiny

from finetune.adapters.hf.model import HfDecisionModel, HfModelOpener
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


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request, tmp_path_factory) -> HfDecisionModel:
    return open_tiny(save_tiny(request.param, tmp_path_factory.mktemp(request.param)))


@pytest.mark.parametrize("case", SCORER_CASES, ids=lambda case: case.__name__)
def test_scorer_contract(case, model):
    case(model.scorer)


@pytest.mark.parametrize("case", WRITER_CASES, ids=lambda case: case.__name__)
def test_writer_contract(case, model):
    case(model.writer, model.scorer.outcomes)


def test_scores_equal_one_plain_forward_per_label(model):
    scores = model.scorer.score(TEXTS)
    encoder = model.scorer.encoder
    expected = np.zeros((len(TEXTS), len(LABELS.outcomes)))
    for i, text in enumerate(TEXTS):
        ids, _ = encoder.score_ids(text)
        for k, path in enumerate(encoder.label_paths):
            with torch.inference_mode():
                logits = model.scorer.model(torch.tensor([ids + path])).logits.float()
            log_probabilities = torch.log_softmax(logits[0], -1)
            expected[i, k] = sum(
                log_probabilities[len(ids) - 1 + j, token].item() for j, token in enumerate(path)
            )
    mass = np.logaddexp.reduce(expected, axis=1)
    np.testing.assert_allclose(scores.label_mass, mass, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(scores.log_probabilities, expected - mass[:, None], rtol=1e-5, atol=1e-5)


def test_label_paths_end_with_the_quote_and_exclude_each_other(model):
    encoder = model.scorer.encoder
    paths = encoder.label_paths
    for outcome, path in zip(LABELS.outcomes, paths, strict=True):
        written = encoder.tokenizer.decode(path)
        assert written.startswith(outcome.replace('"', '\\"') + '"')
        assert not encoder.tokenizer.decode(path[:-1]).startswith(outcome.replace('"', '\\"') + '"')
    assert not any(a is not b and b[: len(a)] == a for a in paths for b in paths)


def test_many_labels_are_scored_in_chunks(model, monkeypatch):
    from finetune.adapters.hf import scorer

    whole = model.scorer.score(TEXTS)
    monkeypatch.setattr(scorer, "_CACHE_BUDGET", 1)
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
