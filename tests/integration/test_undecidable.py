"""A language model that is trained on messages of the demo that nobody can decide comes to know it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from tests.integration.test_hf_training import Log

from finetune.adapters.embedded.messages import Message, generate_messages, labels_document
from finetune.adapters.hf.backend import HfModelOpener
from finetune.adapters.hf.reporting import Silence
from finetune.adapters.hf.trainer import HfTrainer
from finetune.application.config import ProjectConfig
from finetune.application.labels_file import LabelsFile
from finetune.application.ports import TrainingJob
from finetune.application.prompting import build_prompt
from finetune.container import resolve_model
from finetune.domain.examples import Example

LABELS = LabelsFile.model_validate(labels_document()).label_set()
ROWS_OF_ONE = 30


def undecidable(n: int) -> list[Message]:
    """Return the first messages of the demo whose likeliest label has less than 0.7, no two alike."""
    found: dict[tuple[float, ...], Message] = {}
    for message in generate_messages(2000, seed=0):
        if max(message.posterior.values()) < 0.7:
            found.setdefault(tuple(message.posterior.values()), message)
    return list(found.values())[:n]


def in_proportion(message: Message) -> list[str]:
    """Return labels in proportion to the posterior: what a draw gives, but for its chance."""
    ends = np.cumsum([message.posterior[name] for name in LABELS.outcomes])
    places = np.searchsorted(ends / ends[-1], (np.arange(ROWS_OF_ONE) + 0.5) / ROWS_OF_ONE)
    return [LABELS.outcomes[place] for place in places]


@pytest.mark.parametrize(
    "objective", [{}, {"abstention_loss": {"enabled": True}}], ids=["default", "abstention"]
)
def test_undecidable_messages_get_their_posterior_and_no_single_label(objective: Mapping[str, Any], tmp_path):
    messages = undecidable(4)
    rows = [
        Example(f"{i}:{j}", message.text, label, None)
        for i, message in enumerate(messages)
        for j, label in enumerate(in_proportion(message))
    ]
    config = ProjectConfig.model_validate(
        {
            "model_id": "embedded",
            "data": {"files": ["none"]},
            "prompt": {"system": 'Answer: {"decision": "<decision>"}'},
            "lora": {"r": 16, "alpha": 32.0, "dropout": 0.0},
            "training": {
                "learning_rate": 6e-3,
                # All rows in each step: where it ends is not for the order of rows to decide.
                "per_device_batch_size": len(rows),
                "gradient_accumulation_steps": 1,
                "epochs": 60,
                "evaluations_per_epoch": 1,
                "early_stopping": {"enabled": False},
                "max_length": 384,
                "json_samples": 0,
            },
            **objective,
        }
    )
    prompt = build_prompt(config.prompt, LABELS)
    costs = 1.0 - np.eye(len(LABELS.outcomes))
    job = TrainingJob(config, LABELS, prompt, rows, rows, tmp_path, {}, False, costs)
    HfTrainer(resolve_model).train(job, Log(), Silence())

    scorer = HfModelOpener(resolve_model).open(config, LABELS, prompt, tmp_path / "adapter").scorer
    found = np.exp(scorer.score([message.text for message in messages]).log_probabilities)
    known = np.array([[message.posterior[name] for name in LABELS.outcomes] for message in messages])
    distances = 0.5 * np.abs(found - known).sum(axis=1)
    # One label alone would be 0.3 away at the least, equal probabilities of all 0.4.
    assert distances.max() < 0.05, np.round(found, 3).tolist()
