"""LoRA training on tiny random models: what is learned, what is written, and that it can be resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tests.tiny_models import ARCHITECTURES, save_tiny
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune.adapters.hf.batches import IGNORED, LengthGroupedSampler, PaddedBatches
from finetune.adapters.hf.checkpoints import latest_checkpoint
from finetune.adapters.hf.encoder import HfEncoder
from finetune.adapters.hf.model import HfModelOpener
from finetune.adapters.hf.reporting import Silence
from finetune.adapters.hf.trainer import HfTrainer
from finetune.adapters.hf.tree_training import TreeBatches
from finetune.application.config import ProjectConfig
from finetune.application.ports import Progress, TrainingJob, TrainingOutcome
from finetune.domain.errors import IntegrityError, InvalidInput
from finetune.domain.examples import Example
from finetune.domain.labels import Abstention, Label, LabelSet
from finetune.domain.prompts import answer_text, default_prompt

LABELS = LabelSet("Cards", (Label("card"), Label("lost"), Label("late")), Abstention("undecidable"))
PROMPT = default_prompt(LABELS)
WORDS = ("card", "lost", "late", "abstain")
ROWS = [
    Example(
        str(i), f"{'please ' * (i % 5)}a text about {WORDS[i % 4]} {i}", WORDS[i % 4], f"says {WORDS[i % 4]}"
    )
    for i in range(40)
]


class Log:
    def __init__(self, kill_at: int | None = None) -> None:
        self.events: list[tuple[str, dict]] = []
        self._kill_at = kill_at

    def append(self, event, values):
        self.events.append((event, dict(values)))
        if event == "training" and values["step"] == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def configure(folder: Path, **changes) -> ProjectConfig:
    training = {
        "max_length": 256,
        "learning_rate": 5e-3,
        "epochs": 3,
        "per_device_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "logging_steps": 1,
        "json_samples": 2,
        "token_tree": True,
        # All rows of a step in one tree: the budget of so small a model holds hardly two.
        "tree_tokens": 1000,
        **changes.pop("training", {}),
    }
    return ProjectConfig.model_validate(
        {"model_id": str(folder), "data": {"files": ["a.csv"]}, "training": training, **changes}
    )


def train(
    config: ProjectConfig,
    run: Path,
    resume: bool = False,
    log: Log | None = None,
    progress: Progress | None = None,
    rows: Sequence[Example] = ROWS,
) -> TrainingOutcome:
    job = TrainingJob(config, LABELS, PROMPT, rows, ROWS[:12], run, {"rows": len(rows)}, resume)
    return HfTrainer(lambda name: name).train(job, log or Log(), Silence() if progress is None else progress)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return save_tiny("qwen2", tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_train_save_reload_score(kind, tmp_path):
    folder = save_tiny(kind, tmp_path / "model")
    config = configure(folder)
    run = tmp_path / "run"
    log = Log()
    outcome = train(config, run, log=log)
    assert outcome.best["log_loss"] < outcome.first["log_loss"]
    label_scores = {"log_loss", "accuracy", "ece", "ece_noise", "mce", "brier"}
    decisions = {"abstention_rate", "coverage", "mean_set_size"}
    if outcome.best["abstention_rate"] < 1.0:
        decisions.add("selective_risk")
    assert set(outcome.best) == label_scores | decisions | {"json_validity"}
    expected = {"q_proj", "k_proj", "v_proj", "o_proj"} | {
        "glm": {"gate_up_proj", "down_proj"},
        "glm4": {"gate_up_proj", "down_proj"},
        "glm4_moe": set(),
    }.get(kind, {"gate_proj", "up_proj", "down_proj"})
    assert set(outcome.adapted_modules) == expected
    assert all(count == 2 for count in outcome.adapted_modules.values())
    assert log.events[0][0] == "started"
    evaluated = [values["step"] for event, values in log.events if event == "evaluation"]
    assert evaluated[-1] == outcome.steps, "the last step is a candidate for the best"

    opened = HfModelOpener(lambda name: name).open(config, LABELS, PROMPT, run / "adapter")
    texts = [row.text for row in ROWS[:12]]
    scores = opened.scorer.score(texts).log_probabilities
    truth = [LABELS.index(str(row.label)) for row in ROWS[:12]]
    log_loss = -scores[np.arange(12), truth].mean()
    assert log_loss == pytest.approx(outcome.best["log_loss"], rel=1e-4), "the best adapter was kept"

    base = AutoModelForCausalLM.from_pretrained(folder)
    plain = PeftModel.from_pretrained(base, run / "adapter").eval()
    ids, _ = opened.scorer.encoder.score_ids(texts[0])
    with torch.inference_mode():
        theirs = plain(torch.tensor([ids])).logits
        ours = opened.scorer.model(torch.tensor([ids])).logits
    torch.testing.assert_close(theirs, ours)


def test_only_the_answer_and_the_stop_token_carry_loss(tiny):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    encoder = HfEncoder(tokenizer, LABELS, PROMPT, 256)
    example = ROWS[3]
    row = encoder.encode(example)
    longer = encoder.encode(ROWS[4])
    model = AutoModelForCausalLM.from_pretrained(tiny)
    (padded,) = PaddedBatches(model, 2, encoder.pad_id).divide([row, longer])
    (tree,) = TreeBatches(1000).divide([row])
    for trained in (padded.targets[0][padded.targets[0] != IGNORED], tree.tree.ids[tree.targets.nodes]):
        assert tokenizer.decode(trained) == answer_text("abstain", "says abstain") + "<|im_end|>"
    assert row.ids[-1] == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert row.removed_chars == 0


def test_glm_learns_to_stop_though_its_template_ends_with_the_answer(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(save_tiny("glm", tmp_path))
    row = HfEncoder(tokenizer, LABELS, PROMPT, 256).encode(ROWS[0])
    assert row.ids[-1] == tokenizer.convert_tokens_to_ids("<|user|>")


def test_a_long_text_is_shortened_and_its_answer_is_not(tiny):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    encoder = HfEncoder(tokenizer, LABELS, PROMPT, 256)
    row = encoder.encode(Example("1", "word " * 5000, "lost", "says lost"))
    text = tokenizer.decode(row.ids[row.answer_start :])
    assert text == answer_text("lost", "says lost") + "<|im_end|>"
    assert len(row.ids) <= 256
    assert row.removed_chars > 20_000
    assert "characters left out" in tokenizer.decode(row.ids)


def test_activation_checkpointing_changes_nothing_but_memory(tiny, tmp_path):
    plain = train(configure(tiny, lora={"dropout": 0.0}), tmp_path / "a")
    checkpointed = train(
        configure(tiny, lora={"dropout": 0.0}, training={"gradient_checkpointing": True}), tmp_path / "b"
    )
    assert checkpointed.best["log_loss"] == pytest.approx(plain.best["log_loss"], rel=1e-5)


def test_the_order_of_rows_is_fixed_by_seed_and_epoch():
    lengths = list(np.random.default_rng(0).integers(5, 50, 103))
    first, again = LengthGroupedSampler(lengths, 8, 1), LengthGroupedSampler(lengths, 8, 1)
    assert list(first) == list(again)
    assert sorted(first) == list(range(103))
    before = list(first)
    first.set_epoch(1)
    assert list(first) != before
    spread = [np.ptp([lengths[i] for i in before[k : k + 8]]) for k in range(0, 96, 8)]
    assert np.mean(spread) < 12, "neighbours have similar lengths"


KILLED = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import tests.integration.test_hf_training as t
config = t.configure(Path({model!r}), training={training!r})
t.train(config, Path({run!r}), log=t.Log(kill_at={step}))
"""


