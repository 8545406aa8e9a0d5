"""What came of a sweep: ``sweep.json``, ``sweep.md`` and what the command prints."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.application.config import ProjectConfig
from finetune.application.ports import Direction, FinishedTrial, LogRange, Space
from finetune.application.search_space import as_overrides, as_text, short_name
from finetune.application.wording import count, decimal, plural

Document = Mapping[str, Any]
FAILED = "failed"


@dataclass(frozen=True)
class SweepReport:
    """The trials of a sweep.

    Parameters
    ----------
    name, folder
        What the sweep is called and where it lies.
    config
        What all trials have in common.
    options
        Options of the command line that name this configuration.
    space, metric, direction
        What was searched, and for what.
    validation_rows
        On so many rows each trial was measured.
    identity
        What must be the same for a sweep to be gone on with.
    trials
        Those that were told, by number; their facts are those of :func:`finished_facts` or
        :func:`failed_facts`.
    """

    name: str
    folder: Path
    config: ProjectConfig
    options: str
    space: Space
    metric: str
    direction: Direction
    validation_rows: int
    identity: Mapping[str, Any]
    trials: Sequence[FinishedTrial] = ()

    @property
    def best(self) -> FinishedTrial | None:
        """The best trial, the first of them where several are; None where none has a value."""
        return next((trial for trial in self.ranked() if trial.value is not None), None)

    def ranked(self) -> list[FinishedTrial]:
        """Return the trials from the best to the worst, those that failed last."""
        sign = 1.0 if self.direction == "minimize" else -1.0

        def place(trial: FinishedTrial) -> tuple[bool, float, int]:
            return trial.value is None, sign * (trial.value or 0.0), trial.number

        return sorted(self.trials, key=place)

    def run_of(self, trial: FinishedTrial) -> Path:
        """Return the folder of a trial."""
        return self.folder / trial_folder(trial.number)

    def command(self) -> str | None:
        """Return the command that trains a run with the best settings; None where no trial has a value."""
        if self.best is None:
            return None
        overrides = as_overrides(self.best.settings, self.config)
        return f"finetune train{self.options}" + "".join(f" -s {shlex.quote(text)}" for text in overrides)

    def document(self) -> dict[str, Any]:
        """Return ``sweep.json``."""
        best = self.best
        return {
            "version": 1,
            "name": self.name,
            "metric": self.metric,
            "direction": self.direction,
            "space": space_document(self.space),
            "validation_rows": self.validation_rows,
            "best": None if best is None else {"number": best.number, "run": str(self.run_of(best))},
            "command": self.command(),
            "statements": self._statements(),
            "trials": [
                {"number": trial.number, "settings": dict(trial.settings), **trial.facts}
                for trial in self.ranked()
            ],
            "identity": dict(self.identity),
        }

    def markdown(self) -> str:
        """Return ``sweep.md``."""
        document = self.document()
        headings, rows = results_table(document, measured(document))
        lines = [headings, ["---"] * len(headings), *rows]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        parts = [f"# Sweep {self.name}", table, *document["statements"]]
        if document["command"] is not None:
            parts.append(f"```sh\n{document['command']}\n```")
        return "\n\n".join([*parts, *(f"- {line}" for line in failures(document))]) + "\n"

    def _statements(self) -> list[str]:
        best = self.best
        if best is None:
            return []
        ended = sum(trial.value is not None for trial in self.trials)
        rank = "lowest" if self.direction == "minimize" else "highest"
        chosen = (
            f"Trial {best.number} has the {rank} {short_name(self.metric)}, {decimal(best.value or 0.0)}, of "
            f"{plural(ended, 'trial')} on {plural(self.validation_rows, 'validation row')}."
        )
        caution = (
            "The best of many looks better on the rows that chose it than it is, the more so the more "
            "trials and the fewer rows there are. Calibration and test rows were not used: what `finetune "
            "calibrate` promises holds for these settings as for any, and `finetune evaluate` says what "
            "they are worth."
        )
        whole = (
            f"{self.run_of(best)} is a whole run: copied to {self.config.run_folder}, where no other may be, "
            "it need not be trained again."
        )
        return [chosen, caution, whole]


def finished_facts(metrics: Mapping[str, float], best_step: int, seconds: float) -> dict[str, Any]:
    """Return the facts of a trial that ended."""
    return {"metrics": dict(metrics), "best_step": best_step, "seconds": seconds, "failure": None}


def failed_facts(reason: str) -> dict[str, Any]:
    """Return the facts of a trial that failed."""
    return {"metrics": None, "best_step": None, "seconds": None, "failure": reason}


def trial_folder(number: int) -> str:
    """Return where a trial lies in the folder of its sweep.

    Examples
    --------
    >>> trial_folder(7)
    'trials/007'
    """
    return f"trials/{number:03d}"


def space_document(space: Space) -> dict[str, Any]:
    """Return a space as JSON."""
    return {
        key: values._asdict() if isinstance(values, LogRange) else list(values)
        for key, values in space.items()
    }


def measured(document: Document) -> list[str]:
    """Return the names of all metrics, first the one that chooses."""
    names = [name for trial in document["trials"] for name in trial["metrics"] or ()]
    return list(dict.fromkeys([document["metric"], *names]))


def results_table(document: Document, metrics: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows: number, settings, metrics, minutes; the first metric says what failed."""
    keys = list(document["space"])
    headings = ["trial", *map(short_name, keys), *map(short_name, metrics), "minutes"]
    rows = []
    for trial in document["trials"]:
        settings = [as_text(trial["settings"][key]) for key in keys]
        found = trial["metrics"]
        if found is None:
            cells = [FAILED, *[""] * len(metrics)]
        else:
            cells = [_cell(found.get(name)) for name in metrics] + [decimal(trial["seconds"] / 60)]
        rows.append([count(trial["number"]), *settings, *cells])
    return headings, rows


def failures(document: Document) -> list[str]:
    """Return why trials failed, a line each."""
    return [
        f"trial {trial['number']} failed: {trial['failure']}"
        for trial in document["trials"]
        if trial["failure"] is not None
    ]


def _cell(value: float | None) -> str:
    return "" if value is None else decimal(value)
