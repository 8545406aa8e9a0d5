"""Tables of the study of objectives: means and intervals over seeds, and differences seed by seed."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from benchmarks.objective_cells import BASELINES, KNOWN, OBJECTIVES
from benchmarks.objective_measures import ALPHA, CHECKED, LEVELS, MAPS
from scipy.special import stdtrit

LEVEL = 0.95
OWN, REFERENCE = "none", "temperature"
NAMES = {
    "cross_entropy": "cross-entropy",
    "label_cross_entropy": "cross-entropy of the label",
    "label_smoothing": "label smoothing 0.05",
    "focal": "focal, gamma 2",
    "abstention": "abstention-aware",
    "expected_cost": "expected cost",
    "conformal": "conformal training",
    "balanced_weights": "cross-entropy, class weights",
    "balanced_sampling": "cross-entropy, balanced sampling",
    KNOWN: "*the posterior itself*",
}

Values = Mapping[int, float]
"""A number for each seed that has it."""


class Column(NamedTuple):
    """A measure: its key, its head, what it is multiplied by, digits, and whether greater is better."""

    key: str
    head: str
    scale: float
    digits: int
    greater: bool | None


_PER_CENT = 100.0
COLUMNS = (
    Column("accuracy", "accuracy, %", _PER_CENT, 1, True),
    Column("ece", "ECE, %", _PER_CENT, 1, False),
    Column("brier", "Brier", 1.0, 3, False),
    Column("log_loss", "log loss", 1.0, 3, False),
    Column("aurc", "AURC", 1.0, 4, False),
    Column("coverage", f"covered, % ({1 - ALPHA:.0%} promised)", _PER_CENT, 1, None),
    Column("size", "labels in a set", 1.0, 2, False),
    *(
        column
        for level in LEVELS
        for column in (
            Column(f"answered_{level:g}", f"answered at risk {level:.0%}, %", _PER_CENT, 1, True),
            Column(f"error_{level:g}", f"wrong at risk {level:.0%}, %", _PER_CENT, 1, None),
        )
    ),
    Column("cost", "cost", 1.0, 3, False),
    Column("foreign_mass", "out of scope caught by label mass, %", _PER_CENT, 1, True),
    Column("foreign_confidence", "out of scope caught by confidence, %", _PER_CENT, 1, True),
    Column("distance", "distance to the posterior", 1.0, 3, False),
    Column("undecidable_distance", "distance of undecidable messages", 1.0, 3, False),
    Column("undecidable_confidence", "their confidence above the posterior's", 1.0, 3, None),
    Column("divergence", "divergence from the posterior", 1.0, 3, False),
)
BY_MAP = ("ece", "log_loss", "size", "answered_0.1", "cost", "foreign_confidence", "distance")


class Estimate(NamedTuple):
    """Mean over ``n`` seeds, and half of its interval: infinite for one seed."""

    mean: float
    half: float
    n: int

    @property
    def away(self) -> bool:
        """Whether the interval leaves out 0."""
        return abs(self.mean) > self.half


class Results:
    """What stands in a file of results, by part of the study."""

    def __init__(self, lines: Iterable[Mapping[str, Any]]) -> None:
        self._found: dict[tuple[str, str], dict[str, dict[int, Mapping[str, Any]]]] = defaultdict(
            lambda: defaultdict(dict)
        )
        for line in lines:
            self._found[line["task"], line["condition"]][line["objective"]][line["seed"]] = line

    def parts(self) -> set[tuple[str, str]]:
        """Return the pairs of task and condition that have results."""
        return set(self._found)

    def objectives(self, task: str, condition: str) -> list[str]:
        """Return the objectives of a part, in the order of the study."""
        return [name for name in OBJECTIVES if name in self._found[task, condition]]

    def seeds(self, task: str, condition: str, objective: str) -> int:
        """Return how many seeds an objective has."""
        return len(self._found[task, condition][objective])

    def values(self, task: str, condition: str, objective: str, map_name: str, key: str) -> Values:
        """Return a measure by seed, where it is there."""
        found = {
            seed: line["maps"].get(map_name, {}).get(key)
            for seed, line in self._found[task, condition][objective].items()
        }
        return {seed: value for seed, value in found.items() if value is not None}

    def maps(self, task: str, condition: str) -> list[str]:
        """Return the maps of a part."""
        there = {
            name
            for cell in self._found[task, condition].values()
            for x in cell.values()
            for name in x["maps"]
        }
        return [name for name in (*MAPS, CHECKED) if name in there]

    def rows(self, task: str, condition: str) -> Mapping[str, int]:
        """Return how many rows each part of the data had, on average over the seeds."""
        cells = [line["rows"] for cell in self._found[task, condition].values() for line in cell.values()]
        return {part: round(sum(rows[part] for rows in cells) / len(cells)) for part in cells[0]}


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean with its t-interval.

    Examples
    --------
    >>> estimate([1.0, 2.0, 3.0])
    Estimate(mean=2.0, half=2.484..., n=3)
    """
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(mean, math.inf, 1)
    quantile = float(stdtrit(n - 1, 0.5 + LEVEL / 2))
    return Estimate(mean, quantile * float(np.std(values, ddof=1)) / math.sqrt(n), n)


