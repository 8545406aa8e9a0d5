"""Every MetricsLog: each event on disk at once, none that cannot be read back."""

from __future__ import annotations

import json

import pytest
from tests.fakes import FakeClock, MemoryLog

from finetune.adapters.files.clock import SystemClock
from finetune.adapters.files.log import JsonlLog
from finetune.domain.errors import InvalidInput


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


@pytest.mark.parametrize("clock", [SystemClock(), FakeClock()])
def test_clock_gives_utc_with_seconds(clock):
    now = clock.now()
    assert len(now) == len("2025-01-02T03:04:05+00:00")
    assert now.endswith("+00:00")
