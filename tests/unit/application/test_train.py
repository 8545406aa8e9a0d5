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
    main_process: bool = True
    jobs: list[TrainingJob] = field(default_factory=list)

    def train(self, job, log, progress) -> TrainingOutcome:
        self.jobs.append(job)
        run = self.stores(job.folder)
        run.write_json("checkpoints/config.json", job.config.model_dump(mode="json"))
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


def test_resuming_a_finished_run_does_nothing(world):
    first = train_with(world, FakeTrainer(world.stores))(world.config)
    trainer = FakeTrainer(world.stores)
    assert train_with(world, trainer)(world.config, resume=True) == first
    assert trainer.jobs == []


def test_training_again_takes_the_certificate_of_the_old_adapter_away(world):
    again = world.with_config(risk={"on_infeasible": "abstain"})
    train_with(again, FakeTrainer(again.stores))(again.config)
    again.calibrate()
    assert again.run.exists("calibration.json")
    train_with(again, FakeTrainer(again.stores))(again.config)
    assert not again.run.exists("calibration.json")
    assert not again.run.exists("scores_calibration.jsonl")


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
