"""``finetune sweep``: what is typed becomes a space, and what came of it a page."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

from finetune.application.ports import FinishedTrial, LogRange
from finetune.application.sweep import SweepRequest
from finetune.application.sweep_results import SweepReport, failed_facts, finished_facts
from finetune.container import Container

Invoke = Callable[..., Result]


class FakeSweep:
    """Remembers what it was asked, and answers with two trials."""

    def __init__(self) -> None:
        self.asked: list[tuple[SweepRequest, bool]] = []
        self.error: BaseException | None = None

    def __call__(self, request: SweepRequest, labels: Any, *, resume: bool) -> SweepReport:
        self.asked.append((request, resume))
        if self.error is not None:
            raise self.error
        config = request.configure(())
        settings = {key: values[0] for key, values in request.space.items()}
        metrics = {"log_loss": 0.25, "accuracy": 0.875, "ece": 0.0625, "brier": 0.5}
        return SweepReport(
            name="triage",
            folder=config.artifacts / "sweeps" / "triage",
            config=config,
            options=request.options,
            space=request.space,
            metric=request.metric or "log_loss",
            direction="minimize",
            validation_rows=400,
            identity={"rows": "hash"},
            trials=(
                FinishedTrial(1, settings, None, failed_facts("the loss is not a number")),
                FinishedTrial(2, settings, 0.25, finished_facts(metrics, 30, 90.0)),
            ),
        )


@pytest.fixture
def sweep(container: Container) -> FakeSweep:
    fake = FakeSweep()
    container.sweep.override(fake)
    return fake


SPACES = {
    "": {},
    "--learning-rate 5e-5:1e-3": {"training.learning_rate": LogRange(5e-5, 1e-3)},
    "--learning-rate 1e-4,2e-4": {"training.learning_rate": (1e-4, 2e-4)},
    "--rank 8,16 --objective focal,cross_entropy": {
        "lora.r": (8, 16),
        "objective.name": ("focal", "cross_entropy"),
    },
    "--vary lora.dropout=0,0.1 --vary training.token_tree=auto,false": {
        "lora.dropout": (0, 0.1),
        "training.token_tree": ("auto", False),
    },
}


@pytest.mark.parametrize("words", SPACES)
def test_options_become_a_space(words: str, invoke: Invoke, sweep: FakeSweep) -> None:
    result = invoke("sweep", *words.split(), "--trials", "7", "--metric", "brier", "--resume", "--keep-all")
    assert result.exit_code == 0, result.output
    ((request, resume),) = sweep.asked
    assert request.space == SPACES[words]
    assert (request.trials, request.metric, request.keep_all, resume) == (7, "brier", True, True)


def test_a_trial_is_configured_as_the_command_line_would(invoke: Invoke, sweep: FakeSweep) -> None:
    invoke("sweep", "-s", "lora.alpha=8", "--rank", "2,4")
    ((request, _),) = sweep.asked
    config = request.configure(["lora.r=2", "lora.alpha=1"])
    assert (config.lora.r, config.lora.alpha) == (2, 1.0)
    assert request.options == " -s lora.alpha=8"


def test_the_page_shows_trials_warning_and_the_next_command(invoke: Invoke, sweep: FakeSweep) -> None:
    page = invoke("sweep", "-s", "lora.alpha=8", "--rank", "2,4").stdout
    assert "trial  r  log loss  accuracy     ece  minutes" in page
    assert "2  2      0.25     0.875  0.0625      1.5" in page
    assert "1  2    failed" in page
    assert "Note: trial 1 failed: the loss is not a number" in page
    assert "lowest log loss, 0.25, of 1 trial on 400 validation rows" in page
    assert "Calibration and test rows were not used" in page
    assert "Next: finetune train -s lora.alpha=8 -s lora.r=2 -s lora.alpha=1\n" in page


def test_json_has_everything(invoke: Invoke, sweep: FakeSweep) -> None:
    document = json.loads(invoke("sweep", "--rank", "2,4", "--json").stdout)
    assert document["trials"][0]["metrics"]["brier"] == 0.5
    assert document["space"] == {"lora.r": [2, 4]}
    assert document["command"].startswith("finetune train")


@pytest.mark.parametrize(
    "words",
    [
        "--learning-rate high:low",
        "--rank 8,many",
        "--vary lora.dropout",
        "--rank 8,16 --vary lora.r=2,4",
        "--trials 0",
    ],
)
def test_what_cannot_be_read_is_a_matter_of_usage(words: str, invoke: Invoke, sweep: FakeSweep) -> None:
    assert invoke("sweep", *words.split()).exit_code == 2
    assert sweep.asked == []


def test_several_processes_are_refused(
    invoke: Invoke, sweep: FakeSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = invoke("sweep")
    assert result.exit_code == 3
    assert "one process" in result.stderr


def test_ctrl_c_says_how_to_go_on(invoke: Invoke, sweep: FakeSweep) -> None:
    sweep.error = KeyboardInterrupt()
    result = invoke("sweep")
    assert result.exit_code == 130
    assert "--resume" in result.stderr
