"""The main job through the command line, with the model that the package ships."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from finetune.adapters.embedded.messages import generate_messages, labels_document, to_row
from finetune.cli.main import app
from finetune.container import Container
from finetune.domain.decisions import DecisionRecord

SETTINGS = """\
name: small
model_id: embedded
data: {files: [data/messages.jsonl], split: {train: 0.3, validation: 0.1, calibration: 0.4, test: 0.2}}
prompt: {list_labels: false}
training:
  learning_rate: 4.0e-3
  per_device_batch_size: 8
  gradient_accumulation_steps: 1
  epochs: 1
  max_length: 384
  evaluations_per_epoch: 3
  json_samples: 4
risk: {on_infeasible: abstain}
prediction: {batch_size: 64, max_rationale_tokens: 16}
"""
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}


def finetune(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, where the libraries that take seconds to import are imported."""
    with contextlib.chdir(folder):
        ended = CliRunner().invoke(app, list(arguments), obj=Container(), catch_exceptions=False)
    return subprocess.CompletedProcess(arguments, ended.exit_code, ended.stdout, ended.stderr)


def succeed(folder: Path, *arguments: str) -> str:
    ended = finetune(folder, *arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def succeed_apart(folder: Path, *arguments: str) -> str:
    """Run a command in a process of its own, as a user does."""
    command = [sys.executable, "-m", "finetune", *arguments]
    ended = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def write_project(folder: Path, rows: int = 500) -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "configs" / "llm_lora.yaml").write_text(SETTINGS)
    # Every JSON document is a YAML document.
    (folder / "configs" / "labels.yaml").write_text(json.dumps(labels_document()))
    lines = [
        json.dumps(to_row(message, i)) + "\n" for i, message in enumerate(generate_messages(rows, seed=3))
    ]
    (folder / "data" / "messages.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project that went all the way."""
    folder = write_project(tmp_path_factory.mktemp("job") / "project")
    for command in ("prepare", "train", "calibrate", "evaluate"):
        succeed_apart(folder, command)
    return folder


@pytest.fixture
def run(project) -> Path:
    return project / "artifacts" / "runs" / "small"


def test_the_run_folder_holds_what_the_formats_promise(run):
    for name in (
        "config.yaml",
        "labels.yaml",
        "manifest.json",
        "metrics.jsonl",
        "training_metrics.json",
        "calibration.json",
        "evaluation.json",
        "report.html",
        "README.md",
        "adapter/adapter_model.safetensors",
    ):
        assert (run / name).stat().st_size > 0, name
    assert not (run / "checkpoints").exists()
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evaluated = [event for event in events if event["event"] == "evaluation"]
    assert {"log_loss", "accuracy", "ece", "mce", "brier", "json_validity"} <= set(evaluated[0])
    best = json.loads((run / "training_metrics.json").read_text())["best"]
    assert best["log_loss"] == min(event["log_loss"] for event in evaluated)


def test_every_abstention_and_answer_is_a_valid_record(project):
    out = succeed(project, "predict", "--text", "I need a refill", "--text", "What is 3 times 4?", "--json")
    records = [DecisionRecord.from_json(line) for line in out.splitlines()]
    assert len(records) == 2
    for record in records:
        assert set(record.probabilities) == {*(row["name"] for row in labels_document()["labels"]), "abstain"}
        assert record.guarantee is not None
        assert record.guarantee.certificate


def test_a_file_of_texts_gives_one_record_a_row_and_rationales_change_nothing(project):
    rows = ["id,text"] + [f"{i},message number {i} about my back" for i in range(20)] + ["20,"]
    (project / "new.csv").write_text("\n".join(rows) + "\n")
    succeed(project, "predict", "--input", "new.csv", "--output", "plain.jsonl")
    succeed(project, "predict", "--input", "new.csv", "--output", "told.jsonl", "--rationale")
    plain, told = (
        [DecisionRecord.from_json(line) for line in (project / name).read_text().splitlines()]
        for name in ("plain.jsonl", "told.jsonl")
    )
    assert [record.id for record in plain] == [str(i) for i in range(21)]
    assert plain[20].abstain_reason == "error"
    assert [(r.decision, r.probabilities) for r in plain] == [(r.decision, r.probabilities) for r in told]


def test_a_text_that_does_not_fit_is_handed_over_with_the_reason(project):
    out = succeed(project, "predict", "--text", "word " * 8000, "--json")
    assert DecisionRecord.from_json(out.strip()).abstain_reason == "too_long"


def test_killed_in_the_middle_and_resumed_the_weights_are_the_same_bits(project, run, tmp_path):
    folder = write_project(tmp_path / "killed")
    succeed(folder, "prepare")
    log = folder / "artifacts" / "runs" / "small" / "metrics.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "finetune", "train", "--quiet"], cwd=folder, env=ENVIRONMENT
    )
    try:
        deadline = time.monotonic() + 240
        # Killed once the first evaluation is logged, that is, around the first checkpoint or after it.
        while not (log.exists() and '"evaluation"' in log.read_text()):
            assert process.poll() is None, "training ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.5)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (log.parent / "adapter").exists()
    succeed(folder, "train", "--resume")
    weights = "adapter/adapter_model.safetensors"
    assert (log.parent / weights).read_bytes() == (run / weights).read_bytes()


