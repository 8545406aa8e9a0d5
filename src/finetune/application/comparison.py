"""Another run beside the one that is evaluated, on the same test rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from finetune.application.estimates import CONFIDENCE, estimate, not_estimable
from finetune.application.ports import ArtifactStore
from finetune.application.scored_rows import ScoredRows
from finetune.domain.errors import InvalidInput
from finetune.domain.statistics import newcombe_paired_interval

_REMEDY = "evaluate that run on the same prepared rows first: the same data section and name, another run"


def compare(other: ArtifactStore, test: ScoredRows, outcomes: tuple[str, ...]) -> dict[str, Any]:
    """Return what an evaluation says of another run.

    Parameters
    ----------
    other
        The other run, evaluated.
    test
        This run's scored test rows.
    outcomes
        Names of their columns.

    Returns
    -------
    dict
        Accuracy, log loss, calibration error and selection of the other run, and the difference of the
        accuracies, this run's minus the other's, with its paired interval.

    Raises
    ------
    InvalidInput
        The other run was not evaluated, or on other rows or outcomes.
    IntegrityError
        Its files are damaged.
    """
    where = str(other.folder)
    for name in ("evaluation.json", "scores_test.jsonl"):
        if not other.exists(name):
            raise InvalidInput("the other run was not evaluated", where=where, seen=name, remedy=_REMEDY)
    other.verify("evaluation.json", "scores_test.jsonl")
    found, rows = other.read_json("evaluation.json"), list(other.read_rows("scores_test.jsonl"))
    if found["outcomes"] != list(outcomes) or [row["id"] for row in rows] != list(test.ids):
        raise InvalidInput(
            "the other run was evaluated on other rows or outcomes", where=where, remedy=_REMEDY
        )
    ours = test.scores.log_probabilities.argmax(axis=1) == test.truth
    theirs = np.array([row["log_probabilities"] for row in rows]).argmax(axis=1) == test.truth
    interval = newcombe_paired_interval(
        int((ours & theirs).sum()),
        int((ours & ~theirs).sum()),
        int((~ours & theirs).sum()),
        int((~ours & ~theirs).sum()),
        CONFIDENCE,
    )
    difference = float(ours.mean() - theirs.mean())
    return {
        "run": found["run"],
        "base": found["model"].get("base"),
        "accuracy": found["accuracy"],
        "log_loss": found["log_loss"]["after"],
        "ece": found["calibration"]["after"]["ece"],
        "answered": found["selective"]["share"],
        "error": found["selective"]["error"],
        "difference": not_estimable("there are no rows")
        if interval is None
        else estimate(difference, interval, "Newcombe, paired"),
    }
