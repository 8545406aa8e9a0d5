"""Sweep: what it trains, what it keeps, what it goes on after, and what it refuses to search."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.fakes import FakeClock, MemoryStores, MemoryStudies
from tests.unit.application.world import World, make_world

from finetune.application.config import ProjectConfig
from finetune.application.ports import LogRange, TrainingJob, TrainingOutcome
from finetune.application.prepared import preparation_facts
from finetune.application.search_space import as_overrides
from finetune.application.sweep import Sweep, SweepRequest
from finetune.application.train import Train
from finetune.domain.errors import IntegrityError, InvalidInput, MissingExtra

RANKS = {"lora.r": (4, 8, 16)}
MIXED = {"training.learning_rate": LogRange(1e-5, 1e-2), **RANKS}


def log_loss_of(config: ProjectConfig) -> float:
    """Return a loss that is least where rank is 8, and grows with the learning rate."""
    return abs(config.lora.r - 8) / 10 + config.training.learning_rate


@dataclass
class SettingsTrainer:
    """Its outcome follows from the settings; ``before`` and ``within`` may raise what a training raises."""

    stores: MemoryStores
    before: Callable[[TrainingJob], None] = lambda job: None
    within: Callable[[TrainingJob], None] = lambda job: None
    measure: Callable[[ProjectConfig], Mapping[str, float]] = lambda config: {
        "log_loss": log_loss_of(config),
        "accuracy": 1.0 - log_loss_of(config) / 2,
    }
    jobs: list[TrainingJob] = field(default_factory=list)

    def train(self, job, log, progress) -> TrainingOutcome:
        self.jobs.append(job)
        self.before(job)
        log.append("started", {"step": 0, "call": len(self.jobs)})
        run = self.stores(job.folder)
        run.write_json("checkpoints/job.json", {"identity": dict(job.identity), "machine": {}})
        self.within(job)
        run.write_text("adapter/adapter_model.safetensors", f"weights {job.config.lora.r}")
        return TrainingOutcome(
            steps=10,
            epochs=1.0,
            best_step=5,
            best=self.measure(job.config),
            first={"log_loss": 2.0},
            seconds=90.0,
            versions={"torch": "2"},
        )


@dataclass
class StoreLog:
    """A log that lies in the store of its run, as the one of files does."""

    stores: MemoryStores
    folder: Path

    def append(self, event: str, values: Mapping[str, Any]) -> None:
        name = str(self.folder / "metrics.jsonl")
        line = json.dumps({"event": event, **values}) + "\n"
        self.stores.files[name] = self.stores.files.get(name, "") + line


@dataclass
class Bench:
    """A prepared project, and a study that outlives the process."""

    world: World
    trainer: SettingsTrainer
    studies: MemoryStudies = field(default_factory=MemoryStudies)

    @property
    def folder(self):
        return self.world.stores(self.world.config.artifacts / "sweeps" / "first")

    def trial(self, number: int):
        return self.world.stores(self.folder.folder / f"trials/{number:03d}")

    def configure(self, overrides) -> ProjectConfig:
        document = self.world.config.model_dump(mode="json")
        for text in overrides:
            key, _, value = text.partition("=")
            *parents, last = key.split(".")
            here = document
            for part in parents:
                here = here[part]
            try:
                here[last] = json.loads(value)
            except ValueError:
                here[last] = value
        try:
            return ProjectConfig.model_validate(document)
        except ValidationError as error:
            raise InvalidInput(str(error)) from error

    def sweep(self, space=RANKS, *, resume=False, trials=3, labels=None, **more):
        world = self.world
        train = Train(
            self.trainer,
            world.stores,
            lambda folder: StoreLog(world.stores, folder),
            world.progress,
            FakeClock(),
        )
        case = Sweep(train, self.studies, world.stores, world.progress)
        return case(SweepRequest(self.configure, space, trials, **more), labels, resume=resume)

    def saved(self) -> dict[str, Any]:
        return self.folder.read_json("sweep.json")


@pytest.fixture
def bench() -> Bench:
    world = make_world(sizes={"train": 3, "validation": 60, "calibration": 5, "test": 5})
    for name in list(world.stores.files):
        if Path(name).is_relative_to(world.config.run_folder):
            del world.stores.files[name]
    made_for = preparation_facts(world.config)
    world.prepared.seal({"made_for": {**made_for, "labels": world.labels.label_set().fingerprint()}})
    return Bench(world, SettingsTrainer(world.stores))


def raising(*ranks: int, error: BaseException) -> Callable[[TrainingJob], None]:
    """Return what raises in trainings with these ranks."""

    def strike(job: TrainingJob) -> None:
        if job.config.lora.r in ranks:
            raise error

    return strike


def test_every_trial_has_its_folder_and_the_same_rows(bench):
    report = bench.sweep()
    assert [job.config.lora.r for job in bench.trainer.jobs] == [4, 8, 16]
    assert [job.folder for job in bench.trainer.jobs] == [bench.trial(n).folder for n in (1, 2, 3)]
    first = bench.trainer.jobs[0]
    assert all(job.train == first.train and job.validation == first.validation for job in bench.trainer.jobs)
    assert not bench.world.run.exists(".")
    assert report.best.settings == {"lora.r": 8}
    assert bench.saved() == json.loads(json.dumps(report.document()))


def test_alpha_keeps_its_ratio_to_the_rank(bench):
    bench.sweep()
    assert [job.config.lora.alpha for job in bench.trainer.jobs] == [8.0, 16.0, 32.0]
    base = bench.world.config
    assert as_overrides({"lora.r": 3, "lora.alpha": 5.0}, base) == ("lora.r=3", "lora.alpha=5.0")


def test_the_command_trains_the_best_and_its_folder_is_that_run(bench):
    report = bench.sweep(MIXED, trials=5, options=" -c a.yaml")
    command = report.command()
    assert command.startswith("finetune train -c a.yaml -s training.learning_rate=")
    overrides = [word for word in command.split() if "=" in word]
    best = bench.trial(report.best.number)
    best.verify()
    assert best.read_yaml("config.yaml") == bench.configure(overrides).model_dump(mode="json")
    assert command in bench.folder._text("sweep.md")


@pytest.mark.parametrize(("metric", "best"), [("log_loss", 8), ("accuracy", 8), ("brier", 16)])
def test_each_metric_has_its_direction(bench, metric, best):
    bench.trainer.measure = lambda config: {
        "log_loss": log_loss_of(config),
        "accuracy": 1.0 - log_loss_of(config) / 2,
        "brier": 1 / config.lora.r,
    }
    report = bench.sweep(metric=metric)
    assert report.best.settings["lora.r"] == best
    values = [trial.value for trial in report.ranked()]
    assert values == sorted(values, reverse=metric == "accuracy")


def test_the_metric_of_the_checkpoints_is_the_default(bench):
    bench.world = bench.world.with_config(
        training={"early_stopping": {**early_stopping(bench), "metric": "accuracy"}}
    )
    assert bench.sweep().metric == "accuracy"


def early_stopping(bench):
    return bench.world.config.training.early_stopping.model_dump()


def test_of_equal_trials_the_first_is_the_best(bench):
    bench.trainer.measure = lambda config: {"log_loss": 0.5}
    assert bench.sweep().best.number == 1


def test_only_the_best_adapter_is_kept_and_all_logs_are(bench):
    bench.sweep()
    assert [bench.trial(n).exists("adapter") for n in (1, 2, 3)] == [False, True, False]
    for number in (1, 2, 3):
        assert bench.trial(number).exists("training_metrics.json")
        assert bench.trial(number).exists("metrics.jsonl")
        assert not bench.trial(number).exists("checkpoints")


def test_all_adapters_are_kept_on_request(bench):
    bench.sweep(keep_all=True)
    for number in (1, 2, 3):
        bench.trial(number).verify()


def test_a_sweep_is_not_overwritten(bench):
    bench.sweep()
    with pytest.raises(InvalidInput, match="--resume"):
        bench.sweep()
    other = bench.sweep(name="second")
    assert other.folder.name == "second"
    assert len(bench.trainer.jobs) == 6


@pytest.mark.parametrize("where", ["before", "within"])
def test_an_interrupted_sweep_ends_as_one_that_was_not(bench, where):
    whole = Bench(bench.world, SettingsTrainer(bench.world.stores))
    expected = whole.sweep(MIXED, trials=5, name="whole")
    calls = []

    def strike(job):
        calls.append(job)
        if len(calls) in (1, 3, 4):
            raise KeyboardInterrupt

    setattr(bench.trainer, where, strike)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            bench.sweep(MIXED, trials=5, resume=True)
    report = bench.sweep(MIXED, trials=5, resume=True)
    assert report.trials == expected.trials
    assert len(calls) == 5 + 3
    resumed = [job.folder.name for job in bench.trainer.jobs]
    assert [resumed.count(f"{n:03d}") for n in range(1, 6)] == [2, 3, 1, 1, 1]


def test_the_interrupted_training_is_resumed(bench):
    bench.trainer.within = raising(8, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        bench.sweep()
    assert len(bench.saved()["trials"]) == 1
    assert bench.trial(2).exists("checkpoints/job.json")
    bench.trainer.within = lambda job: None
    bench.sweep(resume=True)
    assert all(job.resume for job in bench.trainer.jobs)
    assert not bench.trial(2).exists("checkpoints")


def test_killed_between_the_training_and_its_record_nothing_is_trained_again(bench):
    study = bench.studies(bench.folder.folder / "study", RANKS, "minimize", bench.world.config.training.seed)
    recorded = study.tell

    def killed(*arguments):
        study.tell = recorded
        raise KeyboardInterrupt

    study.tell = killed
    with pytest.raises(KeyboardInterrupt):
        bench.sweep()
    report = bench.sweep(resume=True)
    assert len(bench.trainer.jobs) == 3
    assert len(report.trials) == 3


def test_more_trials_are_added_to_a_sweep_that_ended(bench):
    bench.sweep(MIXED, trials=2)
    report = bench.sweep(MIXED, trials=4, resume=True)
    assert len(report.trials) == len(bench.trainer.jobs) == 4
    assert len(bench.sweep(MIXED, trials=3, resume=True).trials) == 4


def test_no_combination_comes_twice(bench):
    report = bench.sweep(trials=20)
    assert len(report.trials) == 3
    assert any("3 combinations" in line for line in bench.world.progress.said)


CHANGES = {
    "space": {"space": {"lora.r": (4, 8)}},
    "metric": {"metric": "accuracy"},
}


@pytest.mark.parametrize("changed", CHANGES)
def test_another_sweep_cannot_be_resumed(bench, changed):
    bench.sweep(trials=1)
    with pytest.raises(InvalidInput, match=f"another {changed}"):
        bench.sweep(**CHANGES[changed], resume=True)


def test_another_configuration_or_other_rows_cannot_be_resumed(bench):
    bench.sweep(trials=1)
    world = bench.world
    bench.world = world.with_config(training={"epochs": 1.0})
    with pytest.raises(InvalidInput, match="another training"):
        bench.sweep(resume=True)
    bench.world = world.with_config(risk={"level": 0.3})
    bench.sweep(resume=True)
    world.rewrite("train", list(world.prepared.read_rows("train.jsonl"))[1:])
    with pytest.raises(InvalidInput, match="another rows"):
        bench.sweep(resume=True)


def test_costs_matter_where_an_objective_looks_at_them(bench):
    costly = bench.world.labels.model_copy(
        update={"costs": bench.world.labels.costs.model_copy(update={"default": 9.0})}
    )
    bench.sweep(trials=1, labels=bench.world.labels)
    bench.sweep(trials=2, labels=costly, resume=True)
    objectives = {"objective.name": ("cross_entropy", "expected_cost")}
    bench.sweep(objectives, trials=1, labels=bench.world.labels, name="costs")
    with pytest.raises(InvalidInput, match="another costs"):
        bench.sweep(objectives, labels=costly, name="costs", resume=True)


def test_a_training_that_fails_is_recorded_and_the_sweep_goes_on(bench):
    bench.trainer.within = raising(8, error=InvalidInput("not a number", seen=8, remedy="lower it"))
    report = bench.sweep()
    assert [trial.value is None for trial in report.trials] == [False, True, False]
    assert [trial.number for trial in report.ranked()] == [1, 3, 2]
    last = bench.saved()["trials"][-1]
    assert last["failure"] == "not a number (seen: 8)."
    assert last["settings"] == {"lora.r": 8}
    assert not bench.trial(2).exists("checkpoints")
    page = bench.folder._text("sweep.md")
    assert "| 2 | 8 | failed |" in page
    assert "trial 2 failed: not a number" in page


def test_a_metric_that_cannot_be_estimated_is_a_failure(bench):
    bench.trainer.measure = lambda config: {
        "log_loss": 0.5,
        **({"selective_risk": 0.1} if config.lora.r == 4 else {}),
    }
    report = bench.sweep(metric="selective_risk")
    assert [trial.value for trial in report.trials] == [0.1, None, None]
    assert "selective_risk could not be estimated" in report.trials[1].facts["failure"]


def test_where_all_fail_there_is_no_best(bench):
    bench.trainer.within = raising(4, 8, 16, error=InvalidInput("diverged"))
    report = bench.sweep()
    assert (report.best, report.command()) == (None, None)
    assert bench.saved()["best"] is None
    assert "diverged" in bench.folder._text("sweep.md")


def test_values_that_do_not_go_together_fail_by_themselves(bench):
    space = {"training.class_weights": ("none", "balanced"), "training.sampling": ("shuffled", "balanced")}
    report = bench.sweep(space, trials=4)
    assert [trial.value is None for trial in report.trials] == [False, False, False, True]
    assert "balance" in report.trials[3].facts["failure"]


ERRORS = {
    "a package is missing": MissingExtra("hf", "the causal backend"),
    "a file is damaged": IntegrityError("the weights are damaged"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_concerns_all_trials_ends_the_sweep(bench, case):
    bench.trainer.within = raising(8, error=ERRORS[case])
    with pytest.raises(type(ERRORS[case])):
        bench.sweep()
    assert len(bench.trainer.jobs) == 2
    bench.trainer.within = lambda job: None
    assert len(bench.sweep(resume=True).trials) == 3


def test_a_training_that_cannot_begin_ends_the_sweep_and_leaves_nothing_in_the_way(bench):
    bench.trainer.before = raising(4, error=InvalidInput("there is no such model"))
    with pytest.raises(InvalidInput, match="no such model"):
        bench.sweep()
    assert len(bench.trainer.jobs) == 1
    bench.trainer.before = lambda job: None
    assert len(bench.sweep({"lora.r": (2, 4)}).trials) == 2


def test_a_resumed_training_that_cannot_begin_is_no_failure_of_its_settings(bench):
    bench.trainer.within = raising(8, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        bench.sweep()
    bench.trainer.before = raising(8, error=InvalidInput("there is no such model"))
    with pytest.raises(InvalidInput, match="no such model"):
        bench.sweep(resume=True)
    assert len(bench.saved()["trials"]) == 1


def test_missing_or_other_data_end_it_before_the_first_training(bench):
    other = Bench(bench.world.with_config(prompt={"list_labels": False}), bench.trainer)
    with pytest.raises(IntegrityError, match="prompt"):
        other.sweep()
    edited = bench.world.labels.model_copy(update={"task": "Sort other mail"})
    with pytest.raises(IntegrityError, match="labels"):
        bench.sweep(labels=edited)
    bench.world.stores.files.clear()
    with pytest.raises(InvalidInput, match="no prepared data"):
        bench.sweep()
    assert bench.trainer.jobs == []


def test_calibration_and_test_rows_are_not_read(bench):
    read = []
    store = type(bench.world.prepared)
    original = store.read_rows

    def watched(self, name):
        read.append(name)
        return original(self, name)

    store.read_rows = watched
    try:
        bench.sweep()
    finally:
        store.read_rows = original
    assert set(read) == {"train.jsonl", "validation.jsonl"}


def test_validation_rows_are_those_that_are_measured(bench):
    assert bench.sweep(trials=1).validation_rows == 60
    capped = Bench(bench.world.with_config(training={"max_validation_rows": 50}), bench.trainer)
    assert capped.sweep(trials=1, name="capped").validation_rows == 50


def test_without_a_space_the_learning_rate_is_searched(bench):
    report = bench.sweep({}, trials=2)
    assert report.space == {"training.learning_rate": LogRange(4e-05, 1e-3)}


REFUSED = {
    "an unknown key": ({"lora.rank": (4, 8)}, "rank"),
    "an unknown objective": ({"objective.name": ("focal", "hinge")}, "hinge"),
    "a value out of range": ({"lora.r": (0, 8)}, "greater than or equal"),
    "one value": ({"lora.r": (8,)}, "two different values"),
    "a value twice": ({"lora.r": (8, 8, 4)}, "two different values"),
    "a range from 0": ({"training.learning_rate": LogRange(0.0, 1.0)}, "above 0"),
    "a range the wrong way round": ({"training.learning_rate": LogRange(1e-3, 1e-4)}, "larger one"),
    "other data": ({"data.seed": (1, 2)}, "same rows"),
    "another folder": ({"name": ("a", "b")}, "same rows"),
    "rows encoded anew": ({"training.max_length": (128, 256)}, "prepared anew"),
    "a seed": ({"training.seed": (1, 2)}, "luckiest"),
    "what comes after training": ({"risk.level": (0.1, 0.2)}, "no effect"),
    "what another backend reads": ({"encoder.pooling": ("mean", "cls")}, "no effect"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_searched_is_refused_before_the_first_training(bench, case):
    space, why = REFUSED[case]
    with pytest.raises(InvalidInput, match=why):
        bench.sweep(space)
    assert bench.trainer.jobs == []
    assert not bench.folder.exists(".")


@pytest.mark.parametrize(
    ("backend", "space", "why"),
    [
        ("baseline", {}, "learning_rate: this key has no effect"),
        ("baseline", RANKS, "lora.r: this key has no effect"),
        ("baseline", {"objective.name": ("focal", "cross_entropy")}, "no effect"),
        ("remote", RANKS, "not trained here"),
    ],
)
def test_backends_without_these_keys_are_refused_with_the_reason(bench, backend, space, why):
    bench.world.config = bench.world.config.model_copy(update={"backend": backend})
    with pytest.raises(InvalidInput, match=why):
        bench.sweep(space)


def test_the_baseline_has_keys_of_its_own(bench):
    bench.world.config = bench.world.config.model_copy(update={"backend": "baseline"})
    report = bench.sweep({"baseline.longest_ngram": (3, 4), "training.class_weights": ("none", "balanced")})
    assert len(report.trials) == 3


def test_objectives_are_searched_by_name_and_not_under_another_switch(bench):
    objectives = {"objective.name": ("cross_entropy", "focal", "abstention")}
    bench.sweep(objectives)
    assert [job.config.chosen_objective.name for job in bench.trainer.jobs] == [*objectives["objective.name"]]
    switched = Bench(bench.world.with_config(abstention_loss={"enabled": True}), bench.trainer)
    with pytest.raises(InvalidInput, match="abstention"):
        switched.sweep({"objective.name": ("cross_entropy", "abstention")}, name="switched")


@pytest.mark.parametrize(("metric", "why"), [("f1", "choose one of log_loss"), ("coverage", "choose one")])
def test_unknown_metrics_are_refused(bench, metric, why):
    with pytest.raises(InvalidInput, match=why):
        bench.sweep(metric=metric)


def test_a_metric_that_is_not_measured_is_refused(bench):
    silent = Bench(bench.world.with_config(training={"json_samples": 0}), bench.trainer)
    with pytest.raises(InvalidInput, match="json_samples"):
        silent.sweep(metric="json_validity")


@pytest.mark.parametrize("name", ["../elsewhere", "", "a/b"])
def test_a_name_is_no_path(bench, name):
    with pytest.raises(InvalidInput, match="name"):
        bench.sweep(name=name)
