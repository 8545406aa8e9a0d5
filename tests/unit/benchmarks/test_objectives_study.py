from __future__ import annotations

import argparse
import subprocess
import sys
from typing import Any

import pytest
from benchmarks import objectives_study
from benchmarks.objective_cells import (
    BASELINES,
    KNOWN,
    OBJECTIVES,
    Cell,
    cells,
    fingerprint,
    parse_cell,
    settings_of,
)
from benchmarks.objective_tables import NAMES
from benchmarks.objective_tasks import CONDITIONS, TASKS
from benchmarks.objectives_study import append, mend, missing, read, time_left

from finetune.application.config import ProjectConfig

CELL = Cell("demo", "clean", "focal", 0)


def line(cell: Cell, accuracy: float = 0.5) -> dict[str, Any]:
    rows = {"train": 100, "validation": 10, "calibration": 20, "test": 30}
    maps = {"none": {"accuracy": accuracy}, "temperature": {"accuracy": accuracy}}
    return {**cell._asdict(), "settings": fingerprint(cell), "rows": rows, "seconds": 60, "maps": maps}


def test_whole_seeds_come_first_and_objectives_where_they_belong():
    every = list(cells(list(TASKS), list(CONDITIONS), list(OBJECTIVES), range(2)))
    assert [cell.seed for cell in every] == sorted(cell.seed for cell in every)
    assert len(set(every)) == len(every)
    assert {cell.condition for cell in every if cell.objective == "balanced_weights"} == {"imbalance"}
    assert {cell.task for cell in every if cell.objective == KNOWN} == {"demo"}
    assert all(parse_cell(str(cell)) == cell for cell in every)
    assert all(BASELINES[cell.task] in {c.objective for c in every if c.task == cell.task} for cell in every)
    assert set(NAMES) == set(OBJECTIVES)


@pytest.mark.parametrize("cell", list(cells(list(TASKS), ["imbalance"], list(OBJECTIVES), [0])), ids=str)
def test_the_library_takes_the_settings_of_every_cell(cell):
    config = ProjectConfig.model_validate(settings_of(cell))
    assert config.training.seed == 0
    assert config.backend == TASKS[cell.task].settings["backend"]


def test_no_cell_has_the_fingerprint_of_another_objective():
    every = [c for c in cells(["demo"], ["imbalance"], list(OBJECTIVES), [0]) if c.objective != KNOWN]
    assert len({fingerprint(cell) for cell in every}) == len(every)


def test_only_missing_cells_are_done(tmp_path):
    file = tmp_path / "results" / "cells.jsonl"
    assert read(file) == []
    append(file, line(CELL))
    wanted = [CELL, CELL._replace(seed=1)]
    assert missing(wanted, read(file)) == [CELL._replace(seed=1)]


def test_a_torn_line_is_cut_off_and_its_cell_done_again(tmp_path):
    file = tmp_path / "cells.jsonl"
    append(file, line(CELL))
    whole = file.read_bytes()
    append(file, line(CELL._replace(seed=1)))
    file.write_bytes(file.read_bytes()[:-9])
    mend(file)
    assert file.read_bytes() == whole
    mend(file)
    assert file.read_bytes() == whole
    assert missing([CELL, CELL._replace(seed=1)], read(file)) == [CELL._replace(seed=1)]


def test_a_broken_line_elsewhere_is_an_error(tmp_path):
    file = tmp_path / "cells.jsonl"
    file.write_text('{"task": \n')
    with pytest.raises(SystemExit, match=r"line 1 of cells\.jsonl is no result"):
        read(file)


def test_results_of_other_settings_are_refused():
    with pytest.raises(SystemExit, match="demo/clean/focal/0"):
        missing([CELL], [{**line(CELL), "settings": "older"}])


def test_time_left_counts_each_task_by_its_own_cells():
    assert time_left(["a", "a", "b"], {"a": [10.0, 20.0], "b": [100.0]}) == pytest.approx(130.0)
    assert time_left(["new"], {"a": [10.0, 20.0]}) == pytest.approx(15.0)
    assert time_left(["new"], {}) == 0.0


def test_the_page_keeps_what_people_wrote(tmp_path, monkeypatch):
    results, page = tmp_path / "cells.jsonl", tmp_path / "page.md"
    cell = CELL._replace(objective="label_cross_entropy")
    append(results, line(cell, 0.8))
    command = ["objectives_study.py", "--results", str(results), "--write", str(page)]
    monkeypatch.setattr(sys, "argv", command)
    assert objectives_study.main() == 0
    page.write_text(page.read_text().replace("\n## ", "\n## What to use when\n\nBy hand.\n\n## ", 1))
    append(results, line(cell._replace(seed=1), 0.6))
    assert objectives_study.main() == 0
    text = page.read_text()
    assert "## What to use when\n\nBy hand.\n" in text
    assert text.count("## The demo: clean labels") == 1
    assert "2 seeds; 100, 10, 20, 30 rows" in text
    # Where the results lie is nobody's business.
    assert str(results) not in text


def test_a_study_goes_on_where_it_was_and_says_what_failed(tmp_path, monkeypatch, capsys):
    file, broken = tmp_path / "cells.jsonl", tmp_path / "broken"
    broken.touch()
    started = []

    def start(cell: Cell, options: Any, complaints: Any) -> subprocess.Popen[bytes]:
        started.append(cell.seed)
        fails = cell.seed == 1 and broken.exists()
        if not fails:
            append(file, line(cell))
        program = "raise SystemExit('no such model')" if fails else ""
        return subprocess.Popen([sys.executable, "-c", program], stderr=complaints)

    monkeypatch.setattr(objectives_study, "_start", start)
    options = argparse.Namespace(
        results=file, tasks=["demo"], conditions=["clean"], objectives=["focal"], seeds=3, jobs=2
    )
    assert objectives_study.study(options) == [(CELL._replace(seed=1), "no such model")]
    assert "demo/clean/focal/1 failed" in capsys.readouterr().out
    broken.unlink()
    assert objectives_study.study(options) == []
    assert started == [0, 1, 2, 1]
    assert "2 of 3 cells are there already" in capsys.readouterr().out
