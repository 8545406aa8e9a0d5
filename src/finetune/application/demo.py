"""Demo: the whole way on generated data whose true probabilities are known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from finetune.application.calibrate import Calibrate
from finetune.application.certificate import Certificate
from finetune.application.config import ProjectConfig
from finetune.application.evaluate import Evaluate
from finetune.application.evaluation import EvaluationReport
from finetune.application.labels_file import LabelsFile
from finetune.application.ports import Progress
from finetune.application.predict import Predict, PredictReport
from finetune.application.prepare import Prepare
from finetune.application.prepare_report import PrepareReport
from finetune.application.train import Train, TrainReport
from finetune.domain.decisions import DecisionRecord


class Project(NamedTuple):
    """A written project: its configuration and labels, a file of new messages and some of their texts."""

    config: ProjectConfig
    labels: LabelsFile
    new_messages: Path
    samples: tuple[str, ...]


class ProjectWriter(Protocol):
    """Writes a project that needs nothing from outside."""

    def write(self, folder: Path, rows: int, seed: int) -> Project:
        """Write data and configuration into a folder."""


@dataclass(frozen=True)
class DemoReport:
    """What each step of the demo gave."""

    config: ProjectConfig
    prepared: PrepareReport
    trained: TrainReport
    certificate: Certificate
    evaluation: EvaluationReport
    predicted: PredictReport
    examples: tuple[tuple[str, DecisionRecord], ...]

    def document(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "version": 1,
            "run": str(self.config.run_folder),
            "prepared": self.prepared.document(),
            "trained": self.trained.document(),
            "certificate": self.certificate.model_dump(mode="json"),
            "evaluation": self.evaluation.document(),
            "predicted": self.predicted.document(),
            "examples": [
                {"text": text, **record.model_dump(mode="json", exclude={"guarantee", "model"})}
                for text, record in self.examples
            ],
        }

    def summary_lines(self) -> list[str]:
        """Return what a new user should read."""
        outcome = self.trained.outcome
        tuned = f"Tuned {outcome.trainable_parameters:,} of {outcome.total_parameters:,} parameters"
        lines = [
            f"{tuned} in {outcome.seconds:.0f} s. On test messages it had never seen:",
            "",
            *(f"- {finding['text']}" for finding in self.evaluation.document()["summary"]),
            "",
            "New messages:",
        ]
        for text, record in self.examples:
            shown = " ".join(text.split())
            lines += ["", f"  {shown if len(shown) <= 160 else shown[:157] + '...'}"]
            if record.abstain:
                lines.append(f"  -> handed to a person ({record.abstain_reason})")
            else:
                lines.append(f"  -> {record.decision}, with probability {record.confidence:.2f}")
            lines.append(f"     shortlist: {', '.join(record.prediction_set or ()) or 'empty'}")
            if record.rationale:
                lines.append(f"     {record.rationale}")
        return lines


@dataclass(frozen=True)
class Demo:
    """Runs prepare, train, calibrate, evaluate and predict in the working directory.

    Parameters
    ----------
    project
        Writes data and configuration.
    prepare, train, calibrate, evaluate, predict
        The use cases, as every user runs them.
    progress
        Told which step begins.
    """

    project: ProjectWriter
    prepare: Prepare
    train: Train
    calibrate: Calibrate
    evaluate: Evaluate
    predict: Predict
    progress: Progress

    def __call__(self, rows: int, seed: int) -> DemoReport:
        """Run everything.

        Parameters
        ----------
        rows
            Labelled messages to generate.
        seed
            Seed of the data.

        Raises
        ------
        InfeasibleGuarantee
            There are too few rows for the promised error among the answered.
        """
        self.progress.say(f"1/5 prepare: {rows:,} generated patient messages")
        config, labels, new, samples = self.project.write(Path(), rows, seed)
        prepared = self.prepare(config, labels)
        self.progress.say("2/5 train: LoRA on the small model that comes with the package")
        trained = self.train(config, labels)
        self.progress.say("3/5 calibrate: calibration map, prediction sets, threshold")
        certificate = self.calibrate(config, labels)
        self.progress.say("4/5 evaluate: test messages, with and without the adapter")
        evaluation = self.evaluate(config, base=True)
        self.progress.say("5/5 predict: new messages, with rationales")
        output = config.run_folder / "predictions.jsonl"
        predicted = self.predict.file(config, new, output, rationale=True)
        records = self.predict.text(config, samples, rationale=True)
        return DemoReport(
            config=config,
            prepared=prepared,
            trained=trained,
            certificate=certificate,
            evaluation=evaluation,
            predicted=predicted,
            examples=tuple(zip(samples, records, strict=True)),
        )
