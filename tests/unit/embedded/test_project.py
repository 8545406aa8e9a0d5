"""The demo's project on disk is one that the ordinary commands read."""

import json

import pytest

from finetune.adapters.embedded.base import model_folder
from finetune.adapters.embedded.messages import OUTCOMES
from finetune.adapters.embedded.project import EmbeddedProject
from finetune.adapters.files.settings import load_config, load_labels
from finetune.domain.errors import InvalidInput


def test_what_is_written_is_what_is_returned(tmp_path, monkeypatch):
    project = EmbeddedProject().write(tmp_path, 300, 1)
    monkeypatch.chdir(tmp_path)
    assert load_config(tmp_path / "configs" / "llm_lora.yaml") == project.config
    labels = load_labels(tmp_path / "configs" / "labels.yaml")
    assert labels.label_set().outcomes == OUTCOMES == project.labels.label_set().outcomes
    rows = [json.loads(line) for line in (tmp_path / "data" / "messages.jsonl").read_text().splitlines()]
    assert len(rows) == 300
    assert all(set(row["posterior"]) == set(OUTCOMES) for row in rows)


def test_new_messages_are_new_and_carry_no_label(tmp_path):
    project = EmbeddedProject().write(tmp_path, 300, 1)
    new = [json.loads(line) for line in project.new_messages.read_text().splitlines()]
    old = {json.loads(line)["id"] for line in (tmp_path / "data" / "messages.jsonl").read_text().splitlines()}
    assert all(set(row) == {"id", "text"} for row in new)
    assert not old & {row["id"] for row in new}
    assert [row["text"] for row in new[: len(project.samples)]] == list(project.samples)


def test_a_project_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "llm_lora.yaml").write_text("mine")
    with pytest.raises(InvalidInput, match="another project"):
        EmbeddedProject().write(tmp_path, 300, 1)
    assert (tmp_path / "configs" / "llm_lora.yaml").read_text() == "mine"


def test_the_model_is_shipped_within_its_size():
    assert sum(path.stat().st_size for path in model_folder().iterdir()) < 10_000_000
