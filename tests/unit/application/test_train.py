"""Train: what it asks of the trainer, what it leaves behind, and what it refuses to lose."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.fakes import FakeClock, MemoryLog, MemoryStores
from tests.unit.application.world import World, make_world

from finetune.application.labels_file import Costs, LabelsFile
from finetune.application.ports import TrainingJob, TrainingOutcome
from finetune.application.prepared import preparation_facts
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
    facts = preparation_facts(made.config) | {"labels": made.labels.label_set().fingerprint()}
    made.prepared.seal({"made_for": facts})
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


def test_where_else_measures_are_sent_may_change_at_any_time(world):
    with pytest.raises(KeyboardInterrupt):
        train_with(world, FakeTrainer(world.stores, interrupted=True))(world.config)
    watched = world.with_config(training={"report_to": ["tensorboard"]})
    trainer = FakeTrainer(watched.stores)
    train_with(watched, trainer)(watched.config, resume=True)
    assert trainer.jobs[0].config.training.report_to == ("tensorboard",)
    train_with(world, trainer)(world.config, resume=True)
    assert len(trainer.jobs) == 1, "this very training has ended"


def test_the_level_of_prediction_sets_counts_where_their_size_chooses_the_checkpoint(world):
    stopping = {"early_stopping": {"metric": "mean_set_size"}}
    by_size = world.with_config(training=stopping)
    with pytest.raises(KeyboardInterrupt):
        train_with(by_size, FakeTrainer(by_size.stores, interrupted=True))(by_size.config)
    other = world.with_config(training=stopping, conformal={"alpha": 0.2})
    with pytest.raises(InvalidInput, match="configured differently: conformal"):
        train_with(other, FakeTrainer(other.stores))(other.config, resume=True)
    method = world.with_config(training=stopping, conformal={"method": "aps"})
    train_with(method, FakeTrainer(method.stores))(method.config, resume=True)


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


NEW_KEYS = ("token_tree", "tree_tokens", "class_weights", "sampling", "report_to")


def of_an_earlier_version(config):
    # Where an interrupted training is recorded, some of them are left out today, too.
    training = {key: value for key, value in config["training"].items() if key not in NEW_KEYS}
    stopping = training["early_stopping"]
    training["early_stopping"] = {key: value for key, value in stopping.items() if key != "metric"}
    return {key: value for key, value in config.items() if key != "objective"} | {"training": training}


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


def with_expected_cost(world: World, **labels) -> World:
    changed = world.with_config(objective={"name": "expected_cost"})
    changed.labels = world.labels.model_copy(update=labels)
    return changed


def test_only_an_objective_that_looks_at_costs_gets_them(world):
    trainer = FakeTrainer(world.stores)
    train_with(world, trainer)(world.config)
    assert trainer.jobs[0].costs is None
    costly = with_expected_cost(world)
    train_with(costly, trainer)(costly.config, costly.labels)
    # billing, card, card_lost, abstain: abstaining costs 0.3, billing for card 2, all else 1.
    assert trainer.jobs[1].costs.tolist() == [
        [0.0, 2.0, 1.0, 0.3],
        [1.0, 0.0, 1.0, 0.3],
        [1.0, 1.0, 0.0, 0.3],
        [1.0, 1.0, 1.0, 0.0],
    ]


def test_where_handing_over_is_no_outcome_its_cost_has_no_column():
    made = with_expected_cost(make_world(abstention=False))
    trainer = FakeTrainer(made.stores)
    train_with(made, trainer)(made.config)
    assert trainer.jobs[0].costs.tolist() == [[0.0, 2.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]


def test_the_costs_of_now_count_and_are_kept_with_the_run(world):
    now = with_expected_cost(world, costs=Costs(default=3.0, abstain=1.0))
    trainer = FakeTrainer(now.stores)
    train_with(now, trainer)(now.config, now.labels)
    assert trainer.jobs[0].costs[0].tolist() == [0.0, 3.0, 3.0, 1.0]
    assert LabelsFile.model_validate(now.run.read_yaml("labels.yaml")).costs == now.labels.costs


def test_a_training_that_minimises_costs_cannot_go_on_with_others(world):
    costly = with_expected_cost(world)
    with pytest.raises(KeyboardInterrupt):
        train_with(costly, FakeTrainer(costly.stores, interrupted=True))(costly.config, costly.labels)
    other = with_expected_cost(world, costs=Costs(default=3.0))
    with pytest.raises(InvalidInput, match="the costs have changed since"):
        train_with(other, FakeTrainer(other.stores))(other.config, other.labels, resume=True)
    train_with(costly, FakeTrainer(costly.stores))(costly.config, costly.labels, resume=True)
    trainer = FakeTrainer(other.stores)
    train_with(other, trainer)(other.config, other.labels, resume=True)
    assert len(trainer.jobs) == 1, "with other costs this very training has not ended"


def test_costs_may_change_where_nothing_minimises_them(world):
    with pytest.raises(KeyboardInterrupt):
        train_with(world, FakeTrainer(world.stores, interrupted=True))(world.config, world.labels)
    other = world.labels.model_copy(update={"costs": Costs(default=3.0)})
    trainer = FakeTrainer(world.stores)
    train_with(world, trainer)(world.config, other, resume=True)
    assert trainer.jobs[0].resume


def test_another_objective_cannot_be_resumed(world):
    with pytest.raises(KeyboardInterrupt):
        train_with(world, FakeTrainer(world.stores, interrupted=True))(world.config)
    other = world.with_config(objective={"name": "focal"})
    with pytest.raises(InvalidInput, match="configured differently: objective"):
        train_with(other, FakeTrainer(other.stores))(other.config, resume=True)
