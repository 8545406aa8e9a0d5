"""ProjectConfig and LabelsFile: strict, frozen, and the same after a round trip."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from finetune.application.config import MISSPELT_MODELS, ProjectConfig, SplitFractions, is_hub_id
from finetune.application.labels_file import LabelsFile
from finetune.domain.errors import InvalidInput

MINIMAL = {"model_id": "m", "data": {"files": ["a.csv"]}}


def test_defaults_are_those_of_the_notes_that_users_bring():
    config = ProjectConfig.model_validate(MINIMAL)
    assert (config.lora.r, config.lora.alpha, config.lora.dropout) == (16, 32.0, 0.1)
    training = config.training
    assert (training.learning_rate, training.per_device_batch_size, training.epochs) == (2e-4, 4, 3.0)
    assert (training.max_length, training.warmup) == (2048, 0.03)
    loss, monitoring = config.abstention_loss, config.calibration_monitoring
    assert (loss.confidence_threshold, loss.abstention_penalty, loss.uncertainty_weight) == (0.7, 0.3, 0.1)
    assert (monitoring.adjustment_threshold, monitoring.lr_reduction_factor) == (0.05, 0.8)
    assert not loss.enabled
    assert not monitoring.enabled


def test_configuration_cannot_be_changed_and_knows_its_keys():
    config = ProjectConfig.model_validate(MINIMAL)
    with pytest.raises(ValidationError, match="frozen"):
        config.lora.r = 3
    with pytest.raises(ValidationError, match="extra_forbidden"):
        ProjectConfig.model_validate({**MINIMAL, "lorra": {}})


@pytest.mark.parametrize("prune", [-1e-9, 0.02, float("nan"), "much"])
def test_little_can_be_left_out(prune):
    assert ProjectConfig.model_validate(MINIMAL).prediction.prune == 1e-6
    assert ProjectConfig.model_validate({**MINIMAL, "prediction": {"prune": 0}}).prediction.prune == 0.0
    with pytest.raises(ValidationError, match="prune"):
        ProjectConfig.model_validate({**MINIMAL, "prediction": {"prune": prune}})


def test_measures_choose_the_checkpoint_and_can_be_sent_elsewhere():
    training = ProjectConfig.model_validate(MINIMAL).training
    assert (training.early_stopping.metric, training.report_to) == ("log_loss", ())
    changed = {
        "early_stopping": {"metric": "ece"},
        "report_to": ["tensorboard", "wandb", "mlflow", "trackio"],
    }
    training = ProjectConfig.model_validate({**MINIMAL, "training": changed}).training
    assert training.early_stopping.metric == "ece"
    assert len(training.report_to) == 4
    watched = ProjectConfig.model_validate({**MINIMAL, "calibration_monitoring": {"enabled": True}})
    assert watched.calibration_monitoring.enabled


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "x" * 101, "a b"])
def test_run_names_are_folder_names(name):
    with pytest.raises(ValidationError, match="pattern"):
        ProjectConfig.model_validate({**MINIMAL, "name": name})


def test_folders_of_a_run():
    config = ProjectConfig.model_validate({**MINIMAL, "name": "x", "artifacts": "out"})
    assert (config.prepared_folder.as_posix(), config.run_folder.as_posix()) == ("out/data/x", "out/runs/x")


@pytest.mark.parametrize("name", sorted(MISSPELT_MODELS))
def test_old_model_names_are_answered_with_the_right_ones(name):
    right = MISSPELT_MODELS[name]
    with pytest.raises(ValidationError, match=right[0]):
        ProjectConfig.model_validate({**MINIMAL, "model_id": name})
    assert all(is_hub_id(model_id) for model_id in right)
    for model_id in right:
        ProjectConfig.model_validate({**MINIMAL, "model_id": model_id})


@pytest.mark.parametrize("section", [{"data": {"files": ["a.csv"], "seed": -1}}, {"training": {"seed": -1}}])
def test_seeds_are_not_negative(section):
    with pytest.raises(ValidationError, match="greater_than_equal"):
        ProjectConfig.model_validate({**MINIMAL, **section})


def test_token_trees_are_chosen_forced_or_off():
    def training(**keys):
        return ProjectConfig.model_validate({**MINIMAL, "training": keys}).training

    assert (training().token_tree, training().tree_tokens) == ("auto", "auto")
    # What YAML reads from `off`.
    assert training(token_tree=False).token_tree is False
    assert training(token_tree=True, tree_tokens=4096).tree_tokens == 4096
    for wrong in ({"token_tree": "always"}, {"tree_tokens": 0}, {"tree_tokens": "many"}):
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            training(**wrong)


def test_shares_sum_to_one():
    with pytest.raises(ValidationError, match="sum to 1"):
        SplitFractions(train=0.5, validation=0.1, calibration=0.1, test=0.1)
    assert SplitFractions(train=0.0, validation=0.1, calibration=0.45, test=0.45).train == 0.0


def test_fingerprint_depends_on_the_named_sections_only():
    one = ProjectConfig.model_validate(MINIMAL)
    other = ProjectConfig.model_validate({**MINIMAL, "lora": {"r": 8}})
    assert one.fingerprint("data", "prompt") == other.fingerprint("data", "prompt")
    assert one.fingerprint("lora") != other.fingerprint("lora")
    assert one.fingerprint() != other.fingerprint()


@given(st.sampled_from(["lac", "aps"]), st.floats(0.01, 0.99), st.integers(1, 512))
def test_plain_data_read_back_as_the_same_configuration(method, alpha, r):
    config = ProjectConfig.model_validate(
        {**MINIMAL, "conformal": {"method": method, "alpha": alpha}, "lora": {"r": r}}
    )
    again = ProjectConfig.model_validate(config.model_dump(mode="json"))
    assert again == config
    assert again.fingerprint() == config.fingerprint()


LABELS = {"task": "t", "labels": [{"name": "a", "aliases": [911]}, {"name": "b"}]}


def test_labels_file_becomes_a_label_set():
    labels = LabelsFile.model_validate({**LABELS, "abstain": {"aliases": ["oos"]}})
    label_set = labels.label_set()
    assert label_set.outcomes == ("a", "b", "abstain")
    assert (label_set.resolve("911"), label_set.resolve("OOS")) == ("a", "abstain")
    assert LabelsFile.model_validate(labels.document()) == labels


def test_labels_without_abstention_forget_what_it_costs_to_be_one():
    costs = {"pairs": {"abstain": {"a": 2.0}, "a": {"abstain": 0.2}}}
    labels = LabelsFile.model_validate({**LABELS, "abstain": {}, "costs": costs}).without_abstention()
    assert labels.label_set().outcomes == ("a", "b")
    assert labels.costs.pairs == {"a": {"abstain": 0.2}}


@pytest.mark.parametrize("names", [["a"], ["a", "A"], ["a", "abstain"], ["a", " b"], ["a", ""], ["a", "b\n"]])
def test_names_that_make_no_label_set(names):
    labels = LabelsFile.model_validate({"task": "t", "labels": [{"name": name} for name in names]})
    with pytest.raises(InvalidInput):
        labels.label_set()


@pytest.mark.parametrize(
    ("section", "options"),
    [
        ({}, {}),
        ({"method": "raps"}, {}),
        ({"method": "raps", "penalty": 0.0, "k_reg": 0}, {"penalty": 0.0, "k_reg": 0}),
        ({"method": "saps", "weight": 0.5}, {"weight": 0.5}),
    ],
)
def test_options_of_a_conformal_method(section, options):
    config = ProjectConfig.model_validate({**MINIMAL, "conformal": section})
    assert config.conformal.options == options


@pytest.mark.parametrize(
    "section", [{"k_reg": 1}, {"method": "saps", "penalty": 1.0}, {"method": "raps", "weight": 0.1}]
)
def test_an_option_of_another_method_is_refused(section):
    with pytest.raises(ValidationError, match="is an option of the method"):
        ProjectConfig.model_validate({**MINIMAL, "conformal": section})


def test_methods_and_maps_are_those_of_the_domain():
    from typing import get_args

    from finetune.application.settings import CalibrationConfig, ConformalConfig
    from finetune.domain.calibration.maps import MAPS
    from finetune.domain.conformal.scores import METHODS

    assert get_args(ConformalConfig.model_fields["method"].annotation) == METHODS
    maps = set(get_args(CalibrationConfig.model_fields["map"].annotation))
    assert maps == MAPS.keys() - {"identity"} | {"auto", "none"}
