"""The objective that a configuration comes to, and what cannot be asked for."""

from __future__ import annotations

import inspect
from typing import get_args

import pytest
from pydantic import ValidationError

from finetune.application.config import ProjectConfig
from finetune.application.objective_settings import (
    AbstentionLoss,
    ConformalTraining,
    ObjectiveConfig,
    ObjectiveName,
)
from finetune.domain import objectives


def config(backend: str = "causal", **sections):
    return ProjectConfig.model_validate(
        {"model_id": "m", "backend": backend, "data": {"files": ["a.csv"]}, **sections}
    )


@pytest.mark.parametrize(
    ("objective", "causal", "encoder"),
    [
        ({}, None, 1.0),
        ({"label_smoothing": 0.1}, 0.5, 1.0),
        ({"name": "focal"}, 0.5, 1.0),
        ({"name": "abstention"}, 0.5, 1.0),
        ({"name": "expected_cost"}, 0.5, 0.5),
        ({"name": "conformal"}, 0.5, 0.5),
        ({"weight": 0.3}, 0.3, 0.3),
        ({"weight": 0.0}, 0.0, 0.0),
        ({"name": "conformal", "weight": 0.9}, 0.9, 0.9),
    ],
)
def test_the_share_of_an_objective(objective, causal, encoder):
    for backend, weight in (("causal", causal), ("encoder", encoder), ("someone_elses", encoder)):
        chosen = config(backend, objective=objective).chosen_objective
        assert chosen == (objective.get("name", "cross_entropy"), weight)


def test_the_usual_cross_entropy_of_a_language_model_runs_few_labels_and_not_many():
    usual = config().chosen_objective
    assert [usual.share(labels) for labels in (2, 10, 11, 150)] == [0.5, 0.5, 0.0, 0.0]
    assert config(objective={"name": "focal"}).chosen_objective.share(150) == 0.5
    assert config(objective={"weight": 0.0}).chosen_objective.share(2) == 0.0
    assert config(objective={"weight": 0.3}).chosen_objective.share(150) == 0.3


@pytest.mark.parametrize(
    "sections",
    [
        {"objective": {"name": "focal", "weight": 0.0}},
        {"objective": {"label_smoothing": 0.1, "weight": 0.0}},
        {"objective": {"weight": 0.0}, "abstention_loss": {"enabled": True}},
    ],
)
def test_an_objective_without_a_share_is_refused(sections):
    with pytest.raises(ValidationError, match="weight 0 leaves the objective out"):
        config(**sections)


def test_an_encoder_may_be_trained_on_nothing_else():
    assert (
        config("encoder", objective={"name": "expected_cost", "weight": 1.0}).chosen_objective.weight == 1.0
    )


@pytest.mark.parametrize("objective", [{}, {"name": "abstention"}])
def test_the_section_of_the_abstention_loss_names_it_too(objective):
    enabled = config(abstention_loss={"enabled": True}, objective=objective)
    assert enabled.chosen_objective == ("abstention", 0.5)
    assert config(abstention_loss={"confidence_threshold": 0.9}).chosen_objective.name == "cross_entropy"


@pytest.mark.parametrize("name", ["focal", "expected_cost", "conformal"])
def test_two_objectives_are_refused(name):
    with pytest.raises(ValidationError, match=f"asks for {name} and abstention_loss.enabled for abstention"):
        config(abstention_loss={"enabled": True}, objective={"name": name})


@pytest.mark.parametrize(
    "sections",
    [
        {"objective": {"name": "focal", "label_smoothing": 0.1}},
        {"objective": {"label_smoothing": 0.1}, "abstention_loss": {"enabled": True}},
    ],
)
def test_smoothing_belongs_to_cross_entropy(sections):
    with pytest.raises(ValidationError, match="label_smoothing is an option of the objective cross_entropy"):
        config(**sections)


def test_a_causal_model_must_learn_to_write_its_answer():
    with pytest.raises(ValidationError, match="less than 1 with the causal backend"):
        config(objective={"name": "focal", "weight": 1.0})


def test_what_is_below_the_threshold_must_pull():
    free = {"abstention_penalty": 0.0}
    assert config(abstention_loss=free).chosen_objective.name == "cross_entropy"
    with pytest.raises(ValidationError, match="abstention_penalty must be greater than 0"):
        config(abstention_loss={**free, "enabled": True})


@pytest.mark.parametrize("backend", ["baseline", "remote"])
@pytest.mark.parametrize(
    "sections",
    [
        {"objective": {"name": "focal"}},
        {"objective": {"label_smoothing": 0.1}},
        {"objective": {"weight": 0.3}},
        {"abstention_loss": {"enabled": True}},
    ],
)
def test_backends_without_training_steps_have_no_objective(backend, sections):
    assert config(backend).chosen_objective.weight == 0.0
    with pytest.raises(ValidationError, match=f"the {backend} backend has no objective to choose"):
        config(backend, **sections)


@pytest.mark.parametrize(
    "objective",
    [
        {"name": "hinge"},
        {"weight": -0.1},
        {"weight": 1.1},
        {"label_smoothing": 1.0},
        {"gamma": -1.0},
        {"conformal": {"alpha": 0.0}},
        {"conformal": {"temperature": 0.0}},
        {"conformal": {"size_weight": -1.0}},
        {"alpha": 0.1},
    ],
)
def test_values_out_of_their_range_are_refused(objective):
    with pytest.raises(ValidationError):
        config(objective=objective)


def test_options_and_defaults_are_those_of_the_domain():
    def options(losses):
        found = inspect.signature(losses).parameters.values()
        return {option.name: option.default for option in found if option.kind is option.KEYWORD_ONLY}

    settings = ObjectiveConfig()
    assert options(objectives.cross_entropy_loss) == {"label_smoothing": settings.label_smoothing}
    assert options(objectives.focal_loss) == {"gamma": settings.gamma}
    assert options(objectives.conformal_training_loss) == ConformalTraining().model_dump()
    known = options(objectives.abstention_loss)
    assert known.pop("gate") is None
    assert known == AbstentionLoss().model_dump(exclude={"enabled"})
    assert len(get_args(ObjectiveName)) == 5
