"""Time and memory of one side of one task, in a process of its own.

    python -m benchmarks.measuring TASK SIDE FOLDER

prints ``ready`` when everything is prepared, runs the side, and prints what it measured as JSON.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from benchmarks.sides import TASKS, Side

ROOT = Path(__file__).parents[1]
# Enough for every path through the code: pages of a library that are first touched later would be counted as
# memory of the method.
WARM_UP_ROWS = 5000
# Seconds within which a side runs again and again, and how long the least number of its runs may take.
REPEAT_WITHIN, REPEAT_LEAST, REPEAT_AT_MOST = 0.5, 3, 10.0


class Measurement(NamedTuple):
    """One process: the best of its repeats, in seconds and bytes; ``result`` tells whether sides agree."""

    wall: float
    processor: float
    extra_memory: int
    result: float


def measure(task: str, side: str, folder: Path, limit: float) -> Measurement | str:
    """Measure in a fresh process; a word instead of the numbers if it takes too long or fails."""
    # As each library does it by default: the number of threads is left to it.
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.measuring", task, side, str(folder)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        if process.stdout.readline() == "ready\n":
            try:
                printed, complaint = process.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                process.kill()
                return too_slow(limit)
            if process.returncode == 0:
                return Measurement(**json.loads(printed))
        else:
            complaint = process.communicate()[1]
    return "failed: " + (complaint.strip().splitlines() or ["killed"])[-1]


def too_slow(limit: float) -> str:
    """Say that a side was cut off."""
    return f"> {limit:g} s"


def run_here(task: str, side: str, folder: Path) -> Measurement:
    """Measure in this process."""
    arrays = [np.load(folder / f"{name}.npy") for name in ("cal", "cal_labels", "new", "new_labels")]
    make: Side = TASKS[task][side]
    # Lazy imports and pools of threads: once per process, and none of the method's cost.
    make(*(array[:WARM_UP_ROWS] for array in arrays))()
    run = make(*arrays)
    gc.collect()
    print("ready", flush=True)
    before = _reset_peak()
    best, spent, output = (float("inf"), float("inf")), 0.0, None
    extra = 0
    runs = 0
    while spent < REPEAT_WITHIN or (runs < REPEAT_LEAST and spent < REPEAT_AT_MOST):
        output = None
        runs += 1
        start = (time.perf_counter(), time.process_time())
        output = run()
        times = (time.perf_counter() - start[0], time.process_time() - start[1])
        extra = extra or max(_peak() - before, 1)
        best, spent = min(best, times), spent + times[0]
    return Measurement(*best, extra, float(np.mean(np.asarray(output))))


def _reset_peak() -> int:
    """Set the high-water mark of resident memory back to what is resident, and return that."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak()


def _peak() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    print(json.dumps(run_here(sys.argv[1], sys.argv[2], Path(sys.argv[3]))._asdict()))
