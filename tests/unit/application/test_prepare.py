"""Prepare: what goes in is checked, counted and divided; nothing is lost in silence."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes import FakeClock, FakeProgress, FakeSource, MemoryStores, WordEncoder, open_word_encoder

from finetune.adapters.data.sources import FileSource
from finetune.adapters.files.store import FolderStore
from finetune.application.config import ProjectConfig
from finetune.application.labels_file import LabelsFile
from finetune.application.prepare import Prepare, check_prepared, read_prepared
from finetune.application.settings import ConformalConfig, RiskConfig
from finetune.domain.errors import (
    InfeasibleGuarantee,
    InsufficientData,
    IntegrityError,
    InvalidInput,
    LeakageDetected,
)
from finetune.domain.risk import selective_threshold
from finetune.domain.splits import SPLITS, detect_leakage


def sentence(number: int) -> str:
    """Return five words of their own for every number, nothing like those of any other."""
    digits = hashlib.sha256(str(number).encode()).hexdigest()
    return " ".join(digits[start : start + 6] for start in range(0, 30, 6))


def rows(count: int, labels: Sequence[str] = ("a", "b"), start: int = 0) -> list[dict[str, Any]]:
    return [{"text": sentence(start + n), "label": labels[n % len(labels)]} for n in range(count)]


def labels_file(*names: str, abstain: Sequence[str] | None = None, **more: Any) -> LabelsFile:
    document: dict[str, Any] = {
        "task": "t",
        "labels": [{"name": name} for name in names or ("a", "b")],
        **more,
    }
    if abstain is not None:
        document["abstain"] = {"aliases": list(abstain)}
    return LabelsFile.model_validate(document)


def configuration(files: Sequence[Any] = ("in.csv",), **data: Any) -> ProjectConfig:
    return ProjectConfig.model_validate({"model_id": "m", "data": {"files": list(files), **data}})


class World:
    """Everything that Prepare needs, in memory."""

    def __init__(self, content: Sequence[Any] | None = None, **files: Sequence[Any]) -> None:
        named = {f"{name}.csv": value for name, value in files.items()}
        self.source = FakeSource(named if content is None else {"in.csv": content})
        self.stores = MemoryStores()
        self.progress = FakeProgress()
        self.prepare = Prepare(self.source, self.stores, open_word_encoder, self.progress, FakeClock())

    def __call__(self, config: ProjectConfig | None = None, labels: LabelsFile | None = None):
        return self.prepare(config or configuration(), labels or labels_file())

    def store(self, config: ProjectConfig | None = None):
        return self.stores((config or configuration()).prepared_folder)


def test_rows_are_divided_and_written_with_prompt_and_answer():
    world = World([*rows(200), {"text": "extra", "label": "a", "rationale": "why", "age": 40}])
    report = world()
    assert sum(report.splits.values()) == 201
    assert report.splits["train"] == pytest.approx(120, abs=2)
    written = [row for split in SPLITS for row in world.store().read_rows(f"{split}.jsonl")]
    assert {row["text"] for row in written} == {sentence(n) for n in range(200)} | {"extra"}
    [extra] = [row for row in written if row["text"] == "extra"]
    assert extra["metadata"] == {"age": 40}
    assert extra["messages"][-1] == {"role": "user", "content": "extra"}
    assert json.loads(extra["answer"]) == {"decision": "a", "abstain": False, "rationale": "why"}
    assert list(world.store().read_rows("rejects.jsonl")) == []
    assert not any(".partial" in path for path in world.stores.files)


def test_report_is_written_as_it_is_returned():
    world = World(rows(400))
    report = world()
    document = world.store().read_json("report.json")
    assert document == json.loads(json.dumps(report.document()))
    assert document["rows"] == {"read": 400, "rejected": 0, "kept": 400}
    assert document["labels"]["a"]["train"] + document["labels"]["b"]["train"] == document["splits"]["train"]
    assert report.notices == ()


def test_example_marks_exactly_the_tokens_of_the_loss():
    report = World(rows(200))()
    text = report.example.text()
    before, _, inside = text.partition("[[")
    assert inside.endswith("<end>]]")
    assert json.loads(inside.removesuffix("<end>]]"))["decision"] in ("a", "b")
    assert before.strip()
    counted = [token for token, in_loss in report.example.tokens if in_loss]
    assert "".join(counted) == inside.removesuffix("]]")


def test_progress_reaches_the_end_of_every_task():
    world = World(rows(100) + rows(3))
    world()
    assert len(world.progress.tasks) == 4
    assert all(task.done == task.total for task in world.progress.tasks)


def test_the_order_of_rows_does_not_matter():
    forward, backward = World(rows(200)), World(rows(200)[::-1])
    assert forward().splits == backward().splits
    for split in SPLITS:
        names = [{item.id for item in read_prepared(world.store(), split)} for world in (forward, backward)]
        assert names[0] == names[1]


BAD: list[tuple[Any, str]] = [
    ("a broken line", "broken"),
    ({"text": "", "label": "a"}, "empty text"),
    ({"text": " \n", "label": "a"}, "empty text"),
    ({"text": None, "label": "a"}, "empty text"),
    ({"text": "x", "label": None}, "missing label"),
    ({"text": "x", "label": "  "}, "missing label"),
    ({"text": "x"}, "missing label"),
    ({"text": "x", "label": "emergancy"}, "unknown label 'emergancy'; perhaps 'emergency'"),
    ({"text": "x", "label": "abstain"}, "does not describe under `abstain`"),
    ({"text": "x" * 100_000, "label": "a"}, "text of 100,000 characters; data.max_text_chars allows 50,000"),
    ({"text": "x", "label": "a", "split": "dev"}, "unknown split 'dev'"),
]


@pytest.mark.parametrize(("row", "problem"), BAD)
def test_bad_row_is_an_error_with_its_position_and_is_listed(row, problem):
    world = World([*rows(50), row])
    with pytest.raises(InvalidInput, match=r"1 row cannot be used") as caught:
        world(labels=labels_file("a", "b", "emergency"))
    assert "in.csv:51: " in str(caught.value)
    assert problem in str(caught.value)
    [reject] = world.store().read_rows("rejects.jsonl")
    assert reject["position"] == "in.csv:51"
    assert problem in reject["problem"]
    assert len(reject["content"]) <= 50_001
    assert not world.store().exists("manifest.json")


def test_bad_rows_are_skipped_on_request_and_counted():
    world = World(rows(200) + [row for row, _ in BAD])
    report = world(configuration(on_bad_row="skip"), labels_file("a", "b", "emergency"))
    assert (report.read, len(report.rejected), sum(report.splits.values())) == (211, 11, 200)
    assert len(list(world.store().read_rows("rejects.jsonl"))) == 11
    assert report.document()["rejected"][0] == {"position": "in.csv:201", "problem": "broken"}
    assert any("11 rows were left out" in notice for notice in report.notices)


def test_message_lists_ten_bad_rows_and_the_file_all():
    world = World(rows(20) + [{"text": "", "label": "a"}] * 15)
    with pytest.raises(InvalidInput, match="15 rows cannot be used") as caught:
        world()
    assert str(caught.value).count("empty text") == 10
    assert "and 5 more" in str(caught.value)
    assert len(list(world.store().read_rows("rejects.jsonl"))) == 15


def test_missing_label_column_lists_the_columns():
    with pytest.raises(InvalidInput, match=r"no column 'label'.*perhaps you meant 'labels'"):
        World([{"text": "x", "labels": "a"}])()


def test_one_label_is_no_task():
    with pytest.raises(InvalidInput, match="one label leaves nothing to decide"):
        World(rows(50, ["a"]))(labels=labels_file("a"))


def test_prefix_and_unicode_labels_are_kept_apart():
    names = ["card", "card_lost", "Überweisung", "一张卡"]
    report = World(rows(400, names))(labels=labels_file(*names))
    assert {label: sum(counts.values()) for label, counts in report.labels.items()} == dict.fromkeys(
        names, 100
    )


def test_aliases_are_resolved_and_abstention_is_an_outcome():
    world = World(rows(300, ["A", "b", "oos"]))
    report = world(labels=labels_file(abstain=["oos"]))
    assert list(report.labels) == ["a", "b", "abstain"]
    assert sum(report.labels["abstain"].values()) == 100
    assert "abstain" in world.store().read_yaml("labels.yaml")
    assert {item.label for item in read_prepared(world.store(), "train")} == {"a", "b", "abstain"}


def test_abstention_without_examples_is_dropped_with_a_notice():
    world = World(rows(200))
    costs = {"pairs": {"abstain": {"a": 2.0}, "a": {"b": 3.0, "abstain": 0.1}}}
    report = world(labels=labels_file(abstain=[], costs=costs))
    assert list(report.labels) == ["a", "b"]
    assert "no row has this label" in report.notices[0]
    effective = LabelsFile.model_validate(world.store().read_yaml("labels.yaml"))
    assert effective.abstain is None
    assert effective.costs.pairs == {"a": {"b": 3.0, "abstain": 0.1}}


def test_costs_of_unknown_labels_are_found_before_training():
    with pytest.raises(InvalidInput, match=r"pairs\.a\.c"):
        World(rows(200))(labels=labels_file(costs={"pairs": {"a": {"c": 2.0}}}))


def test_files_and_column_pin_splits():
    train, test = rows(40), rows(20, start=100)
    for row in test[:5]:
        row["split"] = "calibration"
    pinned = [{**row, "split": "validation"} for row in rows(10, start=200)]
    world = World(train=train, test=test, more=pinned)
    config = configuration(
        [{"path": "train.csv", "split": "train"}, "test.csv", "more.csv"],
        split={"train": 0.0, "validation": 0.0, "calibration": 0.5, "test": 0.5},
    )
    report = world(config)
    assert report.splits["train"] == 40
    assert report.splits["validation"] == 10
    assert 5 <= report.splits["calibration"] <= 5 + 8


def test_copies_across_splits_are_removed_from_the_less_protected_one():
    train, test = rows(40), rows(20, start=100)
    world = World(
        train=[*train, {**test[0], "text": test[0]["text"].upper() + "!"}],
        test=test,
        rest=rows(40, start=300),
    )
    config = configuration(
        [{"path": "train.csv", "split": "train"}, {"path": "test.csv", "split": "test"}, "rest.csv"]
    )
    report = world(config)
    assert report.exact_duplicates == 1
    kept = {item.text for item in read_prepared(world.store(), "test")}
    assert test[0]["text"] in kept
    [removed] = world.store().read_rows("duplicates.jsonl")
    assert (removed["kind"], removed["position"], removed["kept_position"]) == (
        "removed",
        "train.csv:41",
        "test.csv:1",
    )


def test_near_duplicates_are_removed_and_conflicting_labels_listed():
    near = "please tell me where the parcel with my new shoes is at the moment"
    more = [{"text": near, "label": "a"}, {"text": near + "s", "label": "a"}]
    more += [{"text": "the same words", "label": "a"}, {"text": "The same words!", "label": "b"}]
    world = World(rows(200) + more)
    report = world()
    assert (report.exact_duplicates, report.near_duplicates) == (1, 1)
    [conflict] = report.conflicts
    assert conflict.labels == ("a", "b")
    assert conflict.positions == ("in.csv:203", "in.csv:204")
    kinds = [row["kind"] for row in world.store().read_rows("duplicates.jsonl")]
    assert kinds == ["conflict", "removed", "removed"]
    assert any("1 text has several labels" in notice for notice in report.notices)


def test_repeated_ids_are_an_error_with_both_positions():
    content = rows(50)
    content[3]["id"] = content[7]["id"] = "x"
    with pytest.raises(InvalidInput, match=r"in\.csv:8: id 'x' is also in in\.csv:4"):
        World(content)()


def test_copies_without_ids_get_different_ones():
    content = [{**row, "split": split} for n, split in enumerate(SPLITS) for row in rows(20, start=100 * n)]
    world = World([*content, content[0]])
    report = world()
    ids = [item.id for item in read_prepared(world.store(), "train")]
    assert len(ids) == len(set(ids)) == report.splits["train"] == 21


def test_empty_split_is_too_little_data():
    with pytest.raises(InsufficientData, match="a split has no rows") as caught:
        World(rows(3))()
    assert "'train'" in str(caught.value)
    with pytest.raises(InsufficientData, match="a split has no rows"):
        World([{"text": "", "label": "a"}])(configuration(on_bad_row="skip"))


def test_notices_of_what_is_too_little():
    content = [*rows(60), {"text": "the only one", "label": "rare"}]
    report = World(content)(labels=labels_file("a", "b", "rare", "never"))
    notices = "\n".join(report.notices)
    assert "no row at all for never" in notices
    assert "fewer than 10 training rows for rare" in notices
    assert "row for rare" in notices
    assert "too few calibration rows" in notices
    assert "9 are needed" in notices


def test_many_copies_are_told_with_the_size_of_the_largest_group():
    few = World(rows(400) + rows(1) * 20)()
    assert few.notices == ()
    [notice] = World(rows(400) + rows(1) * 30)().notices
    assert "30 of 430 rows (7.0 %)" in notice
    assert "largest group had 31 rows" in notice


def rows_that_calibration_asks_for() -> int:
    """At level and delta of 0.1, where no answer is wrong."""
    with pytest.raises(InfeasibleGuarantee) as caught:
        selective_threshold(np.full(5, 20.0), np.zeros(5, dtype=bool), 0.1, 0.1)
    assert caught.value.needed is not None
    return caught.value.needed


@pytest.mark.parametrize(
    ("risk", "ending"), [({}, "will stop"), ({"on_infeasible": "abstain"}, "will hand everything over")]
)
def test_a_promise_that_the_calibration_rows_cannot_carry_is_told_before_training(risk, ending):
    needed = rows_that_calibration_asks_for()
    config = configuration(split={"train": 0.0, "validation": 0.0, "calibration": 1.0, "test": 0.0})
    config = config.model_copy(update={"risk": RiskConfig.model_validate(risk)})
    others = [
        {**row, "split": split}
        for n, split in enumerate(("train", "validation", "test"))
        for row in rows(20, start=900 + 50 * n)
    ]
    *_, notice = World(rows(2 * needed - 1) + others)(config).notices
    assert f"half of them, {needed - 1}, set the threshold and {needed} are needed" in notice
    assert notice.endswith(ending)
    assert not any("risk.level" in notice for notice in World(rows(2 * needed) + others)(config).notices)


def test_aps_is_advised_against_with_two_outcomes():
    config = configuration().model_copy(update={"conformal": ConformalConfig(method="aps")})
    [notice] = World(rows(400))(config).notices
    assert "two outcomes" in notice
    assert World(rows(400, "abc"))(config, labels_file("a", "b", "c")).notices == ()


def test_shortened_texts_are_counted_per_split():
    long = [{"text": " ".join([sentence(900)] * 100), "label": "a", "split": "test"}]
    config = configuration().model_copy(
        update={"training": configuration().training.model_copy(update={"max_length": 64})}
    )
    report = World(rows(100) + long)(config)
    assert {split: lengths.shortened for split, lengths in report.tokens.items()} == {
        "train": 0,
        "validation": 0,
        "calibration": 0,
        "test": 1,
    }
    assert report.tokens["test"].max == 64
    assert report.tokens["train"].median <= report.tokens["train"].p95 <= report.tokens["train"].max


def test_leak_that_got_through_is_an_error(monkeypatch):
    monkeypatch.setattr(
        "finetune.application.prepare.assign_splits",
        lambda texts, *_, **__: [SPLITS[n % 4] for n in range(len(texts))],
    )
    content = [{**row, "split": "train"} for row in rows(41)]
    with pytest.raises(LeakageDetected, match="two splits"):
        World([*content, content[0]])()


class Interrupting(WordEncoder):
    def encode(self, example):
        raise KeyboardInterrupt


def test_interruption_leaves_the_previous_data_whole():
    world = World(rows(200))
    world()
    before = dict(world.stores.files)
    stopped = replace(world.prepare, encoders=lambda config, labels, prompt: Interrupting(prompt, 2048))
    with pytest.raises(KeyboardInterrupt):
        stopped(configuration(), labels_file())
    assert world.stores.files == before
    check_prepared(world.store(), configuration(), labels_file())


def test_prepared_rows_read_back_as_examples():
    world = World([{**row, "id": f"r{n}", "group": n % 3} for n, row in enumerate(rows(100))])
    world()
    examples = read_prepared(world.store(), "calibration")
    assert examples
    assert all(item.split == "calibration" for item in examples)
    assert all(item.metadata == {"group": int(item.id[1:]) % 3} for item in examples)
    with pytest.raises(InvalidInput, match="run `finetune prepare` first"):
        read_prepared(world.stores(Path("elsewhere")), "train")
    with pytest.raises(InvalidInput, match="run `finetune prepare` first"):
        check_prepared(world.stores(Path("elsewhere")), configuration())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_id": "other"}, "model_id"),
        ({"tokenizer_id": "other"}, "tokenizer_id"),
        ({"revision": "1"}, "revision"),
        ({"prompt": {"list_labels": False}}, "prompt"),
        ({"training": {"max_length": 99}}, "training.max_length"),
        ({"data": {"files": ["in.csv"], "seed": 1}}, "data"),
    ],
)
def test_prepared_data_of_another_configuration_are_refused(change, named):
    world = World(rows(200))
    world()
    config = ProjectConfig.model_validate({"model_id": "m", "data": {"files": ["in.csv"]}} | change)
    with pytest.raises(IntegrityError, match=f"changed since: {named}") as caught:
        check_prepared(world.store(), config)
    assert "run `finetune prepare` again" in str(caught.value)


def test_what_prepared_data_do_not_depend_on_may_change():
    world = World(rows(200))
    world()
    config = ProjectConfig.model_validate(
        {"model_id": "m", "data": {"files": ["in.csv"]}, "lora": {"r": 2}, "training": {"epochs": 1}}
    )
    check_prepared(world.store(), config, labels_file(costs={"abstain": 0.1}))
    with pytest.raises(IntegrityError, match="changed since: labels"):
        check_prepared(world.store(), config, labels_file("a", "c"))


def test_damaged_prepared_data_are_refused():
    world = World(rows(200))
    world()
    world.store().write_examples("test.jsonl", [{"id": "1"}])
    with pytest.raises(IntegrityError):
        check_prepared(world.store(), configuration())
    with pytest.raises(IntegrityError, match="no prepared row"):
        read_prepared(world.store(), "test")


def test_on_files_with_broken_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [f"{row['text']},{row['label']}" for row in rows(120)]
    Path("in.csv").write_bytes("\n".join(["text,label", *lines, '"open,a', "nul\0,a", ",a", "x,c"]).encode())
    prepare = Prepare(FileSource(), FolderStore, open_word_encoder, FakeProgress(), FakeClock())
    with pytest.raises(InvalidInput, match="4 rows cannot be used") as caught:
        prepare(configuration(), labels_file())
    for number, problem in (
        (122, "broken CSV"),
        (123, "a NUL character"),
        (124, "empty text"),
        (125, "unknown label 'c'"),
    ):
        assert f"in.csv:{number}: {problem}" in str(caught.value)
    report = prepare(configuration(on_bad_row="skip"), labels_file())
    assert sum(report.splits.values()) == 120
    store = FolderStore(configuration().prepared_folder)
    store.verify()
    assert not store.folder.with_name("run.partial").exists()
    assert prepare(configuration(on_bad_row="skip"), labels_file()).splits == report.splits


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.text(min_size=1), st.sampled_from(["a", "b", "z", None])), max_size=60),
)
def test_every_row_is_kept_removed_or_rejected(drawn: list[tuple[str, str | None]]):
    def content() -> Iterator[dict[str, Any]]:
        yield from rows(60)
        for text, label in drawn:
            yield {"text": text, "label": label}

    world = World(list(content()))
    config = configuration(on_bad_row="skip")
    report = world(config)
    kept = [(item.text, split) for split in SPLITS for item in read_prepared(world.store(config), split)]
    assert report.read == 60 + len(drawn)
    assert report.read == len(kept) + report.exact_duplicates + report.near_duplicates + len(report.rejected)
    assert detect_leakage([text for text, _ in kept], [split for _, split in kept]) == []
