"""What is watched while training: rates cut where calibration gets worse, the best step by any metric."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.fakes import FakeProgress
from tests.integration.steered import Alter, Measures, follow, steering, worse_as_it_learns
from tests.integration.test_hf_training import configure
from tests.tiny_models import save_tiny

from finetune.adapters.files.log import read_metrics
from finetune.application.config import ProjectConfig
from finetune.application.ports import TrainingOutcome


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return save_tiny("qwen2", tmp_path_factory.mktemp("tiny"))


def follow_shortly(config: ProjectConfig, run: Path, **options) -> TrainingOutcome:
    """Six steps, each followed by an evaluation."""
    return follow(config, run, rows=8, **options)


def logged(run: Path, *events: str) -> list[dict]:
    return [entry for entry in read_metrics(run / "metrics.jsonl") if entry["event"] in events]


def rates(run: Path) -> dict[int, float]:
    return {entry["step"]: entry["learning_rate"] for entry in logged(run, "training")}


def measuring(errors: Iterable[float], noise: float = 0.02) -> Alter:
    """Put these calibration errors into the evaluations; the one before training is the first."""
    coming = iter(errors)
    return lambda measures: {**measures, "ece": next(coming), "ece_noise": noise}


JUMP = (0.0, 0.04, 0.03, 0.15, 0.16, 0.15, 0.16)


@pytest.fixture(scope="module")
def calm(tiny, tmp_path_factory) -> dict[int, float]:
    """The rates of a training that cuts none, by step."""
    run = tmp_path_factory.mktemp("calm")
    follow_shortly(steering(tiny), run, alter=measuring([0.03] * 7))
    assert logged(run, "learning_rate_cut") == []
    return rates(run)


def test_a_jump_of_the_calibration_error_cuts_the_rate_once(tiny, calm, tmp_path):
    progress = FakeProgress()
    follow_shortly(steering(tiny), tmp_path, alter=measuring(JUMP), progress=progress)
    [cut] = logged(tmp_path, "learning_rate_cut")
    assert (cut["step"], cut["epoch"]) == (3, 1.5)
    assert (cut["ece"], cut["best_ece"]) == (0.15, 0.03)
    assert cut["band"] == pytest.approx(0.04)
    assert cut["to"] == pytest.approx(0.8 * cut["from"])
    for step, rate in rates(tmp_path).items():
        assert rate == pytest.approx((0.8 if step > 3 else 1.0) * calm[step]), step
    [said] = [line for line in progress.said if "calibration error" in line]
    assert "step 3" in said
    assert "0.030" in said


def test_noise_of_the_size_of_its_band_cuts_nothing(tiny, calm, tmp_path):
    """Three times the threshold of 0.05, and still no more than chance does to one of two errors each."""
    noise = 0.08
    errors = 0.1 + np.random.default_rng(0).uniform(-noise, noise, 7)
    follow_shortly(steering(tiny), tmp_path, alter=measuring([float(error) for error in errors], noise))
    assert logged(tmp_path, "learning_rate_cut") == []
    assert rates(tmp_path) == calm


def test_nothing_is_steered_unless_it_is_asked_for(tiny, calm, tmp_path):
    follow_shortly(configure(tiny), tmp_path, alter=measuring(JUMP))
    assert logged(tmp_path, "learning_rate_cut") == []
    assert rates(tmp_path) == calm


def test_the_last_evaluation_has_no_rate_to_cut(tiny, tmp_path):
    follow_shortly(steering(tiny), tmp_path, alter=measuring([0.03] * 6 + [0.5]))
    assert logged(tmp_path, "learning_rate_cut") == []


IN_TWO = """
import sys
sys.path.insert(0, {tests!r})
import os
from pathlib import Path
import finetune.adapters.hf.monitor as monitor
from tests.integration.steered import follow, steering, worse_as_it_learns
scale = monitor.scale_rates
def told(optimizer, scheduler, factor):
    scale(optimizer, scheduler, factor)
    path = Path({run!r}) / ("cut-" + os.environ["RANK"])
    path.write_text(path.read_text() + "again" if path.exists() else str(scheduler.get_last_lr()))
monitor.scale_rates = told
config = steering(Path({model!r}), threshold=0.0005, per_device_batch_size=1)
follow(config, Path({run!r}), alter=worse_as_it_learns, rows=8)
"""


def test_all_processes_cut_alike(tiny, tmp_path):
    script = tmp_path / "two.py"
    script.write_text(IN_TWO.format(tests=str(Path(__file__).parents[2]), model=str(tiny), run=str(tmp_path)))
    ended = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    [cut] = logged(tmp_path, "learning_rate_cut")
    first, second = ((tmp_path / f"cut-{rank}").read_text() for rank in (0, 1))
    assert first == second == str([cut["to"]] * 2)


KILLED = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from tests.integration.steered import follow, steering, worse_as_it_learns
config = steering(Path({model!r}), threshold=0.01, **{training!r})
follow(config, Path({run!r}), alter=worse_as_it_learns, kill_at={step})
"""


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """Uninterrupted trainings whose rate is cut, each once, by the entries of their loss a step."""
    done = {}

    def run(config: ProjectConfig) -> tuple[Path, object]:
        key = config.model_dump_json()
        if key not in done:
            folder = tmp_path_factory.mktemp("whole")
            done[key] = folder, follow(config, folder, alter=worse_as_it_learns)
        return done[key]

    return run


