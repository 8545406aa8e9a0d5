"""Train: what it asks of the trainer, what it leaves behind, and what it refuses to lose."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.fakes import FakeClock, MemoryLog, MemoryStores
from tests.unit.application.world import World, make_world

from finetune.application.ports import TrainingJob, TrainingOutcome
from finetune.application.train import Train
from finetune.domain.errors import IntegrityError, InvalidInput


@dataclass
class FakeTrainer:
    """Writes an adapter; stops half way where asked to."""

    stores: MemoryStores
    interrupted: bool = False
    fails_early: bool = False
    main_process: bool = True
    jobs: list[TrainingJob] = field(default_factory=list)

    def train(self, job, log, progress) -> TrainingOutcome:
        self.jobs.append(job)
        run = self.stores(job.folder)
        if self.fails_early:
            raise InvalidInput("no linear layer has this name")
        run.write_json("checkpoints/job.json", {"identity": dict(job.identity), "machine": {}})
        if self.interrupted:
            raise KeyboardInterrupt
        run.write_text("adapter/adapter_model.safetensors", f"weights {len(self.jobs)}")
        return TrainingOutcome(
            steps=10,
            epochs=1.0,
            best_step=10,
            best={"log_loss": 0.5},
            first={"log_loss": 1.5},
            stopped_early=False,
            trainable_parameters=1,
            total_parameters=2,
            adapted_modules={"q_proj": 1},
            precision="fp32",
            shortened_texts=0,
            seconds=1.0,
            versions={"torch": "2"},
            main_process=self.main_process,
        )


@pytest.fixture
def world() -> World:
    made = make_world()
    for name in list(made.stores.files):
        if Path(name).is_relative_to(made.config.run_folder):
            del made.stores.files[name]
    return made


def train_with(world: World, trainer: FakeTrainer) -> Train:
    return Train(trainer, world.stores, lambda folder: MemoryLog(), world.progress, FakeClock())


def test_the_trainer_gets_training_and_validation_rows_and_no_others(world):
    trainer = FakeTrainer(world.stores)
    train_with(world, trainer)(world.config)
    job = trainer.jobs[0]
    ids = {row["id"] for row in world.prepared.read_rows("train.jsonl")}
    assert {row.id for row in job.train} == ids
    assert len(job.validation) == 400
    assert job.labels.outcomes == world.labels.label_set().outcomes


def test_validation_rows_can_be_capped(world):
    capped = world.with_config(training={"max_validation_rows": 7})
    trainer = FakeTrainer(capped.stores)
    train_with(capped, trainer)(capped.config)
    assert len(trainer.jobs[0].validation) == 7


def test_capped_validation_rows_are_no_first_rows_of_sorted_data(world):
    rows = sorted(world.prepared.read_rows("validation.jsonl"), key=lambda row: row["label"])
    world.rewrite("validation", rows)
    capped = world.with_config(training={"max_validation_rows": 60})
    trainer = FakeTrainer(capped.stores)
    train_with(capped, trainer)(capped.config)
    chosen = trainer.jobs[0].validation
    assert {row.label for row in chosen} == set(world.labels.label_set().outcomes)
    places = [[row["id"] for row in rows].index(row.id) for row in chosen]
    assert places == sorted(places)
    assert len(set(places)) == 60


def test_a_finished_run_is_sealed_and_its_checkpoints_are_gone(world):
    report = train_with(world, FakeTrainer(world.stores))(world.config)
    run = world.run
    run.verify()
    assert not run.exists("checkpoints")
    for name in ("config.yaml", "labels.yaml", "training_metrics.json", "README.md", "manifest.json"):
        assert run.exists(name)
    assert run.read_json("training_metrics.json") == report.document()
    assert world.with_config(risk={"on_infeasible": "abstain"}).calibrate().conformal.n > 0


def test_an_interrupted_run_is_not_overwritten(world):
    with pytest.raises(KeyboardInterrupt):
        train_with(world, FakeTrainer(world.stores, interrupted=True))(world.config)
    with pytest.raises(InvalidInput, match="--resume"):
        train_with(world, FakeTrainer(world.stores))(world.config)
    trainer = FakeTrainer(world.stores)
    train_with(world, trainer)(world.config, resume=True)
    assert trainer.jobs[0].resume


def test_an_interrupted_retraining_leaves_the_finished_run_whole(world):
    train_with(world, FakeTrainer(world.stores))(world.config)
    before = world.run.sha256("adapter")
    with pytest.raises(KeyboardInterrupt):
        train_with(world, FakeTrainer(world.stores, interrupted=True))(world.config)
    assert world.run.sha256("adapter") == before
    world.run.verify()


def test_another_configuration_cannot_be_resumed(world):
    with pytest.raises(KeyboardInterrupt):
        train_with(world, FakeTrainer(world.stores, interrupted=True))(world.config)
    other = world.with_config(lora={"r": 4})
    with pytest.raises(InvalidInput, match="configured differently: lora"):
        train_with(other, FakeTrainer(other.stores))(other.config, resume=True)
    later = world.with_config(risk={"level": 0.2})
    train_with(later, FakeTrainer(later.stores))(later.config, resume=True)


def test_what_fails_before_the_first_checkpoint_stands_in_no_ones_way(world):
    with pytest.raises(InvalidInput, match="linear layer"):
        train_with(world, FakeTrainer(world.stores, fails_early=True))(world.config)
    other = world.with_config(lora={"r": 4})
    train_with(other, FakeTrainer(other.stores))(other.config)


def test_a_training_cannot_go_on_with_other_rows(world):
    with pytest.raises(KeyboardInterrupt):
        train_with(world, FakeTrainer(world.stores, interrupted=True))(world.config)
    rows = list(world.prepared.read_rows("train.jsonl"))
    world.rewrite("train", rows[1:])
    with pytest.raises(IntegrityError, match="prepared anew"):
        train_with(world, FakeTrainer(world.stores))(world.config, resume=True)


def test_resuming_where_another_training_has_ended_trains(world):
    train_with(world, FakeTrainer(world.stores))(world.config)
    other = world.with_config(lora={"r": 4})
    trainer = FakeTrainer(other.stores)
    train_with(other, trainer)(other.config, resume=True)
    assert len(trainer.jobs) == 1


def test_resuming_a_finished_run_does_nothing(world):
    first = train_with(world, FakeTrainer(world.stores))(world.config)
    trainer = FakeTrainer(world.stores)
    assert train_with(world, trainer)(world.config, resume=True) == first
    assert trainer.jobs == []


NEW_KEYS = ("token_tree", "tree_tokens")


def of_an_earlier_version(config):
    training = {key: value for key, value in config["training"].items() if key not in NEW_KEYS}
    return {**config, "training": training}


def test_a_finished_run_of_an_earlier_version_is_known_as_one(world):
    train_with(world, FakeTrainer(world.stores))(world.config)
    run = world.run
    run.write_yaml("config.yaml", of_an_earlier_version(run.read_yaml("config.yaml")))
    new = ("path", "path_reason", "tree_tokens", "computed_tokens", "padded_tokens")
    metrics = run.read_json("training_metrics.json")
    run.write_json("training_metrics.json", {k: v for k, v in metrics.items() if k not in new})
    trainer = FakeTrainer(world.stores)
    report = train_with(world, trainer)(world.config, resume=True)
    assert trainer.jobs == []
    assert (report.outcome.path, report.outcome.tree_tokens) == ("padded", None)
    assert world.with_config(risk={"on_infeasible": "abstain"}).calibrate().conformal.n > 0


def test_an_interrupted_run_of_an_earlier_version_goes_on(world):
    with pytest.raises(KeyboardInterrupt):
        train_with(world, FakeTrainer(world.stores, interrupted=True))(world.config)
    begun = world.run.read_json("checkpoints/job.json")
    begun["identity"]["config"] = of_an_earlier_version(begun["identity"]["config"])
    world.run.write_json("checkpoints/job.json", begun)
    other = world.with_config(training={"token_tree": False})
    with pytest.raises(InvalidInput, match="configured differently: training"):
        train_with(other, FakeTrainer(other.stores))(other.config, resume=True)
    trainer = FakeTrainer(world.stores)
    train_with(world, trainer)(world.config, resume=True)
    assert trainer.jobs[0].resume


def test_training_again_takes_the_certificate_of_the_old_adapter_away(world):
    again = world.with_config(risk={"on_infeasible": "abstain"})
    train_with(again, FakeTrainer(again.stores))(again.config)
    again.calibrate()
    again.evaluate()
    assert again.run.exists("scores_test.jsonl")
    train_with(again, FakeTrainer(again.stores))(again.config)
    assert not again.run.exists("calibration.json")
    assert not again.run.exists("scores_calibration.jsonl")
    assert not again.run.exists("evaluation.json")
    assert not again.run.exists("scores_test.jsonl")


def test_only_the_main_process_writes(world):
    train_with(world, FakeTrainer(world.stores, main_process=False))(world.config)
    assert not world.run.exists("manifest.json")


def test_data_prepared_for_another_configuration_are_refused(world):
    other = world.with_config(prompt={"list_labels": False})
    with pytest.raises(IntegrityError, match="prompt"):
        train_with(other, FakeTrainer(other.stores))(other.config)


def test_labels_edited_since_preparation_are_refused(world):
    edited = world.labels.model_copy(update={"task": "Sort other mail"})
    with pytest.raises(IntegrityError, match="labels"):
        train_with(world, FakeTrainer(world.stores))(world.config, edited)
