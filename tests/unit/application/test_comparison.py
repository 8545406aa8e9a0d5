"""Another run beside the one that is evaluated."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from tests.unit.application.world import make_world

from finetune.domain.errors import InvalidInput


def beside(world, right: float):
    """Put another run beside a world's own, whose likeliest outcome is right in a share of the rows."""
    world.evaluate()
    other = world.stores(world.config.run_folder.with_name("other"))
    rows = copy.deepcopy(list(world.run.read_rows("scores_test.jsonl")))
    document = world.run.read_json("evaluation.json")
    outcomes = document["outcomes"]
    rng = np.random.default_rng(0)
    for row in rows:
        hit = rng.random() < right
        best = outcomes.index(row["label"])
        best = best if hit else (best + 1) % len(outcomes)
        row["log_probabilities"] = [-0.1 if k == best else -5.0 for k in range(len(outcomes))]
    other.write_examples("scores_test.jsonl", rows)
    other.write_json("evaluation.json", {**document, "run": "other"})
    other.seal({})
    return other


@pytest.mark.parametrize(
    ("right", "words"), [(0.05, "percentage points more"), (1.0, "percentage points fewer")]
)
def test_the_summary_says_which_is_better(right, words):
    world = make_world()
    world.calibrate()
    other = beside(world, right)
    document = world.evaluate(against=other.folder).document()
    found = document["against"]
    assert found["run"] == "other"
    assert found["difference"]["low"] <= found["difference"]["value"] <= found["difference"]["high"]
    (sentence,) = [item for item in document["summary"] if item["topic"] == "against"]
    assert words in sentence["text"]


def test_a_difference_that_chance_explains_is_called_that():
    world = make_world()
    world.calibrate()
    world.evaluate()
    document = world.evaluate(against=world.config.run_folder).document()
    assert document["against"]["difference"]["value"] == 0.0
    (sentence,) = [item for item in document["summary"] if item["topic"] == "against"]
    assert "cannot be told" in sentence["text"]


def test_without_another_run_nothing_is_said_of_one():
    world = make_world()
    world.calibrate()
    document = world.evaluate().document()
    assert document["against"] is None
    assert not [item for item in document["summary"] if item["topic"] == "against"]


def test_a_run_that_was_not_evaluated_is_an_error():
    world = make_world()
    world.calibrate()
    with pytest.raises(InvalidInput, match="was not evaluated"):
        world.evaluate(against=world.config.run_folder.with_name("nothing"))


def test_other_rows_are_an_error():
    world = make_world()
    world.calibrate()
    other = beside(world, 0.5)
    rows = list(other.read_rows("scores_test.jsonl"))[:-1]
    other.write_examples("scores_test.jsonl", rows)
    other.seal({})
    with pytest.raises(InvalidInput, match="other rows or outcomes"):
        world.evaluate(against=other.folder)
