"""Reading configurations: every mistake is answered with file, key, value and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from finetune.adapters.files.settings import (
    load_config,
    load_guarantee_config,
    load_labels,
    load_run_config,
)
from finetune.application.config import ProjectConfig
from finetune.domain.errors import InvalidInput

MINIMAL = "model_id: m\ndata: {files: [a.csv]}\n"
LABELS = "task: t\nlabels: [{name: a}, {name: b}]\n"
CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def write(tmp_path):
    def write(content: str | bytes, name: str = "config.yaml") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def message(call, *arguments) -> str:
    with pytest.raises(InvalidInput) as caught:
        call(*arguments)
    text = str(caught.value)
    assert "pydantic" not in text
    assert "validation error" not in text
    return text


def test_values_come_from_file_then_overrides(write):
    path = write(MINIMAL + "lora: {r: 4}\n")
    config = load_config(
        path, ["lora.r=8", "training.learning_rate=1e-4", "lora.r=9", "name=x-1", "data.files.0=b.csv"]
    )
    assert (config.lora.r, config.lora.alpha, config.name) == (9, 32.0, "x-1")
    assert config.training.learning_rate == 1e-4
    assert config.data.files[0].path == Path("b.csv")


def test_override_may_be_any_yaml_and_reach_missing_sections(write):
    config = load_config(
        write(MINIMAL),
        [
            "data.files=[{path: x.csv, split: test}]",
            "target_modules=[q, v]",
            "revision=null",
            "prompt.list_labels=false",
        ],
    )
    assert config.data.files[0].split == "test"
    assert config.target_modules == ("q", "v")
    assert config.revision is None
    assert config.prompt.list_labels is False


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("lora: {r: 0}", ["lora.r", "at least 1", "seen: 0"]),
        ("lora: {rank: 3}", ["lora.rank", "unknown", "known keys are r, alpha, dropout"]),
        ("lora: {alfa: 3}", ["lora.alfa", "unknown", "perhaps you meant 'alpha'"]),
        ("lora: 3", ["lora", "must be a mapping", "seen: 3"]),
        ("lora: {r: many}", ["lora.r", "must be a whole number", "seen: 'many'"]),
        ("training: {bf16: maybe}", ["training.bf16", "must be true or false or 'auto'", "seen: 'maybe'"]),
        ("training: {early_stopping: {patienc: 1}}", ["training.early_stopping.patienc", "'patience'"]),
        ("conformal: {method: lca}", ["conformal.method", "must be 'lac', 'aps'", "seen: 'lca'"]),
        ("conformal: {weight: 0.2}", ["conformal", "weight is an option of the method saps, not of lac"]),
        ("calibration: {map: platypus}", ["calibration.map", "'temperature'", "seen: 'platypus'"]),
        ("version: 2", ["version", "must be 1", "seen: 2"]),
        ("data: {files: []}", ["data.files", "at least 1 entry"]),
        ("data: {files: [{path: a, splt: test}]}", ["data.files.0.splt", "'split'"]),
        ("data: {files: [{split: test}]}", ["data.files.0.path", "missing"]),
        ("data: {files: [a], split: {train: 0.9}}", ["data.split", "sum to 1"]),
        ("objective: {name: hinge}", ["objective.name", "must be 'cross_entropy', 'focal'", "seen: 'hinge'"]),
        ("objective: {conformal: {alpha: 2}}", ["objective.conformal.alpha", "less than 1", "seen: 2"]),
        (
            "{abstention_loss: {enabled: true}, objective: {name: focal}}",
            ["objective.name asks for focal and abstention_loss.enabled for abstention"],
        ),
        ("calibration_monitoring: {lr_reduction_factor: 2}", ["lr_reduction_factor", "at most 1", "seen: 2"]),
        ("training: {report_to: [tensorbord]}", ["training.report_to.0", "'tensorboard', 'wandb'"]),
        (
            "training: {early_stopping: {metric: coverage}}",
            ["training.early_stopping.metric", "'log_loss'", "seen: 'coverage'"],
        ),
        (
            "training: {early_stopping: {metric: json_validity}, json_samples: 0}",
            ["training.early_stopping.metric", "json_validity", "training.json_samples is 0"],
        ),
        (
            "{backend: encoder, training: {early_stopping: {metric: json_validity}}}",
            ["training.early_stopping.metric", "json_validity", "encoder writes no answers"],
        ),
        ("model_id: ZHIPU-AI/glm-4-9b-chat", ["zai-org/glm-4-9b-chat-hf"]),
    ],
)
def test_each_mistake_names_file_key_value_and_remedy(write, content, parts):
    document = yaml.safe_load(MINIMAL) | yaml.safe_load(content)
    path = write(yaml.safe_dump(document))
    text = message(load_config, path)
    for part in [str(path), "What to do", *parts]:
        assert part in text


def test_all_mistakes_are_listed_at_once_and_overrides_are_named(write):
    path = write(MINIMAL + "lora: {r: 0, alfa: 1}\n")
    text = message(load_config, path, ["conformal.alpha=2"])
    assert "3 problems" in text
    assert f"{path}: lora.r" in text
    assert "--set conformal.alpha=2: conformal.alpha: must be less than 1" in text


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("lora.r", "key.key=value"),
        ("=3", "key.key=value"),
        ("lora..r=3", "key.key=value"),
        ("model_id.x=3", "has no keys of its own"),
        ("data.files.4=x", "list of 1 entries"),
        ("data.files.a=x", "list of 1 entries"),
        ("lora.r=[1", "not valid YAML"),
        ("lor.r=1", "perhaps you meant 'lora'"),
    ],
)
def test_broken_overrides_name_themselves(write, override, part):
    text = message(load_config, write(MINIMAL), [override])
    assert part in text
    assert "--set" in text


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (MINIMAL + "name: a\nname: b\n", ["config.yaml:4:1", "'name' stands here twice"]),
        (MINIMAL + "lora: {r: 1, r: 2}\n", ["config.yaml:3", "'r' stands here twice"]),
        ("a: [1\nb: 2", ["config.yaml:2", "not valid YAML"]),
        ("- a\n", ["not a mapping"]),
        ("", ["not a mapping"]),
        (b"a: \xff", ["UTF-8"]),
        ("a: \0", ["not valid YAML"]),
        ("a: !!python/name:os.system x", ["not valid YAML"]),
    ],
)
def test_files_that_are_not_yaml_mappings(write, content, parts):
    text = message(load_config, write(content))
    for part in parts:
        assert part in text


def test_missing_file():
    assert "finetune init" in message(load_config, Path("nowhere.yaml"))


def test_labels_are_text_whatever_yaml_makes_of_them(write):
    path = write(
        "task: t\nlabels:\n- {name: yes, aliases: [911, 0123, 1e3, 12:30, null-and-void]}\n"
        "- {name: no}\n- {name: 2024-01-01}\n"
        "abstain: {aliases: [oos]}\n"
    )
    labels = load_labels(path)
    assert labels.label_set().outcomes == ("yes", "no", "2024-01-01", "abstain")
    assert labels.labels[0].aliases == ("911", "0123", "1e3", "12:30", "null-and-void")
    assert labels.label_set().resolve("911") == "yes"


def test_prefix_labels_and_unicode_are_fine(write):
    path = write(
        "task: t\nlabels: [{name: card}, {name: card_lost}, {name: 'Überweisung'}, {name: 一张卡}]\n"
    )
    assert load_labels(path).label_set().resolve("überweisung") == "Überweisung"


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("task: t\nlabels: [{name: a}]\n", ["one label leaves nothing to decide", "at least two"]),
        ("task: t\nlabels: [{name: a}, {name: A}]\n", ["cannot be told apart"]),
        ("task: t\nlabels: [{name: a}, {name: abstain}]\n", ["reserved outcome"]),
        (
            "task: t\nlabels: [{name: a}, {name: b, description: c, alias: d}]\n",
            ["labels.1.alias", "'aliases'"],
        ),
        ("task: t\n", ["labels", "missing"]),
        (LABELS + "costs: {abstain: -1}\n", ["costs.abstain", "at least 0"]),
        (LABELS + "task: u\n", ["'task' stands here twice"]),
    ],
)
def test_mistakes_in_labels_name_the_file(write, content, parts):
    path = write(content, "labels.yaml")
    text = message(load_labels, path)
    for part in [str(path), *parts]:
        assert part in text


def test_costs_are_numbers(write):
    labels = load_labels(write(LABELS + "costs: {default: 2, abstain: 0.5, pairs: {a: {b: 1e2}}}\n"))
    assert (labels.costs.default, labels.costs.abstain, labels.costs.pairs) == (2.0, 0.5, {"a": {"b": 100.0}})


def test_run_config_lets_only_what_follows_training_change(write, tmp_path):
    write(MINIMAL)
    config = load_run_config(tmp_path, ["conformal.alpha=0.2", "risk.level=0.05", "prediction.batch_size=2"])
    assert (config.conformal.alpha, config.risk.level, config.prediction.batch_size) == (0.2, 0.05, 2)
    for key in ("lora.r=8", "model_id=x", "conformals.alpha=1"):
        assert "belongs to the trained run" in message(load_run_config, tmp_path, [key])
    assert "finetune train" in message(load_run_config, tmp_path / "none")


@pytest.mark.parametrize(
    "path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONFIGS))
)
def test_shipped_files_are_valid(path):
    if path.name == "labels.yaml":
        load_labels(path)
    else:
        config = load_config(path)
        labels = load_labels(CONFIGS.parent / config.labels)
        assert len(labels.label_set().names) >= 2


def test_resolved_configuration_reads_back(write, tmp_path):
    config = load_config(write(MINIMAL), ["target_modules=[q]", "data.near_duplicate_threshold=null"])
    again = load_config(write(yaml.safe_dump(config.model_dump(mode="json")), "again.yaml"))
    assert again == config
    assert isinstance(again, ProjectConfig)


def test_what_is_asked_of_probabilities_needs_no_file(write):
    assert load_guarantee_config().risk.level == 0.1
    config = load_guarantee_config(
        write("conformal: {method: raps, penalty: 0.5}\n"), ["risk.level=0.05", "validation=0.3"]
    )
    assert config.conformal.options == {"penalty": 0.5}
    assert (config.risk.level, config.validation) == (0.05, 0.3)


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["risk.level=2"], ["--set risk.level=2: risk.level", "less than 1", "seen: 2"]),
        (["lora.r=8"], ["--set lora.r=8: lora", "unknown", "known keys are version, seed, validation"]),
        (["conformal.k_reg=1"], ["--set conformal.k_reg=1", "option of the method raps, not of lac"]),
        (["validation=1"], ["validation", "less than 1"]),
    ],
)
def test_mistakes_in_what_is_asked_name_the_option(overrides, parts):
    text = message(load_guarantee_config, None, overrides)
    assert all(part in text for part in parts), text