@pytest.mark.parametrize(
    ("step", "cut_at", "training"),
    [
        (17, 15, {}),
        (12, 15, {}),
        (12, 10, {"logging_steps": 4, "lr_scheduler": "reduce_lr_on_plateau"}),
        (16, 15, {"lr_scheduler": "polynomial"}),
    ],
    ids=["after the cut", "before it", "loss of several steps, rate kept by the optimiser", "polynomial"],
)
def test_a_training_killed_around_a_cut_goes_on_as_if_nothing_had_happened(
    tiny, whole, tmp_path, step, cut_at, training
):
    config = steering(tiny, threshold=0.01, **training)
    unbroken, expected = whole(config)
    [cut] = logged(unbroken, "learning_rate_cut")
    assert cut["step"] == cut_at
    run = tmp_path / "killed"
    script = KILLED.format(
        tests=str(Path(__file__).parents[2]), model=str(tiny), run=str(run), step=step, training=training
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    resumed = follow(config, run, alter=worse_as_it_learns, resume=True)
    [beginning] = logged(run, "resumed")
    assert beginning["step"] == step // 5 * 5, "in the middle of an epoch"
    assert resumed.best == expected.best
    assert resumed.best_step == expected.best_step
    ours, theirs = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (run, unbroken))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    events = [
        [entry for entry in read_metrics(folder / "metrics.jsonl") if entry["event"] != "resumed"]
        for folder in (run, unbroken)
    ]
    assert events[0] == events[1]


@pytest.mark.parametrize(
    ("metric", "best"),
    [("ece", min), ("mean_set_size", min), ("accuracy", max), ("json_validity", max)],
)
def test_any_metric_chooses_the_best_checkpoint(tiny, tmp_path, metric, best):
    values = [0.9, 0.5, 0.2, 0.7, 0.4, 0.3, 0.6]
    coming = iter(values)
    config = configure(tiny, training={"early_stopping": {"metric": metric, "enabled": False}})
    outcome = follow_shortly(config, tmp_path, alter=lambda measures: {**measures, metric: next(coming)})
    evaluated = logged(tmp_path, "evaluation")
    assert [entry[metric] for entry in evaluated] == values[1:]
    assert outcome.best[metric] == best(values[1:])
    assert outcome.best_step == next(e["step"] for e in evaluated if e[metric] == best(values[1:]))
    assert outcome.steps == 6


def test_stopping_early_by_another_metric(tiny, tmp_path):
    coming = iter([0.0, 0.3, 0.5, 0.5, 0.4, 0.6, 0.6])
    stopping = {"metric": "accuracy", "patience": 2}
    outcome = follow_shortly(
        configure(tiny, training={"early_stopping": stopping}),
        tmp_path,
        alter=lambda measures: {**measures, "accuracy": next(coming)},
    )
    assert outcome.stopped_early
    assert (outcome.best_step, outcome.steps) == (2, 4)


def without(measures: Measures, metric: str) -> Measures:
    return {name: value for name, value in measures.items() if name != metric}


@pytest.mark.parametrize("scheduler", ["cosine", "reduce_lr_on_plateau"])
def test_an_evaluation_without_the_metric_is_passed_over(tiny, tmp_path, scheduler):
    """Nothing is answered at the first and the third evaluation: two in a row without improvement stop."""
    risks = iter([0.5, None, 0.4, None, 0.5, 0.4, 0.1])

    def alter(measures: Measures) -> Measures:
        risk = next(risks)
        rest = without(measures, "selective_risk")
        return rest if risk is None else {**rest, "selective_risk": risk}

    stopping = {"metric": "selective_risk", "patience": 2}
    config = configure(tiny, training={"early_stopping": stopping, "lr_scheduler": scheduler})
    outcome = follow_shortly(config, tmp_path, alter=alter)
    evaluated = {entry["step"]: entry for entry in logged(tmp_path, "evaluation")}
    assert [step for step, entry in evaluated.items() if "selective_risk" not in entry] == [1, 3]
    assert outcome.best_step == 2
    # That of step 2 stays the best one: 4 and 5 are no better.
    assert outcome.steps == 5


def test_a_metric_that_is_never_there_leaves_the_last_adapter(tiny, tmp_path):
    progress = FakeProgress()
    config = configure(tiny, training={"early_stopping": {"metric": "selective_risk", "patience": 1}})
    outcome = follow_shortly(
        config, tmp_path, alter=lambda found: without(found, "selective_risk"), progress=progress
    )
    assert (outcome.best_step, outcome.steps, outcome.stopped_early) == (6, 6, False)
    assert outcome.best["log_loss"] > 0.0
    assert any("no evaluation measured selective_risk" in line for line in progress.said)
    json.dumps(outcome.best, allow_nan=False)
