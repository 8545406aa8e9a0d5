"""Every DecisionSink: interrupted work continues, other work is kept, a finished file is whole."""

from __future__ import annotations

import csv
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes import MemorySinks

from finetune.adapters.data.sinks import CSV_COLUMNS, open_sink
from finetune.domain.decisions import DecisionRecord, ModelReference
from finetune.domain.errors import InvalidInput


def record(number: int, rationale: str | None = 'says "hi",\nthen goes') -> DecisionRecord:
    return DecisionRecord(
        id=str(number),
        decision="a",
        abstain=False,
        abstain_reason="none",
        confidence=0.75,
        probabilities={"a": 0.75, "b": 0.25},
        prediction_set=("a",),
        rationale=rationale,
        model=ModelReference(base="m"),
    )


def ids(path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            return [row["id"] for row in csv.DictReader(file, strict=True)]
        return [DecisionRecord.from_json(line).id for line in file]


@pytest.fixture(params=[".jsonl", ".csv", "memory"])
def opened(request, tmp_path):
    if request.param == "memory":
        sinks = MemorySinks()
        return sinks, tmp_path / "out.jsonl", lambda path: [item.id for item in sinks.finished[path]]
    return open_sink, tmp_path / "sub" / f"out{request.param}", ids


def test_finished_file_holds_all_records_in_order(opened):
    opener, path, written = opened
    sink = opener(path, "key")
    assert (sink.done, sink.notice) == (0, None)
    sink.write([record(1), record(2)])
    sink.write([])
    sink.write([record(3)])
    assert not path.exists()
    sink.finish()
    assert written(path) == ["1", "2", "3"]


def test_same_work_is_continued(opened):
    opener, path, written = opened
    opener(path, "key").write([record(1), record(2)])
    sink = opener(path, "key")
    assert sink.done == 2
    assert sink.notice is not None
    sink.write([record(3)])
    sink.finish()
    assert written(path) == ["1", "2", "3"]
    assert opener(path, "key").done == 0


def test_other_work_is_begun_anew(opened):
    opener, path, written = opened
    opener(path, "key").write([record(1)])
    sink = opener(path, "other")
    assert sink.done == 0
    assert "anew" in sink.notice
    sink.write([record(2)])
    sink.finish()
    assert written(path) == ["2"]


def test_unknown_type_is_refused(opened):
    opener, path, _ = opened
    with pytest.raises(InvalidInput, match="cannot be written"):
        opener(path.with_suffix(".xlsx"), "key")


def test_no_records_of_other_work_are_lost(tmp_path):
    path = tmp_path / "out.jsonl"
    for key in ("one", "two", "three"):
        open_sink(path, key).write([record(1)])
    assert ids(tmp_path / "out.jsonl.partial.old") == ["1"]
    assert (tmp_path / "out.jsonl.partial.old2").exists()


def test_nothing_but_the_output_is_left(tmp_path):
    sink = open_sink(tmp_path / "out.csv", "key")
    sink.write([record(1)])
    sink.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@settings(max_examples=50, deadline=None)  # it writes files
@given(data=st.data())
def test_killed_at_any_byte_it_continues_after_the_last_whole_record(tmp_path_factory, suffix, data):
    folder = tmp_path_factory.mktemp("sink")
    path, partial = folder / f"out{suffix}", folder / f"out{suffix}.partial"
    open_sink(path, "key").write([record(number) for number in range(3)])
    content = partial.read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    partial.write_bytes(content[:cut])
    sink = open_sink(path, "key")
    sink.write([record(number) for number in range(sink.done, 3)])
    sink.finish()
    assert path.read_bytes() == content


def test_csv_is_flat(tmp_path):
    path = tmp_path / "out.csv"
    sink = open_sink(path, "key")
    sink.write([record(1, rationale=None)])
    sink.finish()
    with path.open(encoding="utf-8", newline="") as file:
        [row] = csv.DictReader(file)
    assert tuple(row) == CSV_COLUMNS
    assert json.loads(row["probabilities"]) == {"a": 0.75, "b": 0.25}
    assert json.loads(row["prediction_set"]) == ["a"]
    assert (row["abstain"], row["confidence"], row["rationale"]) == ("false", "0.75", "")
