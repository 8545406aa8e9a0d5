"""Init: a project that works as it is written."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tests.fakes import FakeClock, FakeProgress, FakeSource, MemoryStores, open_word_encoder

from finetune.adapters.data.sources import FileSource
from finetune.adapters.files.settings import load_config, load_labels
from finetune.adapters.files.store import FolderStore
from finetune.application.config import ProjectConfig
from finetune.application.initialise import Init, fill, labels_yaml, read_template
from finetune.application.labels_file import LabelsFile
from finetune.application.prepare import Prepare
from finetune.domain.errors import InvalidInput

FILES = ("configs/labels.yaml", "configs/llm_lora.yaml", ".gitignore", "README.md")


@pytest.fixture
def init():
    return Init(FileSource(), FolderStore)


def test_sample_project_can_be_prepared(init, tmp_path, monkeypatch):
    report = init(tmp_path / "new")
    assert set(report.document()["written"]) == {*FILES, "data/sample.jsonl"}
    monkeypatch.chdir(tmp_path / "new")
    config = load_config(Path("configs/llm_lora.yaml"))
    prepare = Prepare(FileSource(), FolderStore, open_word_encoder, FakeProgress(), FakeClock())
    prepared = prepare(config, load_labels(config.labels))
    assert (prepared.read, len(prepared.rejected), sum(prepared.splits.values())) == (40, 0, 40)
    assert list(prepared.labels) == ["delivery", "refund", "account", "abstain"]
    assert config.artifacts.name in Path(".gitignore").read_text()


def test_readme_names_commands_and_data(init, tmp_path):
    init(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "@" not in text
    assert "data/sample.jsonl" in text
    positions = [
        text.index(f"finetune {name}") for name in ("prepare", "train", "calibrate", "evaluate", "predict")
    ]
    assert positions == sorted(positions)


def keys(document: object, prefix: str = "") -> set[str]:
    if not isinstance(document, dict):
        return {prefix}
    return {key for name, item in document.items() for key in keys(item, f"{prefix}.{name}")}


def test_template_has_every_key_with_its_default():
    text = fill(
        read_template("llm_lora.yaml"),
        {"NAME": "run", "FILES": "  files: [a]", "TEXT": "text", "LABEL": "label"},
    )
    config = ProjectConfig.model_validate(yaml.safe_load(text))
    defaults = ProjectConfig.model_validate({"model_id": "embedded", "data": {"files": ["a"]}})
    assert config == defaults
    assert keys(yaml.safe_load(text)) == keys(defaults.model_dump(mode="json"))
    assert all(line == line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize("existing", FILES)
def test_nothing_is_overwritten(init, tmp_path, existing):
    path = tmp_path / existing
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with pytest.raises(InvalidInput, match=existing):
        init(tmp_path)
    assert path.read_text() == "mine"
    assert [item for item in tmp_path.rglob("*") if item.is_file()] == [path]


def test_labels_are_taken_from_data(init, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("project/data").mkdir(parents=True)
    lines = ["body,kind", *["hello,yes"] * 3, *["bye,no: never"] * 2, "what,OOS", "empty,", "broken"]
    Path("project/data/mine.csv").write_text("\n".join(lines))
    report = init(Path("project"), Path("project/data/mine.csv"), "body", "kind")
    assert report.document()["labels"] == {"yes": 3, "no: never": 2, "OOS": 1}
    assert report.skipped_rows == 2
    labels = load_labels(Path("project/configs/labels.yaml"))
    assert labels.label_set().outcomes == ("no: never", "yes", "abstain")
    assert labels.label_set().resolve("oos") == "abstain"
    config = load_config(Path("project/configs/llm_lora.yaml"))
    assert config.data.files[0].path == Path("data/mine.csv")
    assert (config.data.columns.text, config.data.columns.label) == ("body", "kind")
    assert not Path("project/data/sample.jsonl").exists()


def test_data_outside_the_project_is_named_absolutely(tmp_path):
    data = tmp_path / "elsewhere.csv"
    source = FakeSource({str(data): [{"text": "x", "label": label} for label in "aabb"]})
    stores = MemoryStores()
    Init(source, stores)(tmp_path / "project", data)
    config = yaml.safe_load(stores.files[str(tmp_path / "project/configs/llm_lora.yaml")])
    assert config["data"]["files"] == [str(data)]


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([{"text": "x", "lable": "a"}], "no column 'label'.*perhaps 'lable'"),
        ([{"text": "x", "label": "a"}] * 3, "one label leaves nothing to decide"),
        ([{"text": "x", "label": label} for label in ("a", "A", "b")], "cannot be told apart"),
        ([{"text": "x", "label": f"label {n}"} for n in range(30)], "it holds no labels"),
    ],
)
def test_data_without_usable_labels_write_nothing(tmp_path, rows, match):
    stores = MemoryStores()
    with pytest.raises(InvalidInput, match=match):
        Init(FakeSource({"d.csv": rows}), stores)(tmp_path, Path("d.csv"))
    assert stores.files == {}


@pytest.mark.parametrize(
    "name", ["yes", "no", "null", "a: b", "#x", "- x", '"q"', "{x}", "1", "Überweisung", "一张卡"]
)
def test_every_label_name_survives_yaml(name, tmp_path):
    path = tmp_path / "labels.yaml"
    path.write_text(labels_yaml({name: 1, "other": 2}, "x.csv"), encoding="utf-8")
    assert name in load_labels(path).label_set().names
    assert {entry["name"] for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["labels"]} == {
        name,
        "other",
    }


def test_written_labels_are_a_whole_labels_file():
    document = yaml.safe_load(labels_yaml({"a": 1, "b": 1, "abstain": 1}, "x"))
    labels = LabelsFile.model_validate(document)
    assert labels.label_set().outcomes == ("a", "b", "abstain")
    assert labels.costs == LabelsFile(task="x", labels=()).costs
