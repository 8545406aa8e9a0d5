from __future__ import annotations

import json
import math

import numpy as np
import pytest
from benchmarks.objective_measures import (
    CHECKED,
    MAPS,
    Scored,
    caught,
    measure,
    of_answers,
    of_posterior,
    rounded,
)
from benchmarks.objective_tasks import with_noise

from finetune.application.labels_file import Costs
from finetune.application.ports import LabelScores
from finetune.application.scored_rows import ScoredRows


def test_the_posterior_itself_is_at_no_distance():
    posterior = np.array([[0.6, 0.4], [0.9, 0.1]])
    found = of_posterior(np.log(posterior), posterior)
    assert all(value == pytest.approx(0.0, abs=1e-12) for value in found.values())
    found = of_posterior(np.log([[0.9, 0.1], [0.9, 0.1]]), posterior)
    assert found["distance"] == pytest.approx(0.15)
    assert found["undecidable_distance"] == pytest.approx(0.3)
    assert found["undecidable_confidence"] == pytest.approx(0.3)


def test_what_is_out_of_scope_is_caught_below_the_least_twentieth():
    own = np.arange(100.0)
    assert caught(own, np.array([-1.0, 4.0, 5.0, 50.0])) == 0.5


def test_nothing_is_answered_where_nothing_can_be_promised():
    rows, truth = np.log(np.full((10, 2), 0.5)), np.zeros(10, dtype=np.int64)
    found = of_answers(rows, truth, rows, truth, ("a", "b"))
    assert found["answered_0.05"] == 0.0
    assert found["error_0.05"] is None


def test_results_are_short():
    assert rounded(0.123456789) == 0.12346
    assert rounded(math.inf) is None
    assert json.dumps(rounded(-1e-9)) == "0.0"


def test_measures_are_there_with_every_map():
    rng = np.random.default_rng(0)

    def scored(n: int) -> ScoredRows:
        logits = 2.0 * rng.normal(size=(n, 3))
        truth = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
        log_probs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        scores = LabelScores(log_probs, log_probs.max(axis=1), np.zeros(n, dtype=np.int64), np.zeros(n))
        return ScoredRows([f"{i}" for i in range(n)], truth, scores)

    validation, calibration, test = (scored(n) for n in (300, 300, 2000))
    wrong = ScoredRows(validation.ids, with_noise(validation.truth, 3, 0.5, rng), validation.scores)
    found = measure(
        Scored(("a", "b", "c"), Costs(), wrong, calibration, test, validation.truth, test.scores), 0
    )
    assert list(found) == [*MAPS, CHECKED]
    assert found["none"]["coverage"] == pytest.approx(0.9, abs=0.05)
    assert found["none"]["ece"] < 0.05
    assert found["temperature"]["ece"] > 0.1
    assert found[CHECKED]["ece"] < 0.06
    assert found["none"]["foreign_mass"] == pytest.approx(0.05, abs=0.01)
    assert 0.0 < found["none"]["cost"] < 0.3
