import numpy as np
import pytest
from tests.fake_models import as_scores
from tests.unit.application.world import make_world

from finetune.application.batch_effect import measure_batch_effect
from finetune.application.certificate import read_certificate
from finetune.domain.checks import log_softmax


class Task:
    done = 0

    def advance(self, n: int = 1) -> None:
        self.done += n


class Unsteady:
    """Scores that a text alone shifts by a little, on outcomes that are given."""

    outcomes = ("a", "b", "c", "d")

    def __init__(self, shifts):
        self.shifts = np.asarray(shifts)

    def logits(self, texts):
        return np.array([[0.0, -1.0, -3.0, -20.0 - len(text)] for text in texts])

    def score(self, texts, task=None):
        if task is not None:
            task.advance(len(texts))
        alone = self.shifts if len(texts) == 1 else 0.0
        return as_scores(log_softmax(self.logits(texts) + alone))


def measure(shifts):
    scorer, texts, task = Unsteady(shifts), ["one", "three", "four"], Task()
    effect = measure_batch_effect(scorer, texts, scorer.score(texts), task)
    assert effect.rows == task.done == 3
    return effect


def test_what_does_not_move_has_no_effect():
    effect = measure([0.0, 0.0, 0.0, 0.0])
    assert (effect.log_probability, effect.total_variation) == (0.0, 0.0)


def test_the_largest_differences_are_found():
    effect = measure([0.0, 0.2, 0.0, 0.0])
    before, after = (np.exp([0.0, -1.0 + shift, -3.0]) for shift in (0.0, 0.2))
    p, q = before / before.sum(), after / after.sum()
    assert effect.log_probability == pytest.approx(np.abs(np.log(q / p)).max(), rel=1e-6)
    assert effect.total_variation == pytest.approx(0.5 * np.abs(q - p).sum(), rel=1e-6)


def test_an_outcome_of_no_weight_does_not_count():
    """Which of them is left out may differ from batch to batch, and moves their logarithms a lot."""
    effect = measure([0.0, 0.0, 0.0, 8.0])
    assert effect.log_probability < 1e-5
    assert 0.0 < effect.total_variation < 1e-5


def test_it_stands_in_the_certificate_and_the_card():
    world = make_world()
    certificate = world.calibrate()
    assert certificate.batch_effect.model_dump() == {
        "rows": 16,
        "log_probability": 0.0,
        "total_variation": 0.0,
    }
    assert (
        "16 rows scored alone and among others" in world.run.files[str(world.config.run_folder / "README.md")]
    )
    assert world.evaluate().document()["certificate"]["batch_effect"]["rows"] == 16
    older = certificate.document()
    del older["batch_effect"]
    assert read_certificate(older, "x").batch_effect is None
