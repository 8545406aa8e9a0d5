"""The demo keeps what it shows: near the best possible accuracy, and promises that hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.integration.test_main_job import succeed_apart

from finetune.domain.decisions import DecisionRecord


def check(run: Path) -> None:
    """Check a finished demo's run folder."""
    found = json.loads((run / "evaluation.json").read_text())
    assert found["test"]["rows"] >= 1000
    assert found["known_posterior"]["share_reached"]["value"] >= 0.9
    assert found["accuracy"]["value"] > found["base"]["accuracy"]["value"] + 0.3
    assert found["coverage"]["inside"] is True
    assert found["coverage"]["band"]["probability"] == 0.99
    assert found["selective"]["answered"] > 0
    assert found["selective"]["error"]["value"] <= found["selective"]["level"]
    for name in ("report.html", "calibration.json", "README.md"):
        assert (run / name).stat().st_size > 0
    lines = (run / "predictions.jsonl").read_text().splitlines()
    assert any(DecisionRecord.from_json(line).rationale for line in lines)


@pytest.mark.slow
def test_the_demo_reaches_the_generators_accuracy_and_keeps_its_promises(tmp_path):
    succeed_apart(tmp_path, "demo", "--folder", "demo")
    check(tmp_path / "demo" / "artifacts" / "runs" / "triage")
