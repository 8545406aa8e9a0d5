"""Every ExampleSource: rows in order, broken ones handed on, missing things explained."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes import FakeSource

from finetune.adapters.data.sources import FileSource
from finetune.application.config import Columns, DataFile
from finetune.application.ports import BadRow, RawRow
from finetune.domain.errors import InvalidInput, MissingExtra

ROWS = [{"text": "Zürich\nnew line, 🙈", "label": "a"}, {"text": 'say "hi"', "label": "b"}]


@pytest.fixture(params=["fake", ".jsonl", ".csv", ".parquet"])
def opened(request, tmp_path):
    path = tmp_path / f"rows{request.param if request.param != 'fake' else '.jsonl'}"
    if request.param == "fake":
        return FakeSource({str(path): ROWS}), path
    if request.param == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    elif request.param == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["text", "label"])
            writer.writeheader()
            writer.writerows(ROWS)
    else:
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    return FileSource(), path


def test_rows_come_in_order_with_positions(opened):
    source, path = opened
    rows = list(source.read(DataFile(path=path), Columns()))
    assert [dict(row.values) for row in rows] == ROWS
    assert all(row.position.startswith(f"{path}:") for row in rows)
    assert len({row.position for row in rows}) == len(rows)


def test_missing_file_is_named(opened):
    source, path = opened
    missing = path.with_name("missing.jsonl")
    with pytest.raises(InvalidInput, match=r"missing\.jsonl: there is no such file"):
        list(source.read(DataFile(path=missing), Columns()))


def test_missing_text_column_lists_those_that_are_there(opened):
    source, path = opened
    with pytest.raises(InvalidInput, match="no column 'texts'") as caught:
        list(source.read(DataFile(path=path), Columns(text="texts")))
    assert caught.value.seen == ["text", "label"]


def test_missing_label_column_is_allowed(opened):
    source, path = opened
    assert len(list(source.read(DataFile(path=path), Columns(label="category")))) == 2


def read(path: Path, content: bytes | str, columns: Columns | None = None):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(FileSource().read(DataFile(path=path), columns or Columns()))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"only one field\n", "1 fields, but the header has 2"),
        (b"one,two,three\n", "3 fields, but the header has 2"),
        (b'"never closed,b\n', "broken CSV"),
        (b'"closed"too early,b\n', "broken CSV"),
        (b"nul \0 inside,b\n", "a NUL character"),
        (b"caf\xe9,b\n", "not valid UTF-8"),
    ],
)
def test_one_broken_csv_line_costs_one_row(tmp_path, line, problem):
    content = b"text,label\nfirst,a\n" + line + b'second,a\n"third\nline",b\n'
    rows = read(tmp_path / "a.csv", content)
    assert [type(row) for row in rows] == [RawRow, BadRow, RawRow, RawRow]
    assert rows[1].position == f"{tmp_path / 'a.csv'}:3"
    assert problem in rows[1].problem
    assert rows[1].content
    assert rows[1].content.encode()
    assert rows[3].values["text"] == "third\nline"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{broken\n", "not JSON"),
        (b"[1, 2]\n", "not a JSON object"),
        (b'{"text": "a", "score": NaN}\n', "NaN is not a JSON number"),
        (b'{"text": "a\\u0000"}\n', "a NUL character"),
        (b'{"text": "\\ud800"}\n', "lone surrogate"),
        (b'{"text": "a", "deep": [{"x": "\\ud800"}]}\n', "lone surrogate"),
        (b'{"text": "\xff"}\n', "not valid UTF-8"),
        (b'{"text": {"nested": 1}}\n', "'text' is not text"),
        (b'{"label": "a"}\n', "no column 'text'"),
        (b"[" * 100_000 + b"\n", "not JSON"),
    ],
)
def test_one_broken_json_line_costs_one_row(tmp_path, line, problem):
    rows = read(tmp_path / "a.jsonl", b'{"text": "first"}\n\n' + line + b'{"text": "second"}')
    assert [type(row) for row in rows] == [RawRow, BadRow, RawRow]
    assert rows[1].position == f"{tmp_path / 'a.jsonl'}:3"
    assert problem in rows[1].problem


def test_mapped_columns_become_text_and_others_stay(tmp_path):
    line = '{"id": 7, "text": 12, "label": 3.0, "split": null, "age": 40, "flags": [true]}'
    [row] = read(tmp_path / "a.jsonl", line)
    assert row.values == {"id": "7", "text": "12", "label": "3", "split": None, "age": 40, "flags": [True]}
    [row] = read(tmp_path / "b.jsonl", '{"text": "a", "label": true}')
    assert row.values["label"] == "true"


def test_empty_csv_cells(tmp_path):
    [row] = read(tmp_path / "a.csv", "text,label,age\n,,\n")
    assert row.values == {"text": "", "label": None, "age": None}


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_byte_order_mark_is_not_part_of_a_name(tmp_path, name):
    content = "text,label\na,b\n" if name.endswith("csv") else '{"text": "a", "label": "b"}\n'
    [row] = read(tmp_path / name, b"\xef\xbb\xbf" + content.encode())
    assert row.values == {"text": "a", "label": "b"}


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.csv", b"", "no header line"),
        ("a.csv", b"text,text\n", "same name"),
        ("a.csv", b"\xff\xfet\0", "UTF-16"),
        ("a.parquet", b"nothing", "not a readable Parquet file"),
        ("a.json", b"[]", "supported are .jsonl, .csv, .parquet"),
        ("a", b"", "supported are"),
    ],
)
def test_file_that_cannot_be_read_at_all(tmp_path, name, content, match):
    with pytest.raises(InvalidInput, match=match):
        read(tmp_path / name, content)


def test_close_column_name_is_suggested(tmp_path):
    with pytest.raises(InvalidInput, match="perhaps you meant 'Text'"):
        read(tmp_path / "a.csv", "Text,label\na,b\n")


def test_parquet_values_without_json_form(tmp_path):
    table = pa.table(
        {
            "text": ["a", "b"],
            "label": [1.0, None],
            "score": [float("nan"), 0.5],
            "day": pa.array([0, 1], pa.date32()),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    rows = list(FileSource().read(DataFile(path=tmp_path / "a.parquet"), Columns()))
    assert [row.values["label"] for row in rows] == ["1", None]
    assert [row.values["score"] for row in rows] == [None, 0.5]
    assert rows[0].values["day"] == "1970-01-01"
    assert rows[1].position.endswith(":2")


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"finetune-decisions\[parquet\]"):
        read(tmp_path / "a.parquet", b"")


def test_text_of_100_000_characters_is_one_row(tmp_path):
    for name, content in (
        ("a.csv", f"text,label\n{'x' * 100_000},b\n"),
        ("a.jsonl", json.dumps({"text": "x" * 100_000})),
    ):
        [row] = read(tmp_path / name, content)
        assert len(row.values["text"]) == 100_000


@settings(max_examples=50, deadline=None)  # it writes files
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"])), st.text("ab")
        ),
        min_size=1,
    )
)
def test_csv_gives_back_what_was_written(tmp_path_factory, cells):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows([("text", "label"), *cells])
    rows = list(FileSource().read(DataFile(path=path), Columns()))
    assert [(row.values["text"], row.values["label"] or "") for row in rows] == cells


@settings(max_examples=50, deadline=None)  # it writes files
@given(st.binary(max_size=300))
def test_any_bytes_give_rows_or_an_explained_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "a.csv"
    path.write_bytes(b"text,label\n" + content)
    for row in FileSource().read(DataFile(path=path), Columns()):
        assert isinstance(row, RawRow | BadRow)
