"""Time and memory of this package against plain numpy and the peers, as a Markdown table.

    make benchmarks

runs this in the peers' environment.  See ``--help`` for parts of it.  Linux only: it reads peaks from /proc.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shlex
import statistics
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
from benchmarks.measuring import Measurement, measure, too_slow
from benchmarks.sides import ALPHA, CHECKED, K_REG, N_BINS, NUMPY, OURS, PENALTY, TASKS

SHAPES = ("10000x10", "10000x100", "100000x100", "1000000x10", "1000000x100")
PACKAGES = ("numpy", "scipy", "torch", "torchcp", "mapie", "crepes", "torchmetrics", "netcal", "scikit-learn")
# How many times as fast as the fastest peer, from how many rows and labels on; elsewhere as fast.
WANTED = {"aps": 8.0, "raps": 8.0, "lac": 4.0, "ece": 4.0}
LARGE = (100_000, 100)
TOO_SLOW = "too slow before"

Results = dict[str, Measurement | str]

PAGE = """\
# Benchmarks

Written by `python -m benchmarks {arguments}` on {date}. The numbers hold
for one machine: {processor}, {cores} cores, {system}, Python {python}; {versions}.

Calibrate on n rows and predict for n others (rows x labels, float32 probabilities, alpha = {alpha:g}; RAPS
with penalty {penalty:g} and k_reg {k_reg}), or take the ECE of n rows ({n_bins} bins).

- Each number is the median over {repeats} processes, each side in turn. A process warms up on a few rows and
  gives the best of its runs. Threads are as each library sets them by default.
- No peer looks whether its rows are probabilities. This package reads all of them for that, unless they are
  `CheckedRows`, made once for all that uses them: that is the second line of each shape.
- Tensors and wrappers are made before the clock starts. What takes over {limit:g} s is cut off, and left out
  of larger shapes.
- Extra memory is the growth of the peak of resident memory in the first run, with the output in it.
- The result is the mean of the sets (labels in a set / labels), or the ECE. Ours differs from that of plain
  APS in the likeliest label, which is in every set ([0011](adr/0011-aps-ties.md)). MAPIE draws random numbers
  in calibration whatever is asked for, and its RAPS looks for a penalty on a fifth of the rows.

