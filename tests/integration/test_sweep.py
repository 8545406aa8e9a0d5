"""A sweep of a real model, through the command line: killed in the middle, resumed, and trained again."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.integration.test_main_job import ENVIRONMENT, write_project
from tests.tiny_models import save_tiny
from typer.testing import CliRunner

from finetune.cli.main import app
from finetune.container import Container

SPACE = "--learning-rate 1e-3:1e-2 --rank 2,4 --objective cross_entropy,focal"
SEARCH = ("--trials", "2", *SPACE.split())
WEIGHTS = "adapter/adapter_model.safetensors"


def run(monkeypatch, folder: Path, *words: str):
    monkeypatch.chdir(folder)
    return CliRunner().invoke(app, list(words), obj=Container())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A prepared project."""
    folder = write_project(tmp_path_factory.mktemp("sweep") / "project", rows=160)
    model = save_tiny("qwen2", folder / "model")
    config = folder / "configs" / "llm_lora.yaml"
    text = config.read_text().replace("model_id: embedded", f"model_id: {model.name}")
    config.write_text(text.replace("json_samples: 4", "json_samples: 0"))
    subprocess.run(
        [sys.executable, "-m", "finetune", "prepare", "-q"], cwd=folder, env=ENVIRONMENT, check=True
    )
    return folder


def results(folder: Path) -> list[dict]:
    """Return the trials without what a clock says of them."""
    trials = json.loads((folder / "artifacts/sweeps/small/sweep.json").read_text())["trials"]
    return [{key: value for key, value in trial.items() if key != "seconds"} for trial in trials]


def test_killed_in_the_second_trial_and_resumed_the_results_are_the_same(prepared, tmp_path, monkeypatch):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        shutil.copytree(prepared, folder)
    ended = run(monkeypatch, whole, "sweep", *SEARCH)
    assert ended.exit_code == 0, ended.output

    log = killed / "artifacts/sweeps/small/trials/002/metrics.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "finetune", "sweep", "-q", *SEARCH], cwd=killed, env=ENVIRONMENT
    )
    try:
        deadline = time.monotonic() + 240
        while not (log.exists() and '"evaluation"' in log.read_text()):
            assert process.poll() is None, "the sweep ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.3)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(results(killed)) == 1
    begun = (killed / "artifacts/sweeps/small/trials/001/metrics.jsonl").read_bytes()
    assert run(monkeypatch, killed, "sweep", *SEARCH).exit_code == 3
    ended = run(monkeypatch, killed, "sweep", *SEARCH, "--resume")
    assert ended.exit_code == 0, ended.output
    assert results(killed) == results(whole)
    assert (killed / "artifacts/sweeps/small/trials/001/metrics.jsonl").read_bytes() == begun

    document = json.loads((whole / "artifacts/sweeps/small/sweep.json").read_text())
    best = document["best"]["run"]
    assert (killed / best / WEIGHTS).read_bytes() == (whole / best / WEIGHTS).read_bytes()
    # The command that is printed trains the same adapter as a normal run.
    ended = run(monkeypatch, whole, *shlex.split(document["command"])[1:], "-q")
    assert ended.exit_code == 0, ended.output
    assert (whole / "artifacts/runs/small" / WEIGHTS).read_bytes() == (whole / best / WEIGHTS).read_bytes()
    # And a copy of the folder is that run, as far as the program can tell.
    shutil.rmtree(whole / "artifacts/runs")
    shutil.copytree(whole / best, whole / "artifacts/runs/small")
    ended = run(monkeypatch, whole, *shlex.split(document["command"])[1:], "--resume")
    assert "already ended" in ended.stderr


def test_the_baseline_is_searched_by_its_own_keys(prepared, tmp_path, monkeypatch):
    shutil.copytree(prepared, tmp_path / "project")
    words = ("-s", "backend=baseline", "-s", "baseline.features=1024", "--vary", "baseline.longest_ngram=2,3")
    ended = run(monkeypatch, tmp_path / "project", "sweep", *words, "--metric", "accuracy", "--json")
    assert ended.exit_code == 0, ended.output
    document = json.loads(ended.stdout)
    assert sorted(trial["settings"]["baseline.longest_ngram"] for trial in document["trials"]) == [2, 3]
    accuracies = [trial["metrics"]["accuracy"] for trial in document["trials"]]
    assert accuracies == sorted(accuracies, reverse=True)
