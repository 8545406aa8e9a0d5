"""Objectives of training, calibration maps and backends against one another, as sections of a page.

    python -m benchmarks.objectives_study --data DATA --write docs/objectives.md

trains and measures every cell (task, condition, objective, seed) that the file of results does not have yet,
each in a process of its own, whole seeds first; each finished cell is a line of the file.  Then it writes the
tables of all that is there.  Without --data nothing is trained.  What stands in the page outside the sections
of this command stays as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from benchmarks.llm_measuring import ROOT, command, machine, write_section
from benchmarks.objective_cells import OBJECTIVES, Cell, cells, fingerprint, parse_cell, run
from benchmarks.objective_measures import ALPHA, BINS, CHECKED, DECIDABLE, DELTA, KEPT
from benchmarks.objective_tables import LEVEL, NAMES, Results, section, seeds_text
from benchmarks.objective_tasks import CONDITIONS, IMBALANCE, NOISE, TASKS

from finetune.adapters.embedded.messages import labels_document
from finetune.application.labels_file import LabelsFile

RESULTS = ROOT / "benchmarks" / "results" / "objectives.jsonl"
SEEDS = 5
PAGE = """\
# Objectives

What training can be told to minimise, and what that does to probabilities and decisions.
"""
METHOD_TITLE = "How the objectives were measured"
METHOD = """\
{written} {machine} Without `--data` the command writes the tables anew.

Each seed draws its rows; all objectives and maps of a seed see the same ones, and differences are taken
seed by seed. Everything is mean ± half of the {level:.0%} t-interval over seeds: what another draw of rows
and another training would change, on these test rows. Each table has dozens of intervals, of which some
leave out 0 by chance.

- **Tasks.** {tasks}
- **{noise_name}.** {noise:.0%} of the labels of training *and* validation rows are replaced by another one,
  drawn evenly; calibration and test rows keep theirs. Whoever has wrong labels has them also in the rows
  that choose the epoch and the map, while a promise needs some hundred rows that somebody checked.
  "{checked}" is the map that checked labels of the validation rows would give.
- **{imbalance_name}.** Training rows are left out until label frequencies fall geometrically, by a factor
  of {imbalance:g} from the most to the least frequent. All other rows stay: training and use differ in how
  frequent labels are, which a map may mend.
- **Objectives.** Their options are the defaults but where named. On the encoder, expected cost and conformal
  training have half of the loss and all others the whole. On the demo, plain cross-entropy is the loss of
  all answer tokens, rationale included; the others have half of the loss, "{label_name}" among them, which
  tells what an objective does from what the weight does. The epoch of the lowest validation log loss is
  kept, whatever the objective.
- **Measures.** All on test rows. ECE of the likeliest label in {bins} bins of equal width; Brier score
  summed over labels; AURC: mean error among the surest rows; LAC sets at {alpha:g}; "answered at risk r"
  under a promise that holds with probability {sure:.0%} over calibration rows. Cost is that of the decision
  of least expected cost: an error costs 1 and handing over {abstain:g}; on the demo, whose labels file says
  so, an error up to {dearest:g}. Sets and thresholds are each calibrated on all calibration rows.
- **Out of scope** (CLINC150). The share of the questions out of scope that falls below what {kept:.0%} of the
  test rows in scope have.
- **Posterior** (the demo). Distance is total variation, divergence that of Kullback and Leibler, from the
  probabilities that the labels were drawn from. Undecidable is a message whose likeliest label has less than
  {decidable:g}. *The posterior itself* stands for a model that knows it, which is beaten by chance only.
"""
_HEAD = "a head that begins from {head_start} and learns {head_rate:g} times as fast, "
TEXT = """\
{seeds}; {rows} rows of training, validation, calibration and test.

