"""What objectives and monitoring cost in time, as a section of a page.

    python -m benchmarks.objective_overhead --data DATA --write docs/objectives.md

All sides of a part take turns, and a ratio is that of two turns of the same round, so that a slow moment of
the machine meets both.  Linux only.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from benchmarks.llm_measuring import Worker, command, machine, take_turns, write_section
from benchmarks.objective_tasks import Rows, load_rows
from benchmarks.objectives_study import PAGE
from scipy.special import log_softmax

from finetune.application.training_metrics import measure_validation

WEIGHT = 0.5
# Of a whole training: enough for several evaluations, so few that it takes seconds.
TRAINED, EPOCHS, EVALUATIONS = 640, 2, 2


class Shape(NamedTuple):
    """What steps are taken with: in words, and how many rows a step has."""

    text: str
    rows: int


# With 77 labels in the tree of each row, few rows are as many tokens.
SHAPES = {
    "demo": Shape("token trees of the demo's messages, 6 outcomes, the embedded model", 32),
    "banking77": Shape(
        "token trees of Banking77, 77 labels that the instruction does not list, the embedded model, whose "
        "tokeniser knows few of their words",
        8,
    ),
    "encoder": Shape("Banking77, 77 labels, all-MiniLM-L6-v2 as an encoder", 32),
}
ANSWER, BASELINE = "the answer's loss alone", "cross-entropy of the label"
OBJECTIVES: dict[str, Mapping[str, Any]] = {
    ANSWER: {"weight": 0.0},
    BASELINE: {"name": "cross_entropy", "weight": WEIGHT},
    "label smoothing": {"name": "cross_entropy", "weight": WEIGHT, "label_smoothing": 0.05},
    "focal": {"name": "focal", "weight": WEIGHT},
    "abstention-aware": {"name": "abstention", "weight": WEIGHT},
    "expected cost": {"name": "expected_cost", "weight": WEIGHT},
    "conformal training": {"name": "conformal", "weight": WEIGHT},
}
UNWATCHED, WATCHED = "not monitored", "monitored"
MONITORING = {UNWATCHED: False, WATCHED: True}
TITLE = "What monitoring and objectives cost"
WANTED = 1.05
# The first turns make what is made once.
WARM_UP = 2
LIMIT = 600.0
TEXT = """\
{written} {machine}

Ratios of times: the median over {steps} steps or {trainings} trainings, and in brackets the middle half of
them. Sides are processes of their own with {threads} and take turns; a ratio is that of two turns of one
round. Wall time is what one waits for; processor time is disturbed less by what else runs.

{shapes}

Steps with an objective, which has half of the loss, against cross-entropy of the same label probabilities
with the same weight:

{objectives}

Steps with cross-entropy of the label against steps without an objective: what it costs to run the tokens of
all labels with each row, as any objective needs on a language model. An encoder has the label probabilities
anyway.

{labels}

Trainings of {trained} rows, {epochs} epochs with {evaluations} evaluations each, with
`calibration_monitoring.enabled` against without:

{monitoring}

{verdict}
"""

Pieces = Sequence[Mapping[str, Any]]


class Spread(NamedTuple):
    """Median of ratios, and the ends of the middle half."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


def main() -> None:
    options = _options()
    written = f"Written by {command()}.".replace(f"--data {options.data}", "--data DATA")
    found = {shape: steps(shape, options) for shape in options.shapes}
    watched = {shape: trainings(shape, options) for shape in options.shapes if shape != "banking77"}
    objectives = [name for name in OBJECTIVES if name not in (ANSWER, BASELINE)]
    text = TEXT.format(
        written=written,
        machine=machine(("torch", "transformers", "peft", "accelerate")),
        steps=options.steps,
        trainings=options.trainings,
        threads=f"{options.threads} thread{'s' if options.threads > 1 else ''}",
        shapes="\n".join(
            f"- *{shape}*: {SHAPES[shape].text}, {SHAPES[shape].rows} rows a step."
            for shape in options.shapes
        ),
        objectives=table(found, objectives, BASELINE),
        labels=table(found, [BASELINE], ANSWER),
        trained=TRAINED,
        epochs=EPOCHS,
        evaluations=EVALUATIONS,
        monitoring=table(watched, [WATCHED], UNWATCHED),
        verdict="\n".join(
            [
                *verdict(found, objectives, BASELINE),
                *verdict(watched, [WATCHED], UNWATCHED),
                *(measuring(shape, options.data) for shape in watched),
            ]
        ),
    )
    print(text)
    if options.write:
        write_section(options.write, TITLE, text, PAGE)


