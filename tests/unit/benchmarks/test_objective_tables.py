from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from benchmarks.objective_cells import Cell
from benchmarks.objective_tables import Results, difference, estimate, section, seeds_text
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t


def line(objective: str, seed: int, **values: float | None) -> dict[str, Any]:
    rows = {"train": 100 + seed, "validation": 10, "calibration": 20, "test": 30}
    maps = {"none": values, "temperature": dict(values)}
    return {**Cell("demo", "clean", objective, seed)._asdict(), "rows": rows, "maps": maps}


@settings(deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=8))
def test_the_interval_is_that_of_t(values):
    found = estimate(values)
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert found.half == pytest.approx(half, abs=1e-9)


def test_differences_are_taken_seed_by_seed():
    found = difference({0: 1.0, 1: 12.0, 2: 100.0}, {0: 0.5, 1: 11.5, 7: 0.0})
    assert found is not None
    assert (found.mean, found.half, found.n) == (0.5, 0.0, 2)
    assert found.away
    assert difference({0: 1.0}, {1: 1.0}) is None
    one = difference({0: 1.0}, {0: 0.0})
    assert one is not None
    assert not one.away


def test_tables_show_what_is_there():
    base = "label_cross_entropy"
    results = Results(
        [
            *(line(base, seed, accuracy=0.8, ece=0.02, **{"error_0.05": None}) for seed in range(3)),
            *(line("focal", seed, accuracy=0.7 + 0.001 * seed, ece=0.01) for seed in range(3)),
            line("conformal", 1, accuracy=0.9, **{"error_0.05": 0.03}),
        ]
    )
    text = section(results, "demo", "clean")
    assert "| focal, gamma 2 | 70.1 ± 0.2 | 1.0 ± 0.0 |" in text
    assert "| focal, gamma 2 | **-9.9 ± 0.2** | **-1.0 ± 0.0** |" in text
    # One seed has no interval.
    assert "| conformal training | 90.0 |" in text
    assert "| conformal training | +10.0 |" in text
    # A smaller calibration error is better.
    assert "| focal, gamma 2 | **1.0 ± 0.0** | **1.0 ± 0.0** |" in text
    assert seeds_text(results, "demo", "clean") == "3 seeds (fewer so far: conformal training 1)"
    assert results.rows("demo", "clean")["train"] == 101
    assert results.parts() == {("demo", "clean")}


def test_means_of_fewer_seeds_say_so():
    base = "label_cross_entropy"
    results = Results(line(base, seed, **{"error_0.1": None if seed else 0.05}) for seed in range(3))
    assert "| 5.0 (1 of 3) |" in section(results, "demo", "clean")
