"""Merged weights: what plain transformers says of them, and what is certified."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tests.integration.test_main_job import finetune, succeed, write_project
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune.container import resolve_model
from finetune.domain.decisions import DecisionRecord


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = write_project(tmp_path_factory.mktemp("export") / "project")
    for command in ("prepare", "train", "calibrate"):
        succeed(folder, command, "--set", "training.max_steps=6")
    return folder


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def exported(request, project) -> tuple[str, Path, dict]:
    options = ("--bf16",) if request.param == "bf16" else ()
    name = f"merged-{request.param}"
    out = succeed(project, "export", "--output", name, "--json", *options)
    return request.param, project / name, json.loads(out)


def test_plain_transformers_loads_what_base_and_adapter_say(project, exported):
    precision, folder, _ = exported
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    merged = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    assert merged.dtype == dtype
    base = AutoModelForCausalLM.from_pretrained(resolve_model("embedded"), dtype=torch.float32)
    tuned = PeftModel.from_pretrained(base, str(project / "artifacts/runs/small/adapter")).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("the pharmacy has none left", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        found, expected = (torch.log_softmax(model(ids).logits.float(), -1) for model in (merged, tuned))
    assert (found - expected).abs().max() < (1e-4 if precision == "fp32" else 0.5)
    assert list(folder.glob("*.safetensors"))
    assert not list(folder.rglob("*.bin"))


def test_the_chat_template_comes_along(exported):
    _, folder, _ = exported
    original = AutoTokenizer.from_pretrained(resolve_model("embedded"))
    assert AutoTokenizer.from_pretrained(folder).chat_template == original.chat_template


def test_the_report_compares_on_the_calibration_rows(exported):
    precision, _, report = exported
    assert report["precision"] == precision
    for name in ("log_loss", "ece", "accuracy"):
        assert report["merged"][name] == pytest.approx(report["adapter"][name], abs=0.05)
    assert report["largest_difference"] < (1e-4 if precision == "fp32" else 0.2)


def test_the_new_certificate_is_bound_to_the_merged_weights(project, exported):
    _, folder, _ = exported
    old = json.loads((project / "artifacts/runs/small/calibration.json").read_text())
    new = json.loads((folder / "runs/small/calibration.json").read_text())
    assert new["model"]["base_hash"] != old["model"]["base_hash"]
    assert new["model"]["adapter_hash"] == ""
    assert new["data"] == old["data"]


def test_decisions_are_made_under_it_wherever_the_folder_lies(project, exported, tmp_path):
    precision, folder, _ = exported
    moved = tmp_path / "elsewhere"
    moved.symlink_to(folder)
    texts = ("--text", "I need a refill", "--text", "chest pain since this morning", "--json")
    merged = finetune(tmp_path, "predict", "--run", str(moved / "runs" / "small"), *texts)
    assert merged.returncode == 0, merged.stderr
    plain = succeed(project, "predict", *texts)
    pairs = zip(merged.stdout.splitlines(), plain.splitlines(), strict=True)
    for ours, theirs in pairs:
        one, two = DecisionRecord.from_json(ours), DecisionRecord.from_json(theirs)
        assert set(one.probabilities) == set(two.probabilities)
        worst = max(abs(one.probabilities[name] - two.probabilities[name]) for name in one.probabilities)
        assert worst < (1e-3 if precision == "fp32" else 0.3)


def test_changed_weights_are_refused(project, tmp_path):
    succeed(project, "export", "--output", str(tmp_path / "mine"))
    config = tmp_path / "mine" / "config.json"
    config.write_text(config.read_text().replace("{", '{"remark": "changed",', 1))
    ended = finetune(tmp_path, "predict", "--run", "mine/runs/small", "--text", "hello")
    assert ended.returncode == 7
    assert "another base model" in ended.stderr


def test_nothing_is_overwritten(project, exported):
    _, folder, _ = exported
    ended = finetune(project, "export", "--output", folder.name)
    assert ended.returncode == 3
    assert "overwrites nothing" in ended.stderr


def test_other_backends_say_that_they_cannot(project):
    ended = finetune(project, "export", "--output", "other", "--set", "backend=baseline")
    assert ended.returncode == 3
    assert "cannot be exported" in ended.stderr
    assert not (project / "other").exists()