BAD_CSV = {
    "a broken line": ('text,label\nfine,urgent\n"never closed,urgent\n', "data.csv:3"),
    "an unknown label": ("text,label\nfine,urgent\nfine too,urgnet\n", "urgnet"),
    "an empty text": ("text,label\nfine,urgent\n  ,urgent\n", "empty"),
    "a text of 100,000 characters": ("text,label\nfine,urgent\n" + "x" * 100_000 + ",urgent\n", "100,000"),
    "no text column": ("body,label\nfine,urgent\n", "body"),
}


@pytest.mark.parametrize("case", BAD_CSV)
def test_bad_rows_are_named_and_nothing_is_lost(case, project, tmp_path):
    content, named = BAD_CSV[case]
    (tmp_path / "data.csv").write_text(content)
    ended = finetune(project, "prepare", "-s", f"data.files=[{tmp_path / 'data.csv'}]", "-s", "name=bad")
    assert ended.returncode == 3, ended.stderr
    assert named in ended.stderr
    assert "Traceback" not in ended.stderr
    assert (project / "artifacts" / "data" / "small" / "train.jsonl").exists()


def test_a_single_label_is_refused(project, tmp_path):
    (tmp_path / "labels.yaml").write_text("task: T\nlabels: [{name: only}]\n")
    ended = finetune(project, "prepare", "-s", f"labels={tmp_path / 'labels.yaml'}")
    assert ended.returncode == 3
    assert "label" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_five_calibration_rows_promise_nothing_and_say_so(tmp_path):
    folder = write_project(tmp_path / "few", rows=60)
    few = ["-s", "data.split={train: 0.7, validation: 0.12, calibration: 0.085, test: 0.095}"]
    succeed(folder, "prepare", *few)
    succeed(folder, "train", *few, "-s", "training.max_steps=1")
    refused = finetune(
        folder, "calibrate", *few, "-s", "training.max_steps=1", "-s", "risk.on_infeasible=error"
    )
    assert refused.returncode == 5
    assert "rows" in refused.stderr
    out = json.loads(succeed(folder, "calibrate", *few, "-s", "training.max_steps=1", "--json"))
    assert out["data"]["conformal_rows"] + out["data"]["selective_rows"] == 5
    assert out["conformal"]["covers_everything"] is True
    assert out["selective"]["feasible"] is False


def test_a_damaged_adapter_and_a_certificate_of_another_model_are_refused(project, run, tmp_path):
    weights = run / "adapter" / "adapter_model.safetensors"
    certificate = run / "calibration.json"
    whole, signed = weights.read_bytes(), certificate.read_text()
    try:
        weights.write_bytes(whole[:-1000])
        damaged = finetune(project, "predict", "--text", "hello")
        weights.write_bytes(whole)
        other = json.loads(signed)
        other["model"]["adapter_hash"] = "0" * 64
        certificate.write_text(json.dumps(other))
        foreign = finetune(project, "predict", "--text", "hello")
    finally:
        weights.write_bytes(whole)
        certificate.write_text(signed)
    for ended in (damaged, foreign):
        assert ended.returncode == 7, ended.stderr
        assert "Traceback" not in ended.stderr
        assert "What to do" in ended.stderr


# Labels, and which rows to keep, of those that train and of all others, so that encoding rows and scoring all
# labels stays within the time of a test.
REAL = {"banking77": (77, 4, 60), "clinc150": (151, 4, 120)}
SHORT = [
    "-s",
    "training.max_steps=2",
    "-s",
    "training.max_validation_rows=10",
    "-s",
    "training.json_samples=2",
]


def real_project(folder: Path, data: Path) -> Path:
    (folder / "configs").symlink_to(Path(__file__).parents[2] / "configs")
    (folder / "data").symlink_to(data)
    return folder


@pytest.mark.parametrize("name", REAL)
def test_real_data_need_only_a_configuration(name, real_data, tmp_path):
    folder = real_project(tmp_path, real_data)
    report = json.loads(succeed(folder, "prepare", "--config", f"configs/{name}/llm_lora.yaml", "--json"))
    assert report["rejected"] == []


@pytest.mark.parametrize("name", REAL)
def test_real_data_are_answered(name, real_data, tmp_path):
    outcomes, every_trained, every = REAL[name]
    thin = tmp_path / "data" / name
    thin.mkdir(parents=True)
    for file in (real_data / name).glob("*.csv"):
        with file.open(newline="", encoding="utf-8") as source:
            head, *rows = csv.reader(source)
        kept = rows[:: every_trained if "train" in file.name else every]
        with (thin / file.name).open("w", newline="", encoding="utf-8") as target:
            csv.writer(target).writerows([head, *kept])
    (tmp_path / "project").mkdir()
    folder = real_project(tmp_path / "project", tmp_path / "data")
    config = ["--config", f"configs/{name}/llm_lora.yaml"]
    succeed(folder, "prepare", *config)
    trained = json.loads(succeed(folder, "train", *config, *SHORT, "--json"))
    assert trained["steps"] == 2
    succeed(folder, "calibrate", *config, *SHORT, "-s", "risk.on_infeasible=abstain")
    succeed(folder, "predict", *config, "-i", f"data/{name}/test.csv", "-o", "decisions.jsonl")
    lines = (folder / "decisions.jsonl").read_text().splitlines()
    records = [DecisionRecord.from_json(line) for line in lines]
    with (thin / "test.csv").open(newline="", encoding="utf-8") as source:
        assert len(records) == len(list(csv.reader(source))) - 1
    assert all(len(record.probabilities) == outcomes for record in records)
