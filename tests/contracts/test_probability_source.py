"""Every ProbabilitySource: all rows in order, or an explained error; numbers are read, not yet believed."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes import FakeProbabilities, FakeProgress

from finetune.adapters.data.probabilities import ProbabilityFiles
from finetune.application.ports import ProbabilityFile
from finetune.domain.errors import InvalidInput, MissingExtra

TABLE = {
    "id": ["r1", "r2", "r3"],
    "label": ["yes", "no", "maybe, but"],
    "yes": [0.7, 0.1, 1e-9],
    "no": [0.2, 0.8, 0.25],
    "maybe, but": [0.1, 0.1, 0.75 - 1e-9],
}
OUTCOMES = ("yes", "no", "maybe, but")


def write_csv(path: Path, table: dict) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))


def write_parquet(path: Path, table: dict) -> None:
    pq.write_table(pa.table(table), path)


def write_npz(path: Path, table: dict) -> None:
    names = [name for name in table if name not in ("id", "label")]
    arrays = {"probabilities": np.array([table[name] for name in names]).T, "names": np.array(names)}
    arrays |= {f"{key}s": np.array(table[key]) for key in ("id", "label") if key in table}
    np.savez(path, **arrays)


WRITERS = {".csv": write_csv, ".parquet": write_parquet, ".npz": write_npz}


@pytest.fixture(params=["fake", *WRITERS])
def stored(request, tmp_path):
    """Return what stores a table, and gives the source that reads it with the path of it."""

    def store(table):
        path = tmp_path / f"rows{request.param if request.param in WRITERS else ''}"
        if request.param == "fake":
            return FakeProbabilities({str(path): table}), path
        WRITERS[request.param](path, table)
        return ProbabilityFiles(), path

    return store


def read(source, path, **options):
    return source.read(ProbabilityFile(path, **options), FakeProgress())


def test_every_row_comes_in_order_with_its_place(stored):
    source, path = stored(TABLE)
    rows = read(source, path)
    assert rows.names == OUTCOMES
    assert rows.inputs == "probabilities"
    assert rows.path == path
    np.testing.assert_array_equal(rows.values, np.array([TABLE[name] for name in OUTCOMES]).T)
    assert (list(rows.labels), list(rows.ids)) == (TABLE["label"], TABLE["id"])
    assert np.diff(rows.lines).tolist() == [1, 1]
    assert rows.place(0) == f"{path}:{rows.lines[0]}"


def test_outcomes_come_in_the_order_that_is_asked_for(stored):
    source, path = stored({**TABLE, "age": [30.0, 40.0, 50.0]})
    rows = read(source, path, outcomes=("maybe, but", "yes"))
    assert rows.names == ("maybe, but", "yes")
    np.testing.assert_array_equal(rows.values, np.array([TABLE["maybe, but"], TABLE["yes"]]).T)


def test_new_rows_need_no_label_and_no_id(stored):
    source, path = stored({name: TABLE[name] for name in OUTCOMES})
    rows = read(source, path, label=None, outcomes=OUTCOMES)
    assert rows.labels is None
    assert rows.ids is None


def test_no_row_is_no_error_here(stored):
    source, path = stored({name: np.array([], dtype=type(values[0])) for name, values in TABLE.items()})
    rows = read(source, path, outcomes=OUTCOMES)
    assert rows.values.shape == (0, 3)
    assert len(rows.labels) == len(rows.lines) == 0


def test_progress_ends_at_its_total(stored):
    source, path = stored(TABLE)
    progress = FakeProgress()
    source.read(ProbabilityFile(path), progress)
    assert progress.tasks
    assert all(task.done == task.total for task in progress.tasks)


def test_a_missing_file_is_named(stored):
    source, path = stored(TABLE)
    with pytest.raises(InvalidInput, match="no such file") as caught:
        read(source, path.with_name(f"missing{path.suffix}"))
    assert "missing" in caught.value.where


@pytest.mark.parametrize("options", [{"outcomes": ("yes", "nope")}, {"label": "truth", "outcomes": OUTCOMES}])
def test_a_missing_column_is_named(stored, options):
    source, path = stored(TABLE)
    wanted = "truth" if "label" in options else "nope"
    with pytest.raises(InvalidInput, match=f"there is no (column|array) '{wanted}'"):
        read(source, path, **options)


def refused(path: Path, content: bytes | str, **options) -> InvalidInput:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidInput) as caught:
        read(ProbabilityFiles(), path, **options)
    assert caught.value.remedy
    return caught.value


HEAD = "id,label,a,b\n"


@pytest.mark.parametrize(
    ("content", "options", "where", "what", "seen"),
    [
        ("", {}, ":1", "no header line", None),
        ("a,b,a\n", {}, ":1", "same name", ["a"]),
        ("a;b;label\n1;2;a\n", {}, ":1", "separated by semicolons, not by commas", "a;b;label"),
        ("a\tb\tlabel\n", {}, ":1", "separated by tabs", "a\tb\tlabel"),
        ("a b\n", {}, ":1", "no column 'label'", ["a b"]),
        (",label,a,b\n0,a,0.5,0.5\n", {}, ":1", "a column has no name", ["", "label", "a", "b"]),
        ("a;b,label\n", {}, ":1", "at least two columns", ["a;b", "label"]),
        ("id,a,b\n", {}, ":1", "no column 'label'", ["id", "a", "b"]),
        (HEAD, {"id": "nr"}, ":1", "no column 'nr'", ["id", "label", "a", "b"]),
        (HEAD + "1,a,0.5,x\n", {}, ":2: column 'b'", "not a number", "x"),
        (HEAD + "1,a,,0.5\n", {}, ":2: column 'a'", "the cell is empty", ""),
        (HEAD + "1,a,0.5,0.5\n2,a,0.5\n", {}, ":3", "3 fields, but the header has 4", "2,a,0.5"),
        (HEAD.encode() + b"1,caf\xe9,0.5,0.5\n", {}, ":2", "not valid UTF-8", "1,caf\\xe9,0.5,0.5"),
        (b"\xff\xfea\0", {}, "", "UTF-16", None),
    ],
)
def test_a_csv_file_that_cannot_be_used(tmp_path, content, options, where, what, seen):
    error = refused(tmp_path / "a.csv", content, **options)
    assert error.where == f"{tmp_path / 'a.csv'}{where}"
    assert what in error.what
    assert error.seen == seen


def test_a_column_that_is_no_outcome_is_named_with_the_way_to_say_so(tmp_path):
    content = "label,region,a,b\na,north,0.5,0.5\n"
    error = refused(tmp_path / "a.csv", content)
    assert "column 'region'" in error.where
    assert "--labels" in error.remedy
    (tmp_path / "a.csv").write_text(content)
    assert read(ProbabilityFiles(), tmp_path / "a.csv", outcomes=("a", "b")).names == ("a", "b")


def test_a_close_name_is_suggested(tmp_path):
    assert "perhaps you meant 'Label'" in refused(tmp_path / "a.csv", "Label,a,b\n").remedy


def test_abstain_that_the_model_lacks_says_where_it_comes_from(tmp_path):
    error = refused(tmp_path / "a.csv", "label,a,b\n", outcomes=("a", "b", "abstain"))
    assert "labels.yaml" in error.remedy


def test_all_bad_rows_are_counted_and_the_first_ones_shown(tmp_path):
    error = refused(tmp_path / "a.csv", HEAD + "1,a,x,0\n" * 7 + "1,a,0.5,0.5\n" + "1,a\n")
    assert error.what.startswith("8 rows cannot be used")
    assert "a.csv:2: column 'a': this is not a number (seen: 'x')" in error.what
    assert "and 3 more" in error.what


def test_texts_splits_and_the_index_of_pandas_are_no_outcomes(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,split,label,a,b,__index_level_0__\nhello,test,a,0.5,0.5,7\n")
    assert read(ProbabilityFiles(), path).names == ("a", "b")


def test_a_column_without_a_name_may_stand_beside_named_outcomes(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(",label,a,b\n0,a,0.5,0.5\n")
    assert read(ProbabilityFiles(), path, outcomes=("a", "b")).names == ("a", "b")


def test_a_record_of_several_lines_is_placed_at_its_first(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('label,a,b,text\na,0.5,0.5,"two\nlines"\nb,0.1,0.9,x\n')
    assert read(ProbabilityFiles(), path).lines.tolist() == [2, 4]


@settings(max_examples=50, deadline=None)  # it writes files
@given(st.binary(max_size=200))
def test_any_bytes_give_rows_or_an_explained_error(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("bytes")
    for name, head in (("a.csv", b"label,a,b\n"), ("a.npz", b"PK\x03\x04"), ("a.parquet", b"PAR1")):
        (folder / name).write_bytes(head + content)
        try:
            read(ProbabilityFiles(), folder / name)
        except InvalidInput as error:
            assert str(folder / name) in str(error)  # noqa: PT017 - or there are rows


@pytest.mark.parametrize("name", ["a.json", "a", "a.npy"])
def test_types_that_cannot_be_read_name_those_that_can(tmp_path, name):
    error = refused(tmp_path / name, b"")
    assert ".csv, .parquet, .npz" in error.what


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"pip install 'finetune-decisions\[parquet\]'"):
        read(ProbabilityFiles(), tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("columns", "where", "what", "seen"),
    [
        ({"label": ["a"], "a": ["x"], "b": [0.5]}, ": column 'a'", "of type string", "x"),
        ({"label": ["a", "a"], "a": [0.5, None], "b": [0.5, 0.5]}, ":2: column 'a'", "empty", "null"),
        ({"label": ["a"], "a": [[0.5]], "b": [0.5]}, ": column 'a'", "of type list", [0.5]),
    ],
)
def test_a_parquet_file_that_cannot_be_used(tmp_path, columns, where, what, seen):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path)
    error = refused(path, path.read_bytes())
    assert error.where == f"{path}{where}"
    assert what in error.what
    assert error.seen == seen


def test_parquet_keeps_its_precision_and_reads_odd_columns(tmp_path):
    path = tmp_path / "a.parquet"
    single = pa.array([0.25, 0.75], pa.float32())
    table = {"id": [1.0, 2.0], "label": pa.array(["a", "b"]).dictionary_encode(), "a": single, "b": single}
    pq.write_table(pa.table(table), path)
    rows = read(ProbabilityFiles(), path)
    assert rows.values.dtype == np.float32
    assert (rows.ids, rows.labels) == (["1", "2"], ["a", "b"])
    decimal = pa.array([0, 1], pa.decimal128(3, 2))
    pq.write_table(pa.table({"label": ["a", None], "a": decimal, "b": pa.array([1, 0], pa.int8())}), path)
    rows = read(ProbabilityFiles(), path)
    assert rows.values.tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert rows.labels == ["a", ""]


P = np.array([[0.5, 0.5], [0.1, 0.9]])


@pytest.mark.parametrize(
    ("arrays", "options", "what"),
    [
        ({"labels": [0, 1]}, {}, "exactly one array must be called"),
        ({"probabilities": P, "logits": P, "labels": [0, 1]}, {}, "exactly one array must be called"),
        ({"probabilities": P, "labels": [0, 1]}, {"inputs": "logits"}, "there is no array 'logits'"),
        ({"probabilities": P[0], "labels": [0, 1]}, {}, "shape (rows, outcomes)"),
        ({"probabilities": P.astype(str), "labels": [0, 1]}, {}, "must hold numbers"),
        ({"probabilities": P}, {}, "there is no array 'labels'"),
        ({"probabilities": P, "labels": [0]}, {}, "one label for each row"),
        ({"probabilities": P, "labels": [0, 2]}, {}, "no column from 0 to 1 (1 such rows)"),
        ({"probabilities": P, "labels": [0, -1]}, {}, "no column from 0 to 1"),
        ({"probabilities": P, "labels": [0.0, 1.0]}, {}, "texts or whole numbers"),
        ({"probabilities": P, "labels": [True, False]}, {}, "texts or whole numbers"),
        ({"probabilities": P, "labels": np.array([b"a", b"\xff"])}, {}, "not UTF-8"),
        ({"probabilities": P, "labels": [0, 1], "names": ["a", "a"]}, {}, "the same name"),
        ({"probabilities": P, "labels": [0, 1], "names": ["a"]}, {}, "one name for each column"),
        ({"probabilities": P, "labels": [0, 1], "ids": [[1], [2]]}, {}, "one id for each row"),
        ({"probabilities": P, "labels": [0, 1]}, {"outcomes": ("a", "b", "c")}, "2 columns without names"),
        ({"probabilities": P[:, :1], "labels": [0, 0]}, {}, "at least two columns"),
        ({"probabilities": P, "labels": np.array(["a", None], dtype=object)}, {}, "Python objects"),
    ],
)
def test_an_archive_that_cannot_be_used(tmp_path, arrays, options, what):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    assert what in refused(path, path.read_bytes(), **options).what


def test_an_archive_without_scores_is_not_sent_to_an_option_that_cannot_help(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, proba=P, labels=[0, 1])
    assert "--inputs" not in refused(path, path.read_bytes()).remedy
    np.savez(path, probabilities=P, logits=P, labels=[0, 1])
    assert "choose one with --inputs" in refused(path, path.read_bytes()).remedy


def test_an_archive_may_number_its_labels(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, logits=P.astype(np.float32), labels=np.array([1, 0], dtype=np.uint8))
    rows = read(ProbabilityFiles(), path)
    assert (rows.names, rows.labels, rows.inputs, rows.values.dtype) == (
        ("0", "1"), ["1", "0"], "logits", np.float32,
    )  # fmt: skip
    named = read(ProbabilityFiles(), path, outcomes=("yes", "no"))
    assert (named.names, named.labels) == (("yes", "no"), ["no", "yes"])


def test_an_archive_may_hold_bytes_other_keys_and_several_scores(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, probabilities=P, logits=2 * P, y=np.array([b"b", b"a"]), names=["a", "b"], who=[3, 4])
    rows = read(ProbabilityFiles(), path, inputs="logits", label="y", id="who")
    assert (rows.labels, rows.ids, rows.values.tolist()) == (["b", "a"], ("3", "4"), (2 * P).tolist())
