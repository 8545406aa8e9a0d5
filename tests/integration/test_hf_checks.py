"""What is refused once a model is loaded, and trainings that end in uncommon ways."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from tests.integration.test_hf_training import LABELS, PROMPT, Log, configure, train
from tests.tiny_models import save_tiny, tokenizer
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    Mamba2Config,
    OPTConfig,
)

from finetune.adapters.hf.checkpoints import latest_checkpoint
from finetune.adapters.hf.model import HfModelOpener
from finetune.adapters.hf.stopping import had_stopped_early
from finetune.domain.errors import IntegrityError, InvalidInput


def save_config(config, folder):
    fast = tokenizer()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3.0)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def open_model(folder, **training):
    config = configure(folder, training=training)
    return HfModelOpener(lambda name: name).open(config, LABELS, PROMPT, None)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny("qwen2", tmp_path_factory.mktemp("tiny"))


def test_a_recurrent_model_whose_padded_cache_lies_is_refused(tmp_path):
    config = Mamba2Config(
        vocab_size=len(tokenizer()),
        hidden_size=32,
        num_hidden_layers=2,
        head_dim=8,
        num_heads=8,
        state_size=8,
        n_groups=1,
        pad_token_id=0,
        eos_token_id=0,
        bos_token_id=0,
    )
    with pytest.raises(InvalidInput, match="cannot be scored from a cache"):
        open_model(save_config(config, tmp_path))


def test_more_tokens_than_the_model_has_positions_are_refused(tmp_path):
    config = OPTConfig(
        vocab_size=len(tokenizer()),
        hidden_size=32,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        word_embed_proj_dim=32,
        max_position_embeddings=200,
        pad_token_id=0,
        eos_token_id=0,
        bos_token_id=0,
    )
    folder = save_config(config, tmp_path)
    open_model(folder, max_length=200)
    with pytest.raises(InvalidInput, match="200 positions"):
        open_model(folder, max_length=201)


def test_the_tokeniser_of_another_model_is_refused(tmp_path, tiny):
    larger = tokenizer()
    larger.add_tokens([f"<token{i}>" for i in range(100)])
    larger.save_pretrained(tmp_path / "larger")
    config = configure(tiny, tokenizer_id=str(tmp_path / "larger"))
    with pytest.raises(InvalidInput, match="embeds"):
        HfModelOpener(lambda name: name).open(config, LABELS, PROMPT, None)


def test_a_folder_without_tokeniser_is_named(tmp_path):
    folder = save_tiny("qwen2", tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(IntegrityError, match=r"tokeniser|could not be loaded"):
        open_model(folder)


def test_an_architecture_without_linear_layers_is_refused(tmp_path):
    config = GPT2Config(
        vocab_size=len(tokenizer()), n_embd=32, n_layer=2, n_head=4, eos_token_id=0, bos_token_id=0
    )
    folder = save_config(config, tmp_path / "model")
    with pytest.raises(InvalidInput, match="no linear layers"):
        train(configure(folder), tmp_path / "run")


def test_a_loss_that_is_no_number_stops_the_training(tiny, tmp_path):
    with pytest.raises(InvalidInput, match="not a number at step") as caught:
        train(configure(tiny, training={"learning_rate": 1e8}), tmp_path)
    assert "lower it" in str(caught.value)


def test_nothing_is_begun_before_the_first_checkpoint(tiny, tmp_path):
    with pytest.raises(InvalidInput):
        train(configure(tiny, target_modules=["nope"]), tmp_path)
    assert not (tmp_path / "checkpoints" / "job.json").exists()


def test_resuming_a_training_that_stopped_early_takes_its_best_adapter(tiny, tmp_path):
    """The Trainer restores the patience counter but not the wish to stop."""
    settings = {"learning_rate": 0.5, "epochs": 6, "early_stopping": {"patience": 1}}
    config = configure(tiny, training=settings)
    whole = train(config, tmp_path)
    assert whole.stopped_early
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    newest = latest_checkpoint(tmp_path / "checkpoints")
    assert newest is not None
    assert had_stopped_early(newest, config.training.early_stopping)
    again = train(config, tmp_path, resume=True)
    assert again.steps == whole.steps
    assert again.best == whole.best
    resumed = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert all(torch.equal(resumed[name], weights[name]) for name in weights)


def test_a_training_is_resumed_with_as_many_processes_as_it_had(tiny, tmp_path):
    config = configure(tiny)
    train(config, tmp_path)
    begun = tmp_path / "checkpoints" / "job.json"
    begun.write_text(begun.read_text().replace('"processes": 1', '"processes": 2'))
    with pytest.raises(IntegrityError, match="number of processes"):
        train(config, tmp_path, resume=True)


def test_answers_for_the_validity_check_fit_into_short_windows(tiny, tmp_path):
    log = Log()
    needed = 190
    train(configure(tiny, training={"max_length": needed, "max_steps": 1}), tmp_path, log=log)
    assert "json_validity" in log.events[0][1]