def difference(values: Values, others: Values) -> Estimate | None:
    """Return the mean of the differences of the seeds that both have; None without any."""
    both = sorted(set(values) & set(others))
    return estimate([values[seed] - others[seed] for seed in both]) if both else None


def section(results: Results, task: str, condition: str) -> str:
    """Return the tables of a task under a condition."""
    objectives = results.objectives(task, condition)
    columns = [
        column
        for column in COLUMNS
        if any(results.values(task, condition, name, OWN, column.key) for name in objectives)
    ]
    maps, baseline = results.maps(task, condition), NAMES[BASELINES[task]]
    parts = ["What the models give, without any map:", _table(results, task, condition, objectives, columns)]
    if BASELINES[task] in objectives:
        parts += [
            f"The same, less {baseline} with the same seed; **bold** where the interval leaves out 0:",
            _differences(results, task, condition, objectives, columns),
            f"Map by map; **bold** is better than {baseline} with temperature scaling, *italics* worse:",
        ]
    else:
        parts.append("Map by map:")
    parts += [
        _maps(results, task, condition, objectives, maps, column)
        for column in columns
        if column.key in BY_MAP
    ]
    return "\n\n".join(parts)


def seeds_text(results: Results, task: str, condition: str) -> str:
    """Say how many seeds there are."""
    counts = {name: results.seeds(task, condition, name) for name in results.objectives(task, condition)}
    least, most = min(counts.values()), max(counts.values())
    if least == most:
        return f"{most} seed{'s' if most > 1 else ''}"
    few = ", ".join(f"{NAMES[name]} {count}" for name, count in counts.items() if count < most)
    return f"{most} seeds (fewer so far: {few})"


def _table(
    results: Results, task: str, condition: str, objectives: Sequence[str], columns: Sequence[Column]
) -> str:
    def cell(objective: str, column: Column) -> str:
        values = results.values(task, condition, objective, OWN, column.key)
        if not values:
            return ""
        found = estimate(list(values.values()))
        return _number(found, column) + _fewer(found.n, results.seeds(task, condition, objective))

    return _markdown(
        ["objective", *(column.head for column in columns)],
        [[NAMES[name], *(cell(name, column) for column in columns)] for name in objectives],
    )


def _differences(
    results: Results, task: str, condition: str, objectives: Sequence[str], columns: Sequence[Column]
) -> str:
    baseline = BASELINES[task]

    def cell(objective: str, column: Column) -> str:
        found = difference(
            results.values(task, condition, objective, OWN, column.key),
            results.values(task, condition, baseline, OWN, column.key),
        )
        if found is None:
            return ""
        text = _number(found, column, sign="+")
        return f"**{text}**" if found.away else text

    others = [name for name in objectives if name not in (baseline, KNOWN)]
    return _markdown(
        ["objective", *(column.head for column in columns)],
        [[NAMES[name], *(cell(name, column) for column in columns)] for name in others],
    )


def _maps(
    results: Results,
    task: str,
    condition: str,
    objectives: Sequence[str],
    maps: Sequence[str],
    column: Column,
) -> str:
    reference = results.values(task, condition, BASELINES[task], REFERENCE, column.key)

    def cell(objective: str, map_name: str) -> str:
        values = results.values(task, condition, objective, map_name, column.key)
        if not values:
            return ""
        text = _number(estimate(list(values.values())), column)
        found = difference(values, reference)
        if found is None or not found.away or objective == KNOWN:
            return text
        return f"**{text}**" if (found.mean > 0) == column.greater else f"*{text}*"

    return _markdown(
        [column.head, *maps],
        [[NAMES[name], *(cell(name, map_name) for map_name in maps)] for name in objectives],
    )


def _number(found: Estimate, column: Column, sign: str = "") -> str:
    text = f"{column.scale * found.mean:{sign}.{column.digits}f}"
    if math.isinf(found.half):
        return text
    return f"{text} ± {column.scale * found.half:.{column.digits}f}"


def _fewer(n: int, seeds: int) -> str:
    return "" if n == seeds else f" ({n} of {seeds})"


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
