"""What people should know of their data before they train: one line each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from finetune.application.config import ProjectConfig
from finetune.application.settings import RiskConfig
from finetune.application.wording import count, percent
from finetune.domain.conformal.quantile import conformal_rank
from finetune.domain.labels import ABSTAIN
from finetune.domain.risk import error_free_rows_needed
from finetune.domain.risk.candidates import start_weights
from finetune.domain.splits import SPLITS, DuplicateReport

MIN_TRAINING_ROWS = 10
"""A label with fewer training rows is named in a notice."""

MANY_DUPLICATES = 0.05
"""Share of removed rows above which a notice says what that means for the promises."""

Counts = Mapping[str, Mapping[str, int]]


def find_notices(
    labels: Counts, duplicates: DuplicateReport, rejected: int, config: ProjectConfig
) -> list[str]:
    """Return what people should know before they train.

    Parameters
    ----------
    labels
        Rows by label, then by split.
    duplicates
        What became of nearly equal texts.
    rejected
        Rows that cannot be used.
    config
        The configuration of the run.
    """
    # Each threshold has half of the calibration rows (see split_calibration).
    calibration = sum(counts["calibration"] for counts in labels.values())
    found = (
        _about_rejected(rejected),
        _about_conflicts(len(duplicates.conflicting)),
        _about_duplicates(duplicates),
        *_about_labels(labels),
        _about_sets(calibration - calibration // 2, config.conformal.alpha),
        _about_risk(calibration // 2, config.risk),
        _about_method(len(labels), config.conformal.method),
    )
    return [notice for notice in found if notice]


def dropped_abstention() -> str:
    """Return the notice for labels that describe abstention and data without an example of it."""
    return (
        f"the labels file describes `{ABSTAIN}`, but no row has this label: it is left out of this run. The "
        "model will abstain for lack of confidence only; add out-of-scope texts to let it learn them"
    )


def _about_rejected(rejected: int) -> str | None:
    if not rejected:
        return None
    return f"{_rows(rejected)} left out because they cannot be used; all are in rejects.jsonl"


def _about_conflicts(conflicts: int) -> str | None:
    if not conflicts:
        return None
    return (
        f"{conflicts:,} {'text has' if conflicts == 1 else 'texts have'} several labels in the data; "
        "which one is right is for a person to say (listed in duplicates.jsonl)"
    )


def _about_duplicates(duplicates: DuplicateReport) -> str | None:
    removed, rows = len(duplicates.removed), len(duplicates.keep)
    if removed <= MANY_DUPLICATES * rows:
        return None
    largest = 1 + max(Counter(entry.kept_row for entry in duplicates.removed).values())
    return (
        f"{count(removed)} of {count(rows)} rows ({percent(removed / rows)}) are nearly equal to another one "
        f"and were removed; the largest group had {count(largest)} rows. The promises count each text once, "
        "however often it comes in; to have repeats count, pin a random sample of the traffic to calibration"
    )


def _about_labels(labels: Counts) -> list[str]:
    absent = [label for label, counts in labels.items() if not any(counts.values())]
    present = {label: counts for label, counts in labels.items() if label not in absent}
    rare = [label for label, counts in present.items() if counts["train"] < MIN_TRAINING_ROWS]
    notices = []
    if absent:
        notices.append(f"no row at all for {_names(absent)}: the model cannot learn to answer so")
    if rare:
        notices.append(f"fewer than {MIN_TRAINING_ROWS} training rows for {_names(rare)}")
    for split in SPLITS[1:]:
        missing = [label for label, counts in present.items() if not counts[split]]
        if missing:
            notices.append(f"no {split} row for {_names(missing)}")
    return notices


def _about_sets(rows: int, alpha: float) -> str | None:
    if not rows or conformal_rank(rows, alpha) <= rows:
        return None
    needed = next(n for n in range(rows, 10**9) if conformal_rank(n, alpha) <= n)
    return (
        f"too few calibration rows for prediction sets at alpha {alpha:g}: half of them, {rows:,}, set "
        f"the threshold and {needed:,} are needed; every set will hold every label"
    )


def _about_risk(rows: int, risk: RiskConfig) -> str | None:
    # What one starting point of the search for the threshold may spend of delta.
    needed = error_free_rows_needed(risk.level, float(start_weights(risk.level).max()) * risk.delta)
    if rows >= needed:
        return None
    then = "hand everything over" if risk.on_infeasible == "abstain" else "stop"
    return (
        f"too few calibration rows for risk.level {risk.level:g} at risk.delta {risk.delta:g}: half of them, "
        f"{rows:,}, set the threshold and {needed:,} are needed at best, all answered rightly; `calibrate` "
        f"will {then}"
    )


def _about_method(outcomes: int, method: str) -> str | None:
    if method != "aps" or outcomes > 2:
        return None
    return (
        "with two outcomes conformal.method aps makes all sets alike: the likelier outcome alone where that "
        "is right often enough, else both in every set; lac does better"
    )


def _rows(number: int) -> str:
    return f"{number:,} {'row was' if number == 1 else 'rows were'}"


def _names(labels: Sequence[str]) -> str:
    listed = ", ".join(labels[:5])
    return listed if len(labels) <= 5 else f"{listed} and {len(labels) - 5:,} more labels"
