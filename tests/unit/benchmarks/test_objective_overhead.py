from __future__ import annotations

import pytest
from benchmarks.objective_overhead import spread, table, verdict


def test_ratios_are_taken_turn_by_turn():
    slow = [{"processor": 2.2}, {"processor": 11.0}, {"processor": 1.1}]
    base = [{"processor": 2.0}, {"processor": 10.0}, {"processor": 1.0}]
    assert spread(slow, base, "processor") == pytest.approx((1.1, 1.1, 1.1))
    pieces = {"demo": {side: [{**p, "wall": 1.0} for p in x] for side, x in (("a", slow), ("b", base))}}
    assert "| demo | a | 1.000 (1.000 to 1.000) | 1.100 (1.100 to 1.100) |" in table(pieces, ["a"], "b")
    assert "*a* takes 1.100" in verdict(pieces, ["a"], "b")[0]
