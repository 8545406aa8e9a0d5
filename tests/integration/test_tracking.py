"""TensorBoard and the like: what reaches them, where it lies, and what happens where they are missing."""

from __future__ import annotations

import importlib.util
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.integration.steered import follow
from tests.integration.test_backends import LABELS as MESSAGES
from tests.integration.test_backends import configure as configure_backend
from tests.integration.test_backends import examples
from tests.integration.test_hf_training import ROWS, configure
from tests.integration.test_hf_training import train as train_causal
from tests.tiny_models import save_tiny, save_tiny_encoder

from finetune.adapters.files.log import read_metrics
from finetune.adapters.files.store import FolderStore
from finetune.adapters.hf.reporting import Silence
from finetune.adapters.hf.tracking import check_trackers, open_tensorboard, trackers_in
from finetune.application.ports import TrainingJob
from finetune.application.prompting import build_prompt
from finetune.backends import open_backend
from finetune.container import resolve_model
from finetune.domain.errors import MissingExtra


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return save_tiny("qwen2", tmp_path_factory.mktemp("tiny"))


def series(folder: Path, tag: str) -> list[tuple[int, float]]:
    found = EventAccumulator(str(folder)).Reload()
    return [(event.step, event.value) for event in found.Scalars(tag)]


def test_tensorboard_shows_what_the_log_says(tiny, tmp_path):
    config = configure(tiny, training={"report_to": ["tensorboard"]})
    outcome = follow(config, tmp_path, rows=8)
    folder = tmp_path / "tracking" / "tensorboard"
    entries = read_metrics(tmp_path / "metrics.jsonl")
    for event, names in {
        "training": {"loss": "train/loss", "learning_rate": "train/learning_rate"},
        "evaluation": {name: f"eval/{name}" for name in outcome.best},
    }.items():
        for name, tag in names.items():
            logged = [(entry["step"], entry[name]) for entry in entries if entry["event"] == event]
            assert len(logged) == 6
            assert series(folder, tag) == [(step, pytest.approx(value)) for step, value in logged], tag
    store = FolderStore(tmp_path)
    store.seal({})
    assert not any(name.startswith("tracking") for name in store.read_json("manifest.json")["files"])
    assert "TENSORBOARD_LOGGING_DIR" not in os.environ


def test_a_training_that_goes_on_hides_what_was_written_after_its_checkpoint(tmp_path):
    with trackers_in(tmp_path, ["tensorboard"], name="mine", main=True):
        for goes_on_from, values in ((0, {1: 0.5, 2: 0.4, 3: 0.9}), (2, {3: 0.3, 4: 0.2})):
            writer = open_tensorboard(goes_on_from).tb_writer
            for step, value in values.items():
                writer.add_scalar("eval/ece", value, step)
            writer.close()
    expected = [(1, 0.5), (2, 0.4), (3, 0.3), (4, 0.2)]
    found = series(tmp_path / "tracking" / "tensorboard", "eval/ece")
    assert found == [(step, pytest.approx(value)) for step, value in expected]


def test_an_encoder_reports_too(tmp_path):
    encoder = save_tiny_encoder(tmp_path / "model")
    config = configure_backend(tmp_path, "encoder", encoder, max_steps=2, report_to=["tensorboard"])
    rows = examples(40, 3)
    job = TrainingJob(
        config, MESSAGES, build_prompt(config.prompt, MESSAGES), rows, rows, tmp_path / "run", {}, False
    )
    log = SimpleNamespace(append=lambda event, values: None)
    outcome = open_backend("encoder", resolve_model).trainer().train(job, log, Silence())
    found = dict(series(tmp_path / "run" / "tracking" / "tensorboard", "eval/log_loss"))
    assert found[outcome.best_step] == pytest.approx(outcome.best["log_loss"])


class FakeWandb:
    """Remembers what was opened and closed; the real one would need a server or write a lot."""

    run: object = None

    def __init__(self) -> None:
        self.opened: list[dict] = []

    @contextmanager
    def init(self, **options):
        self.opened.append(options)
        self.run = self
        yield
        self.run = None


def test_what_the_environment_says_goes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example")
    with trackers_in(tmp_path, ["mlflow"], name="mine", main=True):
        assert os.environ["MLFLOW_TRACKING_URI"] == "http://mlflow.example"
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://mlflow.example"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with trackers_in(tmp_path, ["mlflow"], name="mine", main=False):
        place = (tmp_path / "tracking").resolve()
        assert os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{place}/mlflow.db"
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_each_training_is_a_run_of_its_own_at_wandb(tmp_path, monkeypatch):
    for variable in ("WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(variable, raising=False)
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for name in ("one", "two"):
        with trackers_in(tmp_path / name, ["wandb"], name=name, main=True):
            assert wandb.run is wandb
        assert wandb.run is None
    with trackers_in(tmp_path, ["wandb"], name="of another process", main=False):
        assert wandb.run is None
    wandb.run = "one that the caller opened"
    with trackers_in(tmp_path, ["wandb"], name="three", main=True):
        assert wandb.run == "one that the caller opened"
    assert [options["name"] for options in wandb.opened] == ["one", "two"]
    assert [Path(options["dir"]).parent.name for options in wandb.opened] == ["one", "two"]
    assert all(Path(options["dir"]).is_dir() for options in wandb.opened)


def test_nothing_is_written_or_looked_for_without_trackers(tmp_path):
    before = dict(os.environ)
    check_trackers([])
    with trackers_in(tmp_path, [], name="mine", main=True):
        assert dict(os.environ) == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_a_missing_package_is_named_before_anything_is_loaded(tmp_path, monkeypatch, name):
    look = importlib.util.find_spec
    hidden = (name, "tensorboardX")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda module, *more: None if module in hidden else look(module, *more)
    )
    config = configure(tmp_path / "no model is here", training={"report_to": [name]})
    with pytest.raises(MissingExtra, match=f"finetune-decisions\\[{name}\\]"):
        train_causal(config, tmp_path / "run", rows=ROWS)
    assert not (tmp_path / "run").exists()
