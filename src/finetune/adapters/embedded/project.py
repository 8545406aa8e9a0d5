"""Writes the demo's project: generated data, label file and configuration, as a user's would look."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import yaml

from finetune.adapters.embedded.messages import Message, generate_messages, labels_document, to_row
from finetune.application.config import ProjectConfig
from finetune.application.demo import Project
from finetune.application.labels_file import LabelsFile
from finetune.domain.errors import InvalidInput

NEW_MESSAGES = 40
SAMPLES = 3

CONFIG = """\
# The demo's configuration.  For a real task change model_id (for example to Qwen/Qwen2.5-7B-Instruct)
# and data; `finetune init` writes a file in which every key is explained.
version: 1
name: triage
model_id: embedded        # a very small model that comes with the package
labels: configs/labels.yaml
artifacts: artifacts

data:
  files: [data/messages.jsonl]
  split: {train: 0.64, validation: 0.04, calibration: 0.19, test: 0.13}

prompt:
  # Short, and in the words that the small model was taught: every token costs time here.  Without this key
  # the instruction is written from the label set.
  system: 'Answer: {"decision": "<decision>"}'

lora: {r: 16, alpha: 32, dropout: 0.05}

training:
  learning_rate: 6.0e-3    # a model of millions of parameters takes ten times the rate of one of billions
  per_device_batch_size: 32
  gradient_accumulation_steps: 1
  epochs: 3
  max_length: 384
  evaluations_per_epoch: 1

conformal: {method: lac, alpha: 0.1}
risk: {level: 0.1, delta: 0.1}
prediction: {batch_size: 64, max_rationale_tokens: 32}
"""


class EmbeddedProject:
    """The project that ``finetune demo`` runs."""

    def write(self, folder: Path, rows: int, seed: int) -> Project:
        """Write data, labels and configuration; new messages come without labels.

        Raises
        ------
        InvalidInput
            The folder holds a project that the demo did not write.
        """
        marker = folder / "data" / "messages.jsonl"
        if (folder / "configs").exists() and not marker.exists():
            raise InvalidInput(
                "another project is in this folder, and the demo would overwrite its configuration",
                where=str(folder),
                remedy="choose another folder with --folder",
            )
        messages = generate_messages(rows + NEW_MESSAGES, seed)
        for name in ("data", "configs"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        _write(marker, _lines(messages[:rows], 0))
        new = folder / "data" / "new_messages.jsonl"
        _write(new, _lines(messages[rows:], rows, keys=("id", "text")))
        labels = labels_document()
        _write(
            folder / "configs" / "labels.yaml", yaml.safe_dump(labels, sort_keys=False, allow_unicode=True)
        )
        _write(folder / "configs" / "llm_lora.yaml", CONFIG)
        return Project(
            config=ProjectConfig.model_validate(yaml.safe_load(CONFIG)),
            labels=LabelsFile.model_validate(labels),
            new_messages=new,
            samples=tuple(message.text for message in messages[rows : rows + SAMPLES]),
        )


def _lines(messages: Sequence[Message], first: int, keys: Sequence[str] | None = None) -> str:
    rows = [to_row(message, first + i) for i, message in enumerate(messages)]
    if keys is not None:
        rows = [{key: row[key] for key in keys} for row in rows]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