def steps(shape: str, options: argparse.Namespace) -> dict[str, Pieces]:
    """Let all objectives take steps in turn; the measured steps of each."""
    total = WARM_UP + options.steps
    sides = [name for name in OBJECTIVES if name != ANSWER or shape != "encoder"]
    return _turns("steps", shape, sides, total, WARM_UP, options, str(total))


def trainings(shape: str, options: argparse.Namespace) -> dict[str, Pieces]:
    """Let trainings with and without monitoring take turns."""
    return _turns("trainings", shape, [UNWATCHED, WATCHED], 1 + options.trainings, 1, options)


def shape_rows(shape: str, data: Path) -> Rows:
    """Return the rows of a shape, those of the study's first seed."""
    return load_rows("demo" if shape == "demo" else "banking77", "clean", 0, data)


def spread(pieces: Pieces, others: Pieces, value: str) -> Spread:
    """Return the ratios of a value between pieces of the same round, summed up.

    Examples
    --------
    >>> ones, twos = [{"wall": 1.0}] * 3, [{"wall": 2.0}] * 3
    >>> print(spread(twos, ones, "wall"))
    2.000 (2.000 to 2.000)
    """
    ratios = [piece[value] / other[value] for piece, other in zip(pieces, others, strict=True)]
    low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75]).tolist()
    return Spread(median, low, high)


def verdict(found: Mapping[str, Mapping[str, Pieces]], sides: Sequence[str], reference: str) -> list[str]:
    """Say of each shape which side takes longest, beside what was wanted."""
    lines = []
    for shape, pieces in found.items():
        spreads = {side: spread(pieces[side], pieces[reference], "processor") for side in sides}
        longest = max(spreads, key=lambda side: spreads[side].median)
        lines.append(
            f"- {shape}: *{longest}* takes {spreads[longest].median:.3f} of the processor time of "
            f"*{reference}* (wanted: less than {WANTED:g})."
        )
    return lines


def measuring(shape: str, data: Path) -> str:
    """Say how long it takes to measure at an evaluation, which does not depend on the monitoring."""
    rows = shape_rows(shape, data)
    n, k = len(rows.parts["validation"]), len(rows.labels.label_set().outcomes)
    rng = np.random.default_rng(0)
    log_probs, truth = log_softmax(rng.normal(size=(n, k)), axis=1), rng.integers(0, k, size=n)
    best = math.inf
    for _ in range(10):
        start = time.perf_counter()
        measure_validation(log_probs, truth)
        best = min(best, time.perf_counter() - start)
    return (
        f"- {shape}: all that is measured at an evaluation, monitored or not, takes {1e3 * best:.1f} ms for "
        f"the {k} probabilities of {n:,} rows."
    )


def _turns(
    kind: str,
    shape: str,
    sides: Sequence[str],
    rounds: int,
    dropped: int,
    options: argparse.Namespace,
    *arguments: str,
) -> dict[str, Pieces]:
    workers = {
        side: Worker(
            ["benchmarks.objective_sides", kind, shape, side, *arguments, str(options.data.resolve())],
            options.threads,
        )
        for side in sides
    }
    found, problems = take_turns(workers, rounds, LIMIT)
    if problems:
        raise SystemExit(f"{shape}: {problems}")
    for side, pieces in found.items():
        losses = [next(value for key, value in piece.items() if "loss" in key) for piece in pieces]
        seconds = math.fsum(piece["wall"] for piece in pieces) / len(pieces)
        print(
            f"{shape}, {side}: {seconds:.2f} s a turn, loss {losses[0]:.4f} to {losses[-1]:.4f}", flush=True
        )
    return {side: pieces[dropped:] for side, pieces in found.items()}


def table(found: Mapping[str, Mapping[str, Pieces]], sides: Sequence[str], reference: str) -> str:
    """Return the spreads of sides against a reference, for the shapes that have both."""
    lines = ["| | | wall | processor |", "| --- | --- | ---: | ---: |"]
    for shape, pieces in found.items():
        for side in sides:
            if side in pieces and reference in pieces:
                wall, processor = (
                    spread(pieces[side], pieces[reference], value) for value in ("wall", "processor")
                )
                lines.append(f"| {shape} | {side} | {wall} | {processor} |")
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.objective_overhead", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with banking77/")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--steps", type=int, default=20, help="measured steps of each side")
    parser.add_argument("--trainings", type=int, default=6, help="measured trainings of each side")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", type=Path, help="a Markdown file for the section")
    return parser.parse_args()


if __name__ == "__main__":
    main()