{tables}
"""


def main() -> int:
    options = _options()
    if options.cell is not None:
        append(options.results, run(options.cell, options.data))
        return 0
    failed = []
    if options.data is not None:
        failed = study(options)
    if options.write:
        write_page(options)
    for cell, complaint in failed:
        print(f"{cell} failed: {complaint}", file=sys.stderr)
    return 1 if failed else 0


def study(options: argparse.Namespace) -> list[tuple[Cell, str]]:
    """Do the cells that are not there yet; return those that failed, with what they complained of."""
    mend(options.results)
    lines = read(options.results)
    wanted = list(cells(options.tasks, options.conditions, options.objectives, range(options.seeds)))
    waiting = missing(wanted, lines)
    print(f"{len(wanted) - len(waiting)} of {len(wanted)} cells are there already", flush=True)
    spent: dict[str, list[float]] = defaultdict(list)
    for line in lines:
        spent[line["task"]].append(line["seconds"])
    running: dict[subprocess.Popen[bytes], tuple[Cell, IO[bytes], float]] = {}
    failed: list[tuple[Cell, str]] = []
    done = 0
    try:
        while waiting or running:
            while waiting and len(running) < options.jobs:
                cell = waiting.pop(0)
                complaints = tempfile.TemporaryFile()  # noqa: SIM115  Closed when the cell has ended.
                running[_start(cell, options, complaints)] = (cell, complaints, time.monotonic())
            time.sleep(0.2)
            for process in [process for process in running if process.poll() is not None]:
                cell, complaints, began = running.pop(process)
                complaints.seek(0)
                said = complaints.read().decode(errors="replace").strip().splitlines()
                complaints.close()
                done += 1
                seconds = time.monotonic() - began
                if process.returncode:
                    failed.append((cell, said[-1] if said else f"status {process.returncode}"))
                else:
                    spent[cell.task].append(seconds)
                left = time_left([c.task for c in [*waiting, *(c for c, _, _ in running.values())]], spent)
                print(
                    f"{done} of {done + len(waiting) + len(running)}: {cell} "
                    f"{'failed' if process.returncode else 'took'} {seconds:.0f} s; "
                    f"about {_hours(left / options.jobs)} left",
                    flush=True,
                )
    finally:
        for process in running:
            process.terminate()
    return failed


def missing(wanted: Sequence[Cell], lines: Sequence[Mapping[str, Any]]) -> list[Cell]:
    """Return the cells without a line.

    Raises
    ------
    SystemExit
        A line has other settings than its cell has now: the tables would mix them.
    """
    there = {Cell(line["task"], line["condition"], line["objective"], line["seed"]): line for line in lines}
    stale = [str(cell) for cell in wanted if cell in there and there[cell]["settings"] != fingerprint(cell)]
    if stale:
        raise SystemExit(
            f"{len(stale)} results are of other settings, {stale[0]} among them; "
            "remove their lines or choose another file with --results"
        )
    return [cell for cell in wanted if cell not in there]


def time_left(tasks: Sequence[str], spent: Mapping[str, Sequence[float]]) -> float:
    """Return the seconds that cells of these tasks take one after another, by those that were done."""
    every = [seconds for times in spent.values() for seconds in times]
    usual = sum(every) / len(every) if every else 0.0
    return sum(sum(spent[task]) / len(spent[task]) if spent.get(task) else usual for task in tasks)


def append(results: Path, line: Mapping[str, Any]) -> None:
    """Add a line in one write, so that two processes cannot mix theirs."""
    results.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(line, separators=(",", ":"), allow_nan=False) + "\n"
    file = os.open(results, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


def read(results: Path) -> list[dict[str, Any]]:
    """Return the lines of a file, which need not be there."""
    if not results.is_file():
        return []
    lines = []
    for number, line in enumerate(results.read_text(encoding="utf-8").splitlines(), 1):
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise SystemExit(f"line {number} of {results.name} is no result: {error}") from error
    return lines


def mend(results: Path) -> None:
    """Cut off a last line that was not written to its end."""
    if results.is_file():
        whole = results.read_bytes()
        kept = whole[: whole.rfind(b"\n") + 1]
        if kept != whole:
            print(f"{len(whole) - len(kept)} bytes of a torn last line are cut off", flush=True)
            results.write_bytes(kept)


def write_page(options: argparse.Namespace) -> None:
    """Write the sections of all that is in the file of results."""
    results = Results(read(options.results))
    # Where files lie is nobody's business but this machine's.
    written = f"Written by {command()}.".replace(f"--results {options.results}", "--results RESULTS")
    written = written.replace(f"--data {options.data}", "--data DATA")
    written = method(written, machine(("torch", "transformers", "peft", "accelerate")))
    write_section(options.write, METHOD_TITLE, written, PAGE)
    for task in TASKS:
        for condition, name in CONDITIONS.items():
            if (task, condition) in results.parts():
                text = TEXT.format(
                    seeds=seeds_text(results, task, condition),
                    rows=", ".join(f"{count:,}" for count in results.rows(task, condition).values()),
                    tables=section(results, task, condition),
                )
                write_section(options.write, f"{TASKS[task].title}: {name}", text)


def method(written: str, measured: str) -> str:
    """Say how everything was measured, after the command that wrote it and the machine."""
    tasks = []
    for task in TASKS.values():
        training, encoder = task.settings["training"], task.settings["backend"] == "encoder"
        drawn = [f"{count:,} for {part}" for draws in task.draws.values() for part, count in draws.items()]
        tasks.append(
            f"*{task.title}*: {'all-MiniLM-L6-v2 as an encoder' if encoder else 'the embedded model'}; "
            f"{', '.join(drawn)}{' of each label' if encoder else ''}; "
            f"r = {task.settings['lora']['r']}, learning rate {training['learning_rate']:g}, "
            f"{_HEAD.format(**task.settings['encoder']) if encoder else ''}"
            f"{training['epochs']} epochs of batches of {training['per_device_batch_size']}."
        )
    costs = LabelsFile.model_validate(labels_document()).costs
    return METHOD.format(
        written=written,
        machine=measured,
        level=LEVEL,
        tasks=" ".join(tasks),
        noise_name=CONDITIONS["noise"].capitalize(),
        noise=NOISE,
        checked=CHECKED,
        imbalance_name=CONDITIONS["imbalance"].capitalize(),
        imbalance=IMBALANCE,
        bins=BINS,
        alpha=ALPHA,
        sure=1 - DELTA,
        abstain=costs.abstain,
        dearest=max(max(row.values()) for row in costs.pairs.values()),
        label_name=NAMES["label_cross_entropy"],
        kept=KEPT,
        decidable=DECIDABLE,
    )


def _start(cell: Cell, options: argparse.Namespace, complaints: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            *(sys.executable, "-W", "ignore", "-m", "benchmarks.objectives_study", "--cell", str(cell)),
            *("--data", str(options.data.resolve()), "--results", str(options.results.resolve())),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=complaints,
    )


def _hours(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.objectives_study", description=__doc__)
    parser.add_argument(
        "--data", type=Path, help="folder with banking77/ and clinc150/; without it nothing is run"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="a line for each cell")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=list(CONDITIONS))
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES))
    parser.add_argument("--seeds", type=int, default=SEEDS, help="so many, from 0 on")
    parser.add_argument("--jobs", type=int, default=2, help="cells at a time, with one thread each")
    parser.add_argument("--cell", type=parse_cell, help="train this one here: task/condition/objective/seed")
    parser.add_argument("--write", type=Path, help="a Markdown file for the sections")
    options = parser.parse_args()
    if options.cell is not None and options.data is None:
        parser.error("--cell needs --data")
    return options


if __name__ == "__main__":
    raise SystemExit(main())
