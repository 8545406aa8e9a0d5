"""Each command through the whole application, on real files, with a fake model in place of a real one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fake_models import FakeModels, draw_rows
from typer.testing import Result

from finetune.application.config import ProjectConfig
from finetune.application.ports import EncodedExample, MetricsLog, Progress, TrainingJob, TrainingOutcome
from finetune.cli.console import SilentProgress
from finetune.container import Container
from finetune.domain.examples import Example
from finetune.domain.labels import LabelSet
from finetune.domain.prompts import PromptFormat

Invoke = Callable[..., Result]
OUTCOMES = ("urgent", "routine")


class Letters:
    """An encoder whose tokens are letters."""

    def encode(self, example: Example) -> EncodedExample:
        ids = tuple(map(ord, f"{example.text} {example.label}"))
        return EncodedExample(ids, len(example.text), 0)

    def tokens(self, ids: Sequence[int]) -> list[str]:
        return [chr(i) for i in ids]


class FakeTrainer:
    """Writes an adapter that no one can load, and remembers its jobs."""

    def __init__(self) -> None:
        self.jobs: list[TrainingJob] = []
        self.main_process = True

    def train(self, job: TrainingJob, log: MetricsLog, progress: Progress) -> TrainingOutcome:
        self.jobs.append(job)
        (job.folder / "adapter").mkdir(parents=True, exist_ok=True)
        (job.folder / "adapter/adapter_model.safetensors").write_bytes(b"weights")
        with progress.task("training", 1) as task:
            task.advance()
        return TrainingOutcome(
            steps=75,
            epochs=3.0,
            best_step=50,
            best={"log_loss": 0.31234, "accuracy": 0.875},
            first={"log_loss": 0.69315, "accuracy": 0.5},
            stopped_early=True,
            trainable_parameters=12_345,
            total_parameters=1_000_000,
            adapted_modules={"q_proj": 2},
            precision="float32",
            shortened_texts=0,
            seconds=61.0,
            versions={"torch": "2.13"},
            main_process=self.main_process,
        )


class PlainReport:
    """A report that is one line."""

    def render(self, evaluation: Any) -> str:
        return f"<html>{evaluation['run']}</html>"


def encoder(config: ProjectConfig, labels: LabelSet, prompt: PromptFormat) -> Letters:
    return Letters()


@pytest.fixture
def trainer() -> FakeTrainer:
    return FakeTrainer()


@pytest.fixture
def ready(project: Path, container: Container, trainer: FakeTrainer) -> Container:
    """A project with data, and a container whose models are fakes."""
    rows = draw_rows(OUTCOMES, 1500, np.random.default_rng(0))
    lines = [json.dumps({"id": row["id"], "text": row["text"], "label": row["label"]}) for row in rows]
    (project / "data.jsonl").write_text("\n".join(lines), encoding="utf-8")
    config = project / "configs/llm_lora.yaml"
    data = "data:\n  files: [data.jsonl]\n  near_duplicate_threshold: null\nrisk: {level: 0.2}"
    text = config.read_text("utf-8").replace("data: {files: [data.csv]}", data)
    config.write_text(text, encoding="utf-8")
    # An adapter is put in the place of another with one line.
    container.models.override(FakeModels())
    container.trainer.override(trainer)
    container.encoders.override(encoder)
    container.report.override(PlainReport())
    return container


def succeed(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    assert "Traceback" not in result.output
    return result


def test_the_whole_way(ready: Container, invoke: Invoke, project: Path) -> None:
    run = Path("artifacts/runs/triage")
    for command, said, written, following in [
        ("prepare", "Prepared triage", Path("artifacts/data/triage"), "finetune train"),
        ("train", "stopped early", run, "finetune calibrate"),
        ("calibrate", "at most 20 % are answered wrongly", run / "calibration.json", "finetune evaluate"),
        ("evaluate", "wrong among answered", run / "report.html", "finetune predict"),
    ]:
        page = succeed(invoke(command)).stdout
        assert said in page
        assert f"Written: {written}\n" in page
        assert (project / written).exists()
        assert f"Next: {following}" in page
    page = succeed(invoke("predict", "-t", "a text", "-t", "another one")).stdout
    assert "Decided 2 texts" in page
    assert "another one" in page
    assert "shortlist" in page


@pytest.fixture
def calibrated(ready: Container, invoke: Invoke) -> Container:
    for command in ("prepare", "train", "calibrate"):
        succeed(invoke(command, "--quiet"))
    return ready


def test_json_output_is_one_document_and_nothing_else(calibrated: Container, invoke: Invoke) -> None:
    for command, key in [
        ("prepare", "splits"),
        ("train", "best"),
        ("calibrate", "selective"),
        ("evaluate", "summary"),
    ]:
        assert key in json.loads(succeed(invoke(command, "--json")).stdout)


def test_quiet_says_nothing(ready: Container, invoke: Invoke) -> None:
    for command in ("prepare", "train", "calibrate", "evaluate"):
        assert succeed(invoke(command, "-q")).output == ""


def test_the_next_command_keeps_the_options(ready: Container, invoke: Invoke, project: Path) -> None:
    (project / "configs/llm_lora.yaml").rename(project / "other.yaml")
    page = succeed(invoke("prepare", "-c", "other.yaml", "-s", "name=two")).stdout
    assert "Next: finetune train -c other.yaml -s name=two" in page
    assert (
        "Next: finetune calibrate -c other.yaml -s name=two"
        in succeed(invoke("train", "-c", "other.yaml", "-s", "name=two")).stdout
    )


def test_train_shows_validation_before_and_after(ready: Container, invoke: Invoke) -> None:
    succeed(invoke("prepare"))
    page = succeed(invoke("train")).stdout
    assert "1.2 % of all" in page
    assert re.search(r"log loss +0.693 +0.312", page)


def test_train_hands_on_resume_and_one_of_many_processes_speaks(
    ready: Container, invoke: Invoke, trainer: FakeTrainer
) -> None:
    succeed(invoke("prepare"))
    trainer.main_process = False
    assert succeed(invoke("train", "--resume")).stdout == ""
    assert [job.resume for job in trainer.jobs] == [True]


def test_what_cannot_be_promised_is_said(ready: Container, invoke: Invoke) -> None:
    for command in ("prepare", "train"):
        succeed(invoke(command, "-q"))
    refused = invoke("calibrate", "-s", "risk.level=0.001")
    assert refused.exit_code == 5
    assert "What to do: " in refused.stderr
    settings = ("-s", "risk.level=0.001", "-s", "risk.on_infeasible=abstain")
    page = succeed(invoke("calibrate", *settings)).stdout
    assert re.search(r"answers +none, of \d+ rows", page)
    assert "Note: " in page
    assert "No error rate is promised" in succeed(invoke("evaluate", *settings)).stdout


def test_many_labels_do_not_fill_the_screen(ready: Container, invoke: Invoke, project: Path) -> None:
    rows = [{"text": f"text {i} of {i % 77}", "label": f"label {i % 77}"} for i in range(770)]
    (project / "many.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    page = succeed(invoke("init", "new", "--data", "many.jsonl")).stdout
    assert "and 57 more labels\n" in page
    assert len(page.splitlines()) < 45


def test_a_run_is_named_by_its_folder(calibrated: Container, invoke: Invoke, project: Path) -> None:
    (project / "configs/llm_lora.yaml").unlink()
    page = succeed(invoke("evaluate", "--run", "artifacts/runs/triage", "--base")).stdout
    assert "finetune predict --run artifacts/runs/triage" in page


def test_a_moved_run_is_found(
    calibrated: Container, invoke: Invoke, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "artifacts").rename(project / "moved")
    (project / "elsewhere").mkdir()
    monkeypatch.chdir(project / "elsewhere")
    page = succeed(invoke("evaluate", "--run", "../moved/runs/triage")).stdout
    assert str(project / "moved/runs/triage/report.html") in page


def test_a_run_outside_its_place_is_refused(calibrated: Container, invoke: Invoke, project: Path) -> None:
    (project / "artifacts/runs/triage").rename(project / "triage")
    result = invoke("predict", "--run", "triage", "-t", "x")
    assert result.exit_code == 3
    assert "ARTIFACTS/runs/NAME" in result.stderr


def test_a_run_and_a_configuration_exclude_each_other(calibrated: Container, invoke: Invoke) -> None:
    result = invoke("evaluate", "--run", "artifacts/runs/triage", "-c", "configs/llm_lora.yaml")
    assert result.exit_code == 2
    assert "leave --config away" in result.stderr


def test_a_folder_that_is_no_run_is_refused(ready: Container, invoke: Invoke) -> None:
    assert invoke("evaluate", "--run", "nowhere").exit_code == 3


def test_predict_prints_records_as_json_lines(calibrated: Container, invoke: Invoke) -> None:
    result = succeed(invoke("predict", "-t", "one", "-t", "two", "--rationale", "--json"))
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(records) == 2
    assert all(record["rationale"] for record in records)


def test_predict_reads_lines_from_standard_input(calibrated: Container, invoke: Invoke) -> None:
    result = succeed(invoke("predict", "-i", "-", "--json", input="one\n\n  two  \n"))
    assert len(result.stdout.splitlines()) == 2


def test_predict_writes_a_file(calibrated: Container, invoke: Invoke, project: Path) -> None:
    (project / "new.csv").write_text("nr,body\n1,one\n2,two\n", encoding="utf-8")
    options = ["-i", "new.csv", "-o", "out.jsonl", "--text-column", "body", "--id-column", "nr"]
    page = succeed(invoke("predict", *options)).stdout
    assert "Written: out.jsonl" in page
    records = [json.loads(line) for line in (project / "out.jsonl").read_text("utf-8").splitlines()]
    assert [record["id"] for record in records] == ["1", "2"]


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["-t", "x", "-i", "a.csv"],
        ["-i", "a.csv"],
        ["-t", "x", "-o", "b.jsonl"],
        ["-i", "-", "-o", "b.jsonl"],
    ],
)
def test_predict_refuses_what_makes_no_sense(invoke: Invoke, options: list[str]) -> None:
    result = invoke("predict", *options)
    assert result.exit_code == 2
    assert result.stdout == ""


def test_init_starts_a_project_that_can_be_prepared(
    ready: Container, invoke: Invoke, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = succeed(invoke("init", "my shop", "--data", "data.jsonl")).stdout
    assert "Next: cd 'my shop'\nNext: finetune prepare" in page
    assert re.search(r"urgent +\d+", page)
    again = invoke("init", "my shop", "--json")
    assert again.exit_code == json.loads(again.stdout)["error"]["exit_code"] == 3
    monkeypatch.chdir(project / "my shop")
    succeed(invoke("prepare"))


def test_demo_runs_in_its_folder_and_shows_what_it_found(
    invoke: Invoke, container: Container, project: Path
) -> None:
    asked: list[tuple[Path, int, int]] = []

    class Report:
        config = ProjectConfig.model_validate({"model_id": "embedded", "data": {"files": ["a.csv"]}})

        def document(self) -> dict[str, object]:
            return {"rows": 300}

        def summary_lines(self) -> list[str]:
            return ["It answered 90 % of the messages.", "", "New messages:"]

    def demo(rows: int, seed: int) -> Report:
        asked.append((Path.cwd(), rows, seed))
        return Report()

    container.demo.override(demo)
    page = succeed(invoke("demo", "--folder", "see there", "--size", "300", "--seed", "7")).stdout
    assert "It answered 90 % of the messages.\n" in page
    assert f"Written: {Path('see there/artifacts/runs/run/report.html')}\nNext: cd 'see there'\n" in page
    assert json.loads(succeed(invoke("demo", "--json")).stdout) == {"rows": 300}
    assert asked == [(project / "see there", 300, 7), (project / "demo", 11000, 0)]
    assert Path.cwd() == project


def test_the_demo_is_wired_with_the_use_cases_of_every_user(ready: Container) -> None:
    ready.progress.override(SilentProgress())
    demo = ready.demo()
    assert isinstance(demo.prepare.encoders, type(encoder))
    assert isinstance(demo.evaluate.report, PlainReport)
    assert demo.calibrate.models is demo.predict.models


def test_version_and_bare_call(invoke: Invoke) -> None:
    from finetune import __version__

    assert succeed(invoke("--version")).stdout == f"finetune {__version__}\n"
    assert "Commands" in succeed(invoke()).stdout
