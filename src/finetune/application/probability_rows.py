"""From what stands in a file of probabilities to rows that guarantees can be computed from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.application.labels_file import AbstainEntry, LabelEntry, LabelsFile
from finetune.application.ports import LabelScores, ProbabilityRows
from finetune.application.row_problems import SHOWN, RowProblems
from finetune.application.scored_rows import ScoredRows
from finetune.domain.checks import BoolArray, FloatArray, IntArray, log_softmax, sum_tolerance
from finetune.domain.errors import InvalidInput
from finetune.domain.labels import ABSTAIN, LabelSet, closest
from finetune.domain.row_reader import row_blocks

MOST_DECIMALS = 8
"""Numbers with more decimals than this count as exact; ``%f`` writes 6."""

LARGEST_TOLERANCE = 0.05
"""How far from 1 a row may sum for want of decimals, however few it has."""


class Scored(NamedTuple):
    """Rows of a file with what was done to them.

    Parameters
    ----------
    ids
        n different texts; the lines of the file where it has no ids.
    scores
        Log-probabilities in the order of the outcomes; nothing is known of mass or lengths.
    changed
        Whether rows were scaled to sum to 1, or a 0 read as less than one, for want of decimals.
    """

    ids: Sequence[str]
    scores: LabelScores
    changed: bool


def labels_of_columns(rows: ProbabilityRows) -> LabelsFile:
    """Return labels that are called like the columns; ``abstain`` among them is the abstention."""
    names = [name for name in rows.names if name != ABSTAIN]
    labels = LabelsFile(
        task=f"Probabilities in {rows.path.name}",
        labels=tuple(LabelEntry(name=name) for name in names),
        abstain=AbstainEntry() if ABSTAIN in rows.names else None,
    )
    try:
        labels.label_set()
    except InvalidInput as error:
        raise InvalidInput(
            error.what, where=f"{rows.path}: columns", seen=error.seen, remedy=error.remedy
        ) from error
    return labels


def decimals_of(rows: ProbabilityRows) -> int | None:
    """Return how many decimals the numbers have, where they are few; None where they count as exact."""
    values = rows.values
    if rows.inputs == "logits" or not np.isfinite(values).any():
        return None
    # What a decimal number may be off by in the precision that it is kept in, and decimals that show in it.
    grain, most = (4e-8, 5) if values.dtype == np.float32 else (1e-12, MOST_DECIMALS)

    def fits(decimals: int) -> bool:
        return all(_rounding(values[block], decimals) <= grain for block in row_blocks(values))

    found = next((decimals for decimals in range(most + 1) if fits(decimals)), None)
    return found or None  # whole numbers are no rounded ones: a model that is always sure means its 0


def zero_of(decimals: int) -> float:
    """Return what a probability of 0 is read as: the middle of all that is rounded to it.

    Examples
    --------
    >>> zero_of(4)
    2.5e-05
    """
    return float(f"25e-{decimals + 2}")


def score_rows(rows: ProbabilityRows, outcomes: tuple[str, ...], decimals: int | None) -> Scored:
    """Check ids and numbers, and put the columns into the order of the outcomes.

    Parameters
    ----------
    rows
        What was read.
    outcomes
        The columns of the result.
    decimals
        Those of the calibration rows, so that a 0 means the same in all files; see :func:`zero_of`.

    Raises
    ------
    InvalidInput
        A number is impossible, a row does not sum to 1, or an id is empty or there twice; the message names
        lines, columns and values.
    """
    ids = [str(line) for line in rows.lines.tolist()] if rows.ids is None else rows.ids
    _check_ids(ids, rows)
    log_probs, changed = _log_probabilities(rows, decimals)
    log_probs = log_probs[:, [rows.names.index(name) for name in outcomes]]
    n = len(log_probs)
    return Scored(ids, LabelScores(log_probs, np.zeros(n), np.zeros(n, dtype=np.int64), np.zeros(n)), changed)


def add_truth(scored: Scored, rows: ProbabilityRows, labels: LabelSet) -> ScoredRows:
    """Find the column of each row's label, by name or alias.

    Raises
    ------
    InvalidInput
        A label is empty or no outcome; the message names lines and values.
    """
    return ScoredRows(scored.ids, _truth(rows, labels), scored.scores)


def _check_ids(ids: Sequence[str], rows: ProbabilityRows) -> None:
    problems = RowProblems("give every row an id of its own; without such a column rows count by line")
    first: dict[str, int] = {}
    for row, name in enumerate(ids):
        if not name:
            problems.add(rows.place(row), "the id is empty", name)
        elif first.setdefault(name, row) != row:
            problems.add(rows.place(row), f"the id is that of {rows.place(first[name])} too", name)
    problems.check()


def _truth(rows: ProbabilityRows, labels: LabelSet) -> IntArray:
    problems = RowProblems(
        "the right outcome must be the name of a column, or an alias of it in a labels file (--labels)"
    )
    columns: dict[str, int] = {}
    truth = np.zeros(len(rows.values), dtype=np.int64)
    for row, text in enumerate(rows.labels or ()):
        if text not in columns:
            outcome = labels.resolve(text)
            columns[text] = -1 if outcome is None else labels.index(outcome)
        truth[row] = columns[text]
        if columns[text] < 0:
            near = closest(text, labels.outcomes)
            guess = f"; perhaps {near!r} was meant" if near else ""
            what = f"this is none of the outcomes{guess}" if text.strip() else "the label is empty"
            problems.add(rows.place(row), what, text)
    problems.check()
    return truth


def _log_probabilities(rows: ProbabilityRows, decimals: int | None) -> tuple[FloatArray, bool]:
    values, problems = rows.values, RowProblems(_remedy(rows))
    log_probs, changed = np.empty(values.shape), False
    if rows.inputs == "logits":
        for block in row_blocks(values):
            log_probs[block] = log_softmax(_sound(rows, block, np.inf, problems))
        problems.check()
        return log_probs, changed
    logarithms = rows.inputs == "log_probabilities"
    zero = 0.0 if decimals is None or logarithms else zero_of(decimals)
    exact = sum_tolerance(values)
    tolerance = _tolerance(rows, exact)
    for block in row_blocks(values):
        part = _sound(rows, block, tolerance if logarithms else 1.0 + tolerance, problems)
        # Invalid is what becomes of a row that sums to 0, which is reported.
        with np.errstate(divide="ignore", under="ignore", invalid="ignore"):
            sums = (np.exp(part) if logarithms else part).sum(axis=1)
            off = np.abs(sums - 1.0)
            _report_sums(off > tolerance, sums, rows, block.start, problems)
            changed |= bool(off.max() > exact or part.min() < zero)
            if logarithms:
                part -= np.log(sums)[:, None]
            else:
                part = np.maximum(part, zero)
                part = np.log(part / part.sum(axis=1, keepdims=True))
        log_probs[block] = np.minimum(part, 0.0)
    problems.check()
    return log_probs, changed


def _sound(rows: ProbabilityRows, block: slice, highest: float, problems: RowProblems) -> FloatArray:
    """Return some rows, with one that is certain of the first outcome in the place of each impossible one."""
    part = rows.values[block].astype(np.float64)
    lowest = 0.0 if rows.inputs == "probabilities" else -np.inf
    bad = ~((part >= lowest) & (part <= highest) & (part < np.inf))
    _report_cells(bad, rows, block.start, problems)
    unsound = bad.any(axis=1)
    if rows.inputs == "logits":
        empty = (part == -np.inf).all(axis=1)
        _report_rows(empty, rows, block.start, problems, "every outcome of the row is ruled out")
        unsound |= empty
    part[unsound] = lowest
    part[unsound, 0] = 1.0 if rows.inputs == "probabilities" else 0.0
    return part


def _rounding(values: npt.NDArray[np.floating[Any]], decimals: int) -> float:
    """Return how far numbers are from having so many decimals; minus infinity has none."""
    exact = values[np.isfinite(values)].astype(np.float64)
    return float(np.abs(exact - np.round(exact, decimals)).max(initial=0.0))


def _tolerance(rows: ProbabilityRows, exact: float) -> float:
    decimals = decimals_of(rows)
    if decimals is None:
        return exact
    # Half a unit of the last decimal: in every probability, or in a logarithm, which is a factor of all.
    terms = len(rows.names) if rows.inputs == "probabilities" else 1
    return max(exact, min(1.001 * terms * 0.5 * 10.0**-decimals, LARGEST_TOLERANCE))


def _remedy(rows: ProbabilityRows) -> str:
    if rows.inputs == "logits":
        return "look for overflow in the model; minus infinity is allowed, except for every outcome at once"
    listed = ", ".join(rows.names[:SHOWN]) + (", …" if len(rows.names) > SHOWN else "")
    return (
        f"correct them, or say with --inputs what the numbers are; the outcomes were taken to be {listed} "
        "(--labels names them)"
    )


def _report_cells(bad: BoolArray, rows: ProbabilityRows, start: int, problems: RowProblems) -> None:
    affected = np.flatnonzero(bad.any(axis=1))
    what = {
        "probabilities": "this is no number from 0 to 1",
        "log_probabilities": "this is no logarithm of a probability, at most 0",
        "logits": "this is no number below infinity",
    }[rows.inputs]
    for row in affected[:SHOWN]:
        column = int(bad[row].argmax())
        place = f"{rows.place(start + int(row))}: column {rows.names[column]!r}"
        problems.add(place, what, float(rows.values[start + row, column]))
    problems.add_unseen(max(len(affected) - SHOWN, 0))


def _report_rows(bad: BoolArray, rows: ProbabilityRows, start: int, problems: RowProblems, what: str) -> None:
    affected = np.flatnonzero(bad)
    for row in affected[:SHOWN]:
        problems.add(rows.place(start + int(row)), what, rows.values[start + row].tolist())
    problems.add_unseen(max(len(affected) - SHOWN, 0))


def _report_sums(
    bad: BoolArray, sums: FloatArray, rows: ProbabilityRows, start: int, problems: RowProblems
) -> None:
    affected = np.flatnonzero(bad)
    for row in affected[:SHOWN]:
        place, seen = rows.place(start + int(row)), rows.values[start + row].tolist()
        problems.add(place, f"the probabilities of the row sum to {sums[row]:.6g}, not 1", seen)
    problems.add_unseen(max(len(affected) - SHOWN, 0))
