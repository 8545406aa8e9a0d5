"""Every backend that trains here: contracts, and the main job with one key changed."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.contracts.scorer_contract import SCORER_CASES
from tests.contracts.trainer_contract import TRAINER_CASES, Bench
from tests.integration.test_main_job import finetune, succeed, write_project
from tests.tiny_models import save_tiny, save_tiny_encoder

from finetune.adapters.embedded.messages import generate_messages, labels_document, to_row
from finetune.application.config import ProjectConfig
from finetune.application.labels_file import LabelsFile
from finetune.application.prompting import build_prompt
from finetune.backends import open_backend
from finetune.container import resolve_model
from finetune.domain.errors import InsufficientData, IntegrityError, InvalidInput
from finetune.domain.examples import Example
from finetune.domain.labels import LabelSet
from finetune.domain.prompts import default_prompt

BACKENDS = ("encoder", "baseline")
LABELS = LabelsFile.model_validate(labels_document()).label_set()


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory) -> Path:
    return save_tiny_encoder(tmp_path_factory.mktemp("encoder"))


def configure(
    folder: Path, backend: str, encoder: Path, base: Path | None = None, **training
) -> ProjectConfig:
    settings = {
        "learning_rate": 5e-3,
        "per_device_batch_size": 16,
        "gradient_accumulation_steps": 1,
        "epochs": 2,
        "max_length": 400,
        "json_samples": 0,
        **training,
    }
    return ProjectConfig.model_validate(
        {
            "backend": backend,
            "model_id": str(base or ""),
            "data": {"files": ["a.csv"]},
            "artifacts": str(folder),
            "prompt": {"list_labels": False},
            "encoder": {"model_id": str(encoder)},
            "baseline": {"features": 4096, "inverse_regularisation": [1.0, 10.0]},
            "training": settings,
            "prediction": {"batch_size": 4},
        }
    )


def examples(n: int, seed: int) -> list[Example]:
    rows = [to_row(message, i) for i, message in enumerate(generate_messages(n, seed=seed))]
    return [Example(row["id"], row["text"], row["label"]) for row in rows]


@pytest.fixture(scope="module", params=["causal", *BACKENDS])
def bench(request, tmp_path_factory, encoder_folder) -> Bench:
    """A backend with rows to train on; trained once."""
    folder = tmp_path_factory.mktemp(request.param)
    base = save_tiny("qwen2", tmp_path_factory.mktemp("base")) if request.param == "causal" else None
    config = configure(folder, request.param, encoder_folder, base)
    return Bench(
        backend=open_backend(request.param, resolve_model),
        config=config,
        labels=LABELS,
        prompt=build_prompt(config.prompt, LABELS),
        train=examples(300, 1),
        validation=examples(100, 2),
        folder=folder / "run",
    )


@pytest.mark.parametrize("case", TRAINER_CASES, ids=lambda case: case.__name__)
def test_trainer_contract(case, bench, tmp_path):
    case(bench, tmp_path)


@pytest.mark.parametrize("case", SCORER_CASES, ids=lambda case: case.__name__)
def test_scorer_contract(case, bench):
    case(bench.opened().scorer)


def test_what_is_learnt_beats_guessing(bench):
    outcome = bench.trained()
    assert outcome.best["log_loss"] < outcome.first["log_loss"] - 0.05


def test_the_encoder_sees_the_first_token_or_the_mean(encoder_folder, tmp_path):
    rows = examples(40, 3)
    found = []
    for pooling in ("mean", "cls"):
        config = configure(tmp_path, "encoder", encoder_folder, max_steps=1)
        config = config.model_copy(update={"encoder": config.encoder.model_copy(update={"pooling": pooling})})
        bench = Bench(
            open_backend("encoder", resolve_model),
            config,
            LABELS,
            default_prompt(LABELS),
            rows,
            rows,
            tmp_path / pooling,
        )
        found.append(bench.opened().scorer.score(["my head hurts"]).log_probabilities)
    assert np.abs(found[0] - found[1]).max() > 1e-4


def test_evidence_of_an_encoder_is_what_its_logits_sum_to(encoder_folder, tmp_path):
    rows = examples(40, 3)
    config = configure(tmp_path, "encoder", encoder_folder, max_steps=1)
    bench = Bench(
        open_backend("encoder", resolve_model), config, LABELS, default_prompt(LABELS), rows, rows, tmp_path
    )
    scores = bench.opened().scorer.score([row.text for row in rows[:5]])
    assert scores.label_mass.std() > 0
    assert (np.abs(scores.label_mass) < 20).all()


def test_without_training_there_is_nothing_to_open(bench):
    if bench.config.backend == "causal":
        assert bench.backend.models().open(bench.config, bench.labels, bench.prompt, None).writer is not None
        return
    with pytest.raises(InvalidInput, match="training"):
        bench.backend.models().open(bench.config, bench.labels, bench.prompt, None)


def test_other_labels_are_not_opened(bench):
    bench.trained()
    if bench.config.backend == "causal":
        return  # its labels are words of the prompt: the certificate is what refuses others
    fewer = LabelSet(LABELS.task, LABELS.labels[1:], LABELS.abstention)
    with pytest.raises(IntegrityError):
        bench.backend.models().open(bench.config, fewer, bench.prompt, bench.folder / "adapter")


@pytest.fixture(scope="module")
def project(tmp_path_factory, encoder_folder) -> Path:
    folder = write_project(tmp_path_factory.mktemp("job") / "project")
    config = folder / "configs" / "llm_lora.yaml"
    config.write_text(config.read_text() + f"encoder: {{model_id: {encoder_folder}}}\n")
    succeed(folder, "prepare")
    return folder


@pytest.fixture(scope="module", params=BACKENDS)
def certified(request, project) -> tuple[str, Path]:
    """A project with a run of a backend, as its name."""
    changed = ("--set", f"backend={request.param}", "--set", f"name={request.param}")
    for command in ("prepare", "train", "calibrate", "evaluate"):
        succeed(project, command, *changed)
    return request.param, project


def test_the_main_job_runs_with_one_key_changed(certified):
    backend, project = certified
    run = project / "artifacts" / "runs" / backend
    record = json.loads(succeed(project, "predict", "--run", str(run), "--text", "I need a refill", "--json"))
    assert abs(sum(record["probabilities"].values()) - 1.0) < 1e-6
    card = (run / "README.md").read_text()
    assert f"backend: {backend}" in card
    assert "PeftModel" not in card


def test_rationales_that_cannot_be_written_are_refused_before_anything_is_decided(certified):
    backend, project = certified
    run = str(project / "artifacts" / "runs" / backend)
    ended = finetune(project, "predict", "--run", run, "--rationale", "--text", "I need a refill")
    assert ended.returncode == 3
    assert "write no rationales" in ended.stderr


CHANGES = {
    "added": lambda labels: [*labels, {"name": "complaint"}],
    "renamed": lambda labels: [{**labels[0], "name": "catastrophe"}, *labels[1:]],
    "reordered": lambda labels: labels[::-1],
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_labels_are_refused_with_the_reason(certified, change, tmp_path):
    backend, project = certified
    run = tmp_path / "artifacts" / "runs" / backend
    shutil.copytree(project / "artifacts" / "runs" / backend, run)
    labels = yaml.safe_load((run / "labels.yaml").read_text())
    labels["labels"] = CHANGES[change](labels["labels"])
    (run / "labels.yaml").write_text(yaml.safe_dump(labels))
    # Someone who knows of the manifest writes the new hash there as well.
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["files"]["labels.yaml"] = hashlib.sha256((run / "labels.yaml").read_bytes()).hexdigest()
    (run / "manifest.json").write_text(json.dumps(manifest))
    ended = finetune(tmp_path, "predict", "--run", str(run), "--text", "I need a refill")
    assert ended.returncode == 7, ended.stderr
    assert "label" in ended.stderr


def test_the_list_of_backends_says_what_is_there(project):
    out = succeed(project, "backends", "--json")
    found = {info["name"]: info for info in json.loads(out)["backends"]}
    assert set(found) >= {"causal", "encoder", "baseline"}
    assert all(found[name]["problem"] is None for name in ("causal", "encoder", "baseline"))
    assert "baseline" in succeed(project, "backends")


def test_a_label_without_rows_is_an_error_of_the_baseline(tmp_path, encoder_folder):
    rows = [row for row in examples(100, 4) if row.label != LABELS.outcomes[0]]
    config = configure(tmp_path, "baseline", encoder_folder)
    bench = Bench(
        open_backend("baseline", resolve_model), config, LABELS, default_prompt(LABELS), rows, rows, tmp_path
    )
    with pytest.raises(InsufficientData, match="no training rows"):
        bench.trained()
