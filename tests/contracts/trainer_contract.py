"""What every backend's trainer and opener must do together; run on each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tests.fakes import FakeProgress

from finetune.application.config import ProjectConfig
from finetune.application.ports import Backend, DecisionModel, TrainingJob, TrainingOutcome
from finetune.domain.examples import Example
from finetune.domain.labels import LabelSet
from finetune.domain.prompts import PromptFormat

METRICS = {"log_loss", "accuracy", "ece", "mce", "brier"}
PROBES = ("I need a refill of my medicine", "the bill is wrong", "chest pain")


class ListLog:
    """Keeps events in memory."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def append(self, event: str, values: Mapping[str, Any]) -> None:
        self.events.append((event, dict(values)))


@dataclass
class Bench:
    """A backend, rows, and a folder that is trained in when first asked for."""

    backend: Backend
    config: ProjectConfig
    labels: LabelSet
    prompt: PromptFormat
    train: Sequence[Example]
    validation: Sequence[Example]
    folder: Path
    log: ListLog = field(default_factory=ListLog)
    outcome: TrainingOutcome | None = None

    def trained(self) -> TrainingOutcome:
        if self.outcome is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            job = TrainingJob(
                self.config,
                self.labels,
                self.prompt,
                self.train,
                self.validation,
                self.folder,
                {"config": {}, "rows": {}},
                resume=False,
            )
            self.outcome = self.backend.trainer().train(job, self.log, FakeProgress())
        return self.outcome

    def opened(self) -> DecisionModel:
        self.trained()
        return self.backend.models().open(self.config, self.labels, self.prompt, self.folder / "adapter")

    def elsewhere(self, folder: Path, **changes: Any) -> Bench:
        return replace(self, folder=folder / "run", log=ListLog(), outcome=None, **changes)


def leaves_an_adapter_and_nothing_unfinished(bench: Bench, _: Path) -> None:
    bench.trained()
    assert any((bench.folder / "adapter").iterdir())
    assert {path.name for path in bench.folder.iterdir()} <= {"adapter", "checkpoints"}


def measures_before_and_at_its_best(bench: Bench, _: Path) -> None:
    outcome = bench.trained()
    assert set(outcome.first) >= METRICS
    assert set(outcome.best) >= METRICS
    assert 0 <= outcome.best_step <= outcome.steps
    assert outcome.trainable_parameters <= outcome.total_parameters
    assert outcome.path_reason


def logs_the_start_and_every_evaluation(bench: Bench, _: Path) -> None:
    outcome = bench.trained()
    assert bench.log.events[0][0] == "started"
    evaluated = [values for event, values in bench.log.events if event == "evaluation"]
    assert evaluated
    assert all(set(values) >= METRICS | {"step"} for values in evaluated)
    assert outcome.best["log_loss"] == min(values["log_loss"] for values in evaluated)


def opens_what_it_trained(bench: Bench, _: Path) -> None:
    model = bench.opened()
    assert model.scorer.outcomes == bench.labels.outcomes
    assert model.notice
    texts = [row.text for row in bench.validation]
    truth = np.array([bench.labels.index(str(row.label)) for row in bench.validation])
    chosen = model.scorer.score(texts).log_probabilities.argmax(axis=1)
    assert float((chosen == truth).mean()) == float(bench.trained().best["accuracy"])


def says_the_same_of_the_same_files(bench: Bench, _: Path) -> None:
    first, second = bench.opened(), bench.opened()
    assert first.identity == second.identity
    one, two = (model.scorer.score(PROBES).log_probabilities for model in (first, second))
    np.testing.assert_array_equal(one, two)


def trains_to_the_same_weights_again(bench: Bench, folder: Path) -> None:
    again = bench.elsewhere(folder)
    assert again.opened().identity.adapter_hash == bench.opened().identity.adapter_hash


def other_rows_give_another_identity(bench: Bench, folder: Path) -> None:
    other = bench.elsewhere(folder, train=bench.train[: len(bench.train) // 2])
    assert other.opened().identity.adapter_hash != bench.opened().identity.adapter_hash
    assert other.opened().identity.base_hash == bench.opened().identity.base_hash


def shows_what_the_model_reads(bench: Bench, _: Path) -> None:
    encoder = bench.backend.encoders()(bench.config, bench.labels, bench.prompt)
    encoded = encoder.encode(bench.train[0])
    assert 0 < encoded.answer_start <= len(encoded.ids)
    assert encoded.removed_chars == 0
    shown = "".join(encoder.tokens(encoded.ids))
    assert bench.train[0].text[0].lower() in shown.lower()


TRAINER_CASES: tuple[Callable[[Bench, Path], None], ...] = (
    leaves_an_adapter_and_nothing_unfinished,
    measures_before_and_at_its_best,
    logs_the_start_and_every_evaluation,
    opens_what_it_trained,
    says_the_same_of_the_same_files,
    trains_to_the_same_weights_again,
    other_rows_give_another_identity,
    shows_what_the_model_reads,
)
