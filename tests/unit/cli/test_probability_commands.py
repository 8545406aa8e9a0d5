"""``--probabilities`` through the whole application, on real files: no run, no configuration, no torch."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.application.probability_world import NAMES, ProbabilityWorld, softmax
from typer.testing import Result

from finetune.application.evaluation import EvaluationReport
from finetune.container import Container
from finetune.domain.errors import MissingExtra

Invoke = Callable[..., Result]


def rows(name: str, n: int, seed: int) -> list[list[str]]:
    claimed, truth = ProbabilityWorld(seed).draw(n)
    return [
        [f"{name}-{i}", NAMES[column], *(f"{value:.6f}" for value in p)]
        for i, (p, column) in enumerate(zip(claimed, truth, strict=True))
    ]


def write(path: Path, lines: list[list[str]], header: tuple[str, ...] = ("id", "label", *NAMES)) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *lines])


class PlainReport:
    """A page that is one line."""

    def render(self, evaluation: Any) -> str:
        return f"<html>{evaluation['run']}</html>"


@pytest.fixture
def files(project: Path, container: Container) -> Path:
    """A folder with calibration, test and new rows, and nothing else."""
    (project / "configs/llm_lora.yaml").unlink()
    write(project / "cal.csv", rows("cal", 1500, 1))
    write(project / "test.csv", rows("test", 600, 2))
    container.report.override(PlainReport())
    return project


def succeed(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    assert "Traceback" not in result.output
    return result


CALIBRATE = ("calibrate", "--probabilities", "cal.csv", "-s", "risk.level=0.2")


def test_the_whole_way(files: Path, invoke: Invoke) -> None:
    page = succeed(invoke(*CALIBRATE, "-o", "out/my cert.json")).stdout
    assert "Calibrated cal.csv" in page
    assert "temperature" in page
    assert "at most 20 % are answered wrongly" in page
    assert "Written: out/my cert.json" in page
    following = "finetune evaluate --probabilities TEST.csv --certificate 'out/my cert.json'"
    assert f"Next: {following}\n" in page
    options = ("--certificate", "out/my cert.json")
    page = succeed(invoke("evaluate", "--probabilities", "test.csv", *options)).stdout
    assert "wrong among answered" in page
    assert "Written: out/evaluation.json\nWritten: out/evaluation.html\n" in page
    assert "Next: finetune predict --probabilities NEW.csv --output decisions.jsonl" in page
    assert (files / "out/evaluation.html").read_text() == "<html>test.csv</html>"
    page = succeed(invoke("predict", "--probabilities", "test.csv", *options, "-o", "d.jsonl")).stdout
    assert "Decided 600 rows" in page
    assert len((files / "d.jsonl").read_text().splitlines()) == 600


def test_defaults_need_no_option(files: Path, invoke: Invoke) -> None:
    page = succeed(invoke(*CALIBRATE)).stdout
    assert "Next: finetune evaluate --probabilities TEST.csv\n" in page
    page = succeed(invoke("evaluate", "--probabilities", "test.csv")).stdout
    assert "Written: evaluation.json\nWritten: evaluation.html\n" in page
    succeed(invoke("predict", "--probabilities", "test.csv", "-o", "d.csv"))


def test_json_and_quiet(files: Path, invoke: Invoke) -> None:
    assert json.loads(succeed(invoke(*CALIBRATE, "--json")).stdout)["model"]["kind"] == "probabilities"
    found = json.loads(succeed(invoke("evaluate", "--probabilities", "test.csv", "--json")).stdout)
    assert found == json.loads((files / "evaluation.json").read_text())
    predicted = invoke("predict", "--probabilities", "test.csv", "-o", "d.jsonl", "--json")
    assert json.loads(succeed(predicted).stdout)["rows"] == 600
    for command in (CALIBRATE, ("evaluate", "--probabilities", "test.csv")):
        assert succeed(invoke(*command, "-q")).output == ""


def test_the_three_formats_give_one_certificate(files: Path, invoke: Invoke) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = rows("cal", 1500, 1)
    values = np.array([line[2:] for line in lines], dtype=float)
    ids, labels = [line[0] for line in lines], [line[1] for line in lines]
    columns = dict(zip(NAMES, values.T, strict=True))
    pq.write_table(pa.table({"id": ids, "label": labels, **columns}), files / "cal.parquet")
    truth = np.array([NAMES.index(label) for label in labels])
    np.savez(files / "cal.npz", probabilities=values, labels=truth, names=NAMES, ids=ids)
    found = []
    for suffix in (".csv", ".parquet", ".npz"):
        arguments = [word.replace(".csv", suffix) for word in CALIBRATE]
        document = json.loads(succeed(invoke(*arguments, "--json")).stdout)
        found.append([document[part] for part in ("map", "conformal", "selective")])
    assert found[0] == found[1] == found[2]


def test_settings_come_from_options_and_a_file(files: Path, invoke: Invoke) -> None:
    (files / "wishes.yaml").write_text("conformal: {method: raps, k_reg: 2}\nrisk: {level: 0.3}\n")
    settings = ("conformal.alpha=0.05", "calibration.map=beta", "seed=3")
    options = [word for setting in settings for word in ("-s", setting)]
    command = ("calibrate", "--probabilities", "cal.csv", "-c", "wishes.yaml", *options)
    document = json.loads(succeed(invoke(*command, "--json")).stdout)
    assert document["conformal"]["method"] == "raps"
    assert document["conformal"]["options"] == {"penalty": 0.01, "k_reg": 2}
    assert (document["conformal"]["alpha"], document["selective"]["level"]) == (0.05, 0.3)
    assert (document["map"]["kind"], document["data"]["seed"]) == ("beta", 3)


def test_labels_costs_and_other_columns(files: Path, invoke: Invoke) -> None:
    header = ("nr", "truth", "region", *NAMES)
    lines = [
        [name, "911" if label == "emergency" else label, "north", *numbers]
        for name, label, *numbers in rows("x", 1800, 4)
    ]
    write(files / "odd.csv", lines[:1500], header)
    write(files / "later.csv", lines[1500:], header)
    (files / "labels.yaml").write_text(
        "task: Triage\nlabels: [{name: emergency, aliases: [911]}, {name: routine}, {name: refill}]\n"
    )
    columns = ("--label-column", "truth", "--id-column", "nr")
    command = ("calibrate", "--probabilities", "odd.csv", "-s", "risk.level=0.2", *columns)
    refused = invoke(*command)
    assert refused.exit_code == 3
    assert "column 'region'" in refused.stderr
    assert "--labels labels.yaml" in refused.stderr
    succeed(invoke(*command, "--labels", "labels.yaml"))
    page = succeed(invoke("evaluate", "--probabilities", "later.csv")).stdout
    assert "cost of a case" in page


def test_a_promise_that_fails_is_said_and_leads_nowhere(files: Path, invoke: Invoke) -> None:
    succeed(invoke(*CALIBRATE, "-q"))
    turned = [[name, NAMES[NAMES.index(label) - 1], *p] for name, label, *p in rows("turned", 300, 7)]
    write(files / "turned.csv", turned)
    page = succeed(invoke("evaluate", "--probabilities", "turned.csv")).stdout
    assert "Note: Promise not held here. Of 300 test cases" in page
    assert "Next: " not in page


def test_a_column_that_is_never_right_is_said(files: Path, invoke: Invoke) -> None:
    lines = [[*line, "0"] for line in rows("cal", 1500, 1)]
    write(files / "wide.csv", lines, ("id", "label", *NAMES, "is_retrained"))
    result = succeed(invoke("calibrate", "--probabilities", "wide.csv", "-s", "risk.level=0.2"))
    assert "wide.csv: no row has the label 'is_retrained'; is it an outcome" in result.stderr
    assert "outcomes         4: emergency, routine, refill, is_retrained\n" in result.stdout
    assert "no row has the label" not in succeed(invoke(*CALIBRATE)).stderr


def test_a_page_of_other_numbers_is_removed_and_that_is_said(files: Path, invoke: Invoke) -> None:
    succeed(invoke(*CALIBRATE, "-q"))
    succeed(invoke("evaluate", "--probabilities", "test.csv"))
    command = ("evaluate", "--probabilities", "test.csv", "--no-report")
    assert "evaluation.html: removed" in succeed(invoke(*command)).stderr
    assert not (files / "evaluation.html").exists()
    assert "removed" not in succeed(invoke(*command)).stderr


def test_an_error_about_nan_is_json_all_the_same(files: Path, invoke: Invoke) -> None:
    (files / "bad.csv").write_text(HEAD + "1,routine,0.1,nan,0.1\n")
    printed = invoke("calibrate", "--probabilities", "bad.csv", "--json").stdout
    error = json.loads(printed, parse_constant=pytest.fail)["error"]
    assert error["seen"] == "nan"


def test_validation_rows_of_their_own(files: Path, invoke: Invoke) -> None:
    write(files / "val.csv", rows("val", 300, 5))
    page = succeed(invoke(*CALIBRATE, "--validation", "val.csv")).stdout
    assert "fitted on 300 rows" in page


def test_logits_are_read_as_the_certificate_says(files: Path, invoke: Invoke) -> None:
    rng = np.random.default_rng(0)
    for name, n in (("logits.csv", 1500), ("later.csv", 300)):
        logits = rng.normal(0, 2, (n, 3))
        truth = (softmax(logits).cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
        write(files / name, [[f"{name}{i}", NAMES[truth[i]], *map(str, logits[i])] for i in range(n)])
    refused = invoke("calibrate", "--probabilities", "logits.csv")
    assert refused.exit_code == 3
    assert "--inputs" in refused.stderr
    options = ("--inputs", "logits", "-s", "risk.level=0.2")
    succeed(invoke("calibrate", "--probabilities", "logits.csv", *options))
    succeed(invoke("evaluate", "--probabilities", "later.csv", "--no-report"))


def test_a_missing_page_is_an_error_with_the_install_line(
    files: Path, invoke: Invoke, container: Container
) -> None:
    class NoReport:
        def render(self, evaluation: EvaluationReport) -> str:
            raise MissingExtra("report", "the HTML report")

    container.report.override(NoReport())
    succeed(invoke(*CALIBRATE, "-q"))
    refused = invoke("evaluate", "--probabilities", "test.csv")
    assert refused.exit_code == 8
    assert "pip install 'finetune-decisions[report]'" in refused.stderr
    assert (files / "evaluation.json").exists()
    page = succeed(invoke("evaluate", "--probabilities", "test.csv", "--no-report")).stdout
    assert "evaluation.html" not in page


HEAD = "id,label,emergency,routine,refill\n"


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        ("", 3, "bad.csv:1: there is no header line"),
        (HEAD, 4, "bad.csv: calibration needs at least two rows"),
        (HEAD + "1,routine,0.1,0.8,0.1\n", 4, "calibration needs at least two rows"),
        (HEAD + "1,routine,0.1,0.8,x\n", 3, "bad.csv:2: column 'refill': this is not a number (seen: 'x')"),
        (HEAD + "1,routine,0.1,0.8,\n", 3, "bad.csv:2: column 'refill': the cell is empty (seen: '')"),
        (HEAD + "1,routine,0.1,0.8,nan\n", 3, "bad.csv:2: column 'refill': this is no number from 0 to 1"),
        (HEAD + "1,routine,0.1,0.8,0.3\n", 3, "bad.csv:2: the probabilities of the row sum to 1.2, not 1"),
        (HEAD + "1,other,0.1,0.8,0.1\n", 3, "bad.csv:2: this is none of the outcomes"),
        (HEAD + "1,,0.1,0.8,0.1\n", 3, "bad.csv:2: the label is empty"),
        (HEAD + ",routine,0.1,0.8,0.1\n", 3, "bad.csv:2: the id is empty"),
        (HEAD + "1,routine,0.1,0.8,0.1\n" * 2, 3, "bad.csv:3: the id is that of bad.csv:2 too (seen: '1')"),
        (HEAD + "1,routine,0.1\n", 3, "bad.csv:2: broken CSV: 3 fields, but the header has 5"),
        ("label,a\n", 3, "at least two columns of probabilities"),
        (
            "label,a,A\na,0.5,0.5\n",
            3,
            "bad.csv: columns: 'A' of label 'A' and 'a' of label 'a'",
        ),
    ],
)
def test_bad_files_are_explained(files: Path, invoke: Invoke, content: str, code: int, said: str) -> None:
    (files / "bad.csv").write_text(content)
    result = invoke("calibrate", "--probabilities", "bad.csv")
    assert result.exit_code == code, result.output
    assert said in result.stderr
    assert "What to do: " in result.stderr
    assert not (files / "calibration.json").exists()
    as_json = json.loads(invoke("calibrate", "--probabilities", "bad.csv", "--json").stdout)
    assert as_json["error"]["exit_code"] == code


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["evaluate", "--probabilities", "cal.csv"], 6, "the file that the certificate was made from"),
        (["evaluate", "--probabilities", "both.csv"], 6, "both.csv:3: the row was used to make"),
        (["evaluate", "--probabilities", "missing.csv"], 3, "missing.csv: there is no such file"),
        (["evaluate", "--probabilities", "test.csv", "--certificate", "no.json"], 3, "no such certificate"),
        (["evaluate", "--probabilities", "test.csv", "-o", "a.yaml"], 3, "name it ….json"),
        (
            ["calibrate", "--probabilities", "test.csv", "--validation", "test.csv"],
            6,
            "leave --validation",
        ),
        (["calibrate", "--probabilities", "test.csv", "-o", "test.csv"], 3, "JSON"),
        (["calibrate", "--probabilities", "test.csv", "--labels", "no.yaml"], 3, "no.yaml"),
        (
            ["calibrate", "--probabilities", "test.csv", "-s", "conformal.weight=1"],
            3,
            "of the method saps",
        ),
        (["calibrate", "--probabilities", "test.csv", "-s", "lora.r=8"], 3, "known keys are version, seed"),
        (["calibrate", "--probabilities", "test.csv", "-s", "risk.level=0.001"], 5, "on_infeasible"),
        (["predict", "--probabilities", "test.csv", "-o", "a.txt"], 3, ".jsonl"),
        (["predict", "--probabilities", "test.csv"], 2, "--output"),
        (["predict", "--probabilities", "test.csv", "-o", "a.jsonl", "-t", "x"], 2, "belongs to a run"),
        (["calibrate", "--probabilities", "test.csv", "--run", "x"], 2, "belongs to a run"),
        (["evaluate", "--probabilities", "test.csv", "--base"], 2, "belongs to a run"),
        (["evaluate", "--probabilities", "test.csv", "-s", "risk.level=0.3"], 2, "belongs to a run"),
        (["calibrate", "--probabilities", "test.csv", "--inputs", "scores"], 2, "log_probabilities"),
        (["calibrate", "--labels", "labels.yaml"], 2, "goes with --probabilities"),
        (["evaluate", "--certificate", "a.json"], 2, "goes with --probabilities"),
        (["predict", "-t", "x", "--inputs", "logits"], 2, "goes with --probabilities"),
    ],
)
def test_what_makes_no_sense_is_refused(
    files: Path, invoke: Invoke, arguments: list[str], code: int, said: str
) -> None:
    succeed(invoke(*CALIBRATE, "-q"))
    lines = rows("test", 3, 6)
    write(files / "both.csv", [lines[0], ["cal-7", *lines[1][1:]], lines[2]])
    result = invoke(*arguments)
    assert result.exit_code == code, result.output
    assert said in result.stderr
    assert "What to do: " in result.stderr
