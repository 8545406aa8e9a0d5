"""Every MetricsLog: each event on disk at once, none that cannot be read back."""

from __future__ import annotations

import json

import pytest
from tests.fakes import FakeClock, MemoryLog

from finetune.adapters.files.clock import SystemClock
from finetune.adapters.files.log import JsonlLog, read_metrics
from finetune.domain.errors import IntegrityError, InvalidInput


@pytest.fixture(params=["file", "memory"])
def opened(request, tmp_path):
    if request.param == "memory":
        log = MemoryLog()
        return log, lambda: log.events
    log = JsonlLog(tmp_path / "run")
    return log, lambda: [json.loads(line) for line in log.path.read_text(encoding="utf-8").splitlines()]


def test_events_are_there_in_order_when_the_call_returns(opened):
    log, events = opened
    log.append("step", {"loss": 0.5, "note": "Zürich"})
    assert events() == [{"event": "step", "loss": 0.5, "note": "Zürich"}]
    log.append("end", {})
    assert events()[1:] == [{"event": "end"}]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_values_that_are_not_json_are_refused(opened, value):
    log, events = opened
    log.append("before", {})
    with pytest.raises(InvalidInput, match="not JSON"):
        log.append("step", {"loss": value})
    assert events() == [{"event": "before"}]


def test_line_cut_by_a_kill_costs_only_itself(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"event": "a"}\n{"event": "b", "lo')
    JsonlLog(tmp_path).append("c", {})
    JsonlLog(tmp_path).append("d", {})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert lines == ['{"event": "a"}', '{"event": "b", "lo', '{"event": "c"}', '{"event": "d"}']


def steps(path) -> list[tuple[str, int]]:
    return [(event["event"], event["step"]) for event in read_metrics(path)]


@pytest.fixture
def write(tmp_path):
    def write(*lines: str | tuple[str, int], end: str = "\n"):
        texts = [
            line if isinstance(line, str) else json.dumps({"event": line[0], "step": line[1]})
            for line in lines
        ]
        path = tmp_path / "metrics.jsonl"
        path.write_text("\n".join(texts) + end, encoding="utf-8")
        return path

    return write


TORN = '{"event": "training", "step": 9, "lo'
BEGUN = [("started", 0), ("training", 1), ("evaluation", 1), ("training", 2)]


def test_what_was_appended_is_read(tmp_path):
    log = JsonlLog(tmp_path / "run")
    log.append("started", {"step": 0, "note": "Zürich"})
    log.append("training", {"step": 1, "loss": 0.1})
    assert read_metrics(log.path) == [
        {"event": "started", "step": 0, "note": "Zürich"},
        {"event": "training", "step": 1, "loss": 0.1},
    ]


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_last_line_cut_by_a_kill_is_passed_over(write, end):
    assert steps(write(*BEGUN, TORN, end=end)) == BEGUN
    assert steps(write(*BEGUN, end=end)) == BEGUN
    assert steps(write(TORN, end=end)) == []


@pytest.mark.parametrize("cut", range(1, 30))
def test_wherever_a_line_is_cut_the_lines_before_it_are_read(write, cut):
    whole = json.dumps({"event": "training", "step": 9, "loss": 0.5, "note": "Zürich"}, ensure_ascii=False)
    path = write(*BEGUN, end="\n")
    with path.open("ab") as file:
        file.write(whole.encode()[:cut])
    assert steps(path) == BEGUN


def test_a_resumed_training_reads_as_an_uninterrupted_one(write):
    rest = [("training", 3), ("evaluation", 3), ("learning_rate_cut", 3), ("training", 4)]
    whole = steps(write(*BEGUN, *rest))
    killed = write(*BEGUN, ("training", 3), TORN, ("resumed", 1), ("training", 2), *rest)
    assert [event for event in steps(killed) if event[0] != "resumed"] == whole
    # Killed twice, the second time while it said that it goes on.
    again = write(
        *BEGUN,
        ("resumed", 1),
        ("training", 2),
        *rest,
        TORN,
        '{"event": "resu',
        ("resumed", 3),
        ("training", 4),
    )
    assert [event for event in steps(again) if event[0] != "resumed"] == whole


def test_what_lies_at_the_step_of_the_checkpoint_stays(write):
    path = write(*BEGUN, ("learning_rate_cut", 2), ("resumed", 2), ("training", 3))
    assert steps(path) == [*BEGUN, ("learning_rate_cut", 2), ("resumed", 2), ("training", 3)]


def test_a_training_that_was_begun_again_is_the_one_that_is_read(write):
    """Also after a kill before the first checkpoint, where there was nothing to go on from."""
    assert steps(write(*BEGUN, TORN, ("started", 0), ("training", 1))) == [("started", 0), ("training", 1)]


@pytest.mark.parametrize("damaged", [TORN, "[1, 2]", '{"step": 3}', "\x00\x00"])
def test_a_damaged_line_that_no_kill_explains_is_named(write, damaged):
    path = write(*BEGUN, damaged, ("training", 3))
    with pytest.raises(IntegrityError, match="damaged") as caught:
        read_metrics(path)
    assert f"{path}:5" in str(caught.value)


def test_a_log_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InvalidInput, match="no log"):
        read_metrics(tmp_path / "metrics.jsonl")


@pytest.mark.parametrize("clock", [SystemClock(), FakeClock()])
def test_clock_gives_utc_with_seconds(clock):
    now = clock.now()
    assert len(now) == len("2025-01-02T03:04:05+00:00")
    assert now.endswith("+00:00")