TWO_PROCESSES = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import tests.integration.test_hf_training as t
for run in {runs!r}:
    config = t.in_shares(Path({model!r}), run, per_device_batch_size=1)
    t.train(config, Path({folder!r}) / run, rows=t.ROWS[:37])
"""


def in_shares(model: Path, path: str, **training) -> ProjectConfig:
    """Trees so small that processes have different numbers of them, or padded batches."""
    return configure(
        model,
        lora={"dropout": 0.0},
        training={"token_tree": path == "tree", "tree_tokens": 200, "epochs": 1, **training},
    )


def test_two_processes_train_what_one_trains(tiny, tmp_path):
    """Half the rows in each of two processes: the same steps, loss normalisation and evaluation.

    The last step of an epoch has one row, so that one of the processes has none.
    """
    runs = ["tree", "padded"]
    script = tmp_path / "two.py"
    script.write_text(
        TWO_PROCESSES.format(
            tests=str(Path(__file__).parents[2]), model=str(tiny), folder=str(tmp_path / "two"), runs=runs
        )
    )
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
    )
    weights = []
    for run in runs:
        alone = train(in_shares(tiny, run), tmp_path / run, rows=ROWS[:37])
        assert alone.path == run
        assert alone.steps == 10
        states = [
            json.loads((folder / "checkpoints" / "checkpoint-10" / "trainer_state.json").read_text())
            for folder in (tmp_path / run, tmp_path / "two" / run)
        ]
        losses = [[e["loss"] for e in state["log_history"] if "loss" in e] for state in states]
        assert len(losses[0]) == 10
        np.testing.assert_allclose(losses[0], losses[1], atol=1e-5)
        evaluated = [[e for e in state["log_history"] if "eval_log_loss" in e][-1] for state in states]
        assert evaluated[0]["eval_log_loss"] == pytest.approx(evaluated[1]["eval_log_loss"], abs=1e-4)
        assert evaluated[0]["computed_tokens"] == alone.computed_tokens
        weights += [
            load_file(folder / "adapter" / "adapter_model.safetensors")
            for folder in (tmp_path / run, tmp_path / "two" / run)
        ]
    for other in weights[1:]:
        for name, weight in weights[0].items():
            torch.testing.assert_close(other[name], weight, atol=1e-3, rtol=0)


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory) -> Callable[[ProjectConfig], tuple[Path, TrainingOutcome]]:
    """Uninterrupted trainings, each once."""
    done: dict[str, tuple[Path, TrainingOutcome]] = {}

    def run(config: ProjectConfig) -> tuple[Path, TrainingOutcome]:
        key = config.model_dump_json()
        if key not in done:
            folder = tmp_path_factory.mktemp("whole")
            done[key] = folder, train(config, folder)
        return done[key]

    return run


@pytest.mark.parametrize(
    ("step", "path"),
    [(12, "tree"), (17, "tree"), (12, "padded")],
    ids=["in the second epoch", "just before an evaluation", "padded"],
)
def test_killed_and_resumed_training_ends_with_the_same_bits(tiny, whole, tmp_path, step, path):
    training = {"token_tree": path == "tree"}
    config = configure(tiny, training=training)
    unbroken, expected = whole(config)
    run = tmp_path / "killed"
    script = KILLED.format(
        tests=str(Path(__file__).parents[2]), model=str(tiny), run=str(run), step=step, training=training
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not (run / "adapter").exists()
    log = Log()
    resumed = train(config, run, resume=True, log=log)
    assert log.events[0][0] == "resumed"
    assert 0 < log.events[0][1]["step"] < step
    assert resumed.path == expected.path == path
    assert resumed.best == expected.best
    assert resumed.best_step == expected.best_step
    assert resumed.computed_tokens == expected.computed_tokens
    assert resumed.padded_tokens == expected.padded_tokens
    ours = load_file(run / "adapter" / "adapter_model.safetensors")
    theirs = load_file(unbroken / "adapter" / "adapter_model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_checkpoint_that_was_cut_off_is_passed_over(tiny, tmp_path):
    run = tmp_path / "run"
    train(configure(tiny), run)
    newest = latest_checkpoint(run / "checkpoints")
    assert newest is not None
    (newest / "trainer_state.json").write_text('{"global_step": 1')
    older = latest_checkpoint(run / "checkpoints")
    assert older is None or older != newest
    assert not newest.exists()


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_damaged_adapter_is_named(tiny, tmp_path, name):
    config = configure(tiny, training={"max_steps": 1})
    train(config, tmp_path)
    path = tmp_path / "adapter" / name
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(IntegrityError, match="cannot be loaded"):
        HfModelOpener(lambda x: x).open(config, LABELS, PROMPT, tmp_path / "adapter")


def test_an_adapter_of_another_model_is_refused(tiny, tmp_path):
    other = save_tiny("glm", tmp_path / "glm")
    config = configure(tiny, training={"max_steps": 1})
    train(config, tmp_path / "run")
    with pytest.raises(IntegrityError):
        HfModelOpener(lambda x: x).open(configure(other), LABELS, PROMPT, tmp_path / "run" / "adapter")


def test_target_modules_of_another_architecture_are_an_error(tmp_path):
    folder = save_tiny("glm", tmp_path / "model")
    llama = ["q_proj", "gate_proj", "up_proj", "down_proj"]
    with pytest.raises(InvalidInput, match="gate_proj, up_proj") as caught:
        train(configure(folder, target_modules=llama), tmp_path / "run")
    assert "gate_up_proj" in str(caught.value)