"""


def main() -> None:
    options = _options()
    lines = []
    for task in options.tasks:
        lines += [f"## {task}", ""]
        lines += [
            "| shape | side | wall ms | processor ms | extra MB | time : ours | memory : ours | result |"
        ]
        lines += ["| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
        given_up: set[str] = set()
        verdicts = []
        for shape in options.shapes:
            n, n_labels = map(int, shape.split("x"))
            sides = [side for side in TASKS[task] if options.sides is None or side in options.sides]
            with tempfile.TemporaryDirectory() as folder:
                write_input(Path(folder), n, n_labels)
                results = alternate(task, sides, Path(folder), options.repeats, options.limit, given_up)
            given_up |= {
                side for side, found in results.items() if found in (TOO_SLOW, too_slow(options.limit))
            }
            lines += rows(shape, results)
            verdicts += verdict(task, n, n_labels, results)
            print("\n".join(rows(shape, results) + verdict(task, n, n_labels, results)), flush=True)
        lines += ["", *verdicts, ""]
    page = "\n".join([*header(options), *lines])
    print("\n" + page)
    if options.write:
        options.write.write_text(page, encoding="utf-8")


def write_input(folder: Path, n: int, n_labels: int) -> None:
    """Float32 probabilities of an overconfident model, to calibrate on and to predict for."""
    rng = np.random.default_rng([n, n_labels])
    for name in ("cal", "new"):
        rows = np.empty((n, n_labels), dtype=np.float32)
        labels = np.empty(n, dtype=np.int64)
        for start in range(0, n, 100_000):
            block = slice(start, start + 100_000)
            logits = rng.standard_normal(rows[block].shape, dtype=np.float32)
            logits += (
                4.0 * (rng.random(len(logits))[:, None] < 0.7) * (logits == logits.max(1, keepdims=True))
            )
            noise = rng.gumbel(size=logits.shape)
            labels[block] = (logits + noise).argmax(axis=1)
            weights = np.exp(1.5 * logits)
            rows[block] = weights / weights.sum(axis=1, keepdims=True)
        np.save(folder / f"{name}.npy", rows)
        np.save(folder / f"{name}_labels.npy", labels)


def alternate(
    task: str, sides: list[str], folder: Path, repeats: int, limit: float, given_up: set[str]
) -> Results:
    """Measure each side in turn, ``repeats`` times; the medians.  A side that was too slow is left out."""
    found: dict[str, list[Measurement]] = {side: [] for side in sides}
    words: dict[str, str] = dict.fromkeys(given_up & set(sides), TOO_SLOW)
    for _ in range(repeats):
        for side in sides:
            if side not in words:
                measured = measure(task, side, folder, limit)
                if isinstance(measured, str):
                    words[side] = measured
                else:
                    found[side].append(measured)
    return {
        side: words[side]
        if side in words
        else Measurement(*map(statistics.median, zip(*found[side], strict=True)))
        for side in sides
    }


def rows(shape: str, results: Results) -> list[str]:
    ours = results.get(OURS)
    lines = []
    for side, found in results.items():
        if isinstance(found, str):
            lines.append(f"| {shape} | {side} | {found} | | | | | |")
            continue
        ratios = ["", ""]
        if isinstance(ours, Measurement):
            ratios = [f"{found.wall / ours.wall:.1f}", f"{found.extra_memory / ours.extra_memory:.1f}"]
            if ours.extra_memory < 1e5:
                ratios[1] = ""  # what the operating system counts in is too coarse for that
        columns = [
            f"{1e3 * found.wall:.2f}",
            f"{1e3 * found.processor:.2f}",
            f"{found.extra_memory / 1e6:.1f}",
        ]
        lines.append("| " + " | ".join([shape, side, *columns, *ratios, f"{found.result:.6f}"]) + " |")
    return lines


def verdict(task: str, n: int, n_labels: int, results: Results) -> list[str]:
    """What was asked for, and what came out."""
    ours = results.get(OURS)
    if not isinstance(ours, Measurement):
        return []
    peers = {
        side: found.wall
        for side, found in results.items()
        if side not in (OURS, CHECKED, NUMPY) and isinstance(found, Measurement)
    }
    shape = f"{n}x{n_labels}"
    lines = []
    if not peers:
        lines.append(f"- {shape}: no peer came to an end.")
    else:
        fastest = min(peers, key=peers.__getitem__)
        large = n >= LARGE[0] and n_labels >= LARGE[1]
        text = f"- {shape}: {peers[fastest] / ours.wall:.1f} times as fast as {fastest}, the fastest peer"
        alike = results.get(CHECKED)
        if isinstance(alike, Measurement):
            text += f"; {peers[fastest] / alike.wall:.1f} times with rows checked before"
        lines.append(f"{text} (wanted: {WANTED.get(task, 1.0) if large else 1.0:g}).")
    allowed = n * n_labels * 4 / 4 + (0 if task == "ece" else n * n_labels)
    lines.append(
        f"- {shape}: {ours.extra_memory / 1e6:.1f} MB beside the input (wanted: at most {allowed / 1e6:.1f}, "
        "a quarter of the input and the output)."
    )
    return lines


def header(options: argparse.Namespace) -> list[str]:
    cpu_info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    name, family, model = (
        cpu_info.partition(f"\n{field}\t")[2].partition("\n")[0].lstrip("\t: ")
        for field in ("model name", "cpu family", "model")
    )
    return PAGE.format(
        arguments=shlex.join(sys.argv[1:]),
        date=datetime.date.today(),
        # The name alone may be that of several generations, on which ratios differ.
        processor=f"{name} (family {family}, model {model})",
        cores=os.cpu_count(),
        system=platform.system(),
        python=platform.python_version(),
        versions=", ".join(f"{name} {version(name)}" for name in PACKAGES),
        alpha=ALPHA,
        penalty=PENALTY,
        k_reg=K_REG,
        n_bins=N_BINS,
        repeats=options.repeats,
        limit=options.limit,
    ).splitlines()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="ROWSxLABELS")
    parser.add_argument("--sides", nargs="+", help="default: all of a task")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds after which a side is cut off")
    parser.add_argument("--write", type=Path, help="a Markdown file for the table")
    return parser.parse_args()


if __name__ == "__main__":
    main()
