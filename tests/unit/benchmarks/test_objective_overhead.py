from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.objective_overhead import MONITORING, OBJECTIVES, spread, table, verdict


def test_ratios_are_taken_turn_by_turn():
    slow = [{"processor": 2.2}, {"processor": 11.0}, {"processor": 1.1}]
    base = [{"processor": 2.0}, {"processor": 10.0}, {"processor": 1.0}]
    assert spread(slow, base, "processor") == pytest.approx((1.1, 1.1, 1.1))
    pieces = {"demo": {side: [{**p, "wall": 1.0} for p in x] for side, x in (("a", slow), ("b", base))}}
    assert "| demo | a | 1.000 (1.000 to 1.000) | 1.100 (1.100 to 1.100) |" in table(pieces, ["a"], "b")
    assert "*a* takes 1.100" in verdict(pieces, ["a"], "b")[0]


def test_sides_differ_in_nothing_but_what_is_measured(tmp_path):
    from benchmarks.objective_sides import steps_job, training_job

    steps = {side: steps_job("demo", side, 3, Path(), tmp_path).config for side in OBJECTIVES}
    assert len({config.fingerprint() for config in steps.values()}) == len(steps)
    assert len({config.model_copy(update={"objective": None}) for config in steps.values()}) == 1
    assert {config.chosen_objective.weight for config in steps.values()} == {0.0, 0.5}
    plain, watched = (training_job("demo", side, Path(), tmp_path).config for side in MONITORING)
    assert watched.calibration_monitoring.enabled
    assert not plain.calibration_monitoring.enabled
    section = {"calibration_monitoring": plain.calibration_monitoring}
    assert watched.model_copy(update=section) == plain
