"""What every :class:`LabelScorer` and :class:`RationaleWriter` must do; run on each adapter.

A test module gives a ``scorer`` fixture (or a ``writer``) and runs every case on it::

    @pytest.mark.parametrize("case", SCORER_CASES)
    def test_label_scorer(case, scorer):
        case(scorer)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from finetune.application.ports import LabelScorer, LabelScores, RationaleWriter

TEXTS = (
    "My card was swallowed by the machine in the station.",
    "short",
    "Wie hoch sind die Gebühren für eine Überweisung nach Zürich?",
    "一张卡丢了,我该怎么办? 🙈👩‍👩‍👧 é (e + combining)",
    'quotes " and \\ backslashes, {braces}, <b>tags</b>\nand a second line\twith a tab',
    "My card was swallowed by the machine in the station. Again.",
)
TOLERANCE = 2e-4
"""Largest difference of a log-probability that float32 and another batch may cause."""


class Counter:
    """Counts what a task is told."""

    def __init__(self) -> None:
        self.done = 0

    def advance(self, n: int = 1) -> None:
        self.done += n

    def describe(self, text: str) -> None:
        """Nothing is shown."""


def _same(a: LabelScores, b: LabelScores, tolerance: float = TOLERANCE) -> None:
    np.testing.assert_allclose(a.log_probabilities, b.log_probabilities, atol=tolerance, rtol=0)
    np.testing.assert_allclose(a.label_mass, b.label_mass, atol=tolerance, rtol=0)
    np.testing.assert_array_equal(a.removed_chars, b.removed_chars)


def has_shapes_and_types(scorer: LabelScorer) -> None:
    scores = scorer.score(TEXTS)
    assert scores.log_probabilities.shape == (len(TEXTS), len(scorer.outcomes))
    assert scores.log_probabilities.dtype == np.float64
    assert scores.label_mass.shape == (len(TEXTS),)
    assert scores.label_mass.dtype == np.float64
    assert scores.removed_chars.shape == (len(TEXTS),)
    assert scores.removed_chars.dtype.kind == "i"


def names_each_outcome_once(scorer: LabelScorer) -> None:
    assert len(scorer.outcomes) >= 2
    assert len(set(scorer.outcomes)) == len(scorer.outcomes)
    assert "abstain" not in scorer.outcomes[:-1], "abstention comes last"


def is_normalised_and_finite(scorer: LabelScorer) -> None:
    scores = scorer.score(TEXTS)
    assert np.isfinite(scores.log_probabilities).all()
    np.testing.assert_allclose(np.exp(scores.log_probabilities).sum(axis=1), 1.0, atol=1e-9)
    assert np.isfinite(scores.label_mass).all()


def is_deterministic(scorer: LabelScorer) -> None:
    _same(scorer.score(TEXTS), scorer.score(TEXTS), 0.0)


def does_not_depend_on_the_batch(scorer: LabelScorer) -> None:
    together = scorer.score(TEXTS)
    for row, text in enumerate(TEXTS):
        alone = scorer.score([text])
        _same(alone, LabelScores(*(part[row : row + 1] for part in together)))


def keeps_the_order_of_the_texts(scorer: LabelScorer) -> None:
    forwards, backwards = scorer.score(TEXTS), scorer.score(TEXTS[::-1])
    _same(forwards, LabelScores(*(part[::-1] for part in backwards)))
    assert np.abs(np.diff(forwards.log_probabilities, axis=0)).max() > 10 * TOLERANCE, (
        "texts make a difference"
    )


def scores_equal_texts_equally(scorer: LabelScorer) -> None:
    scores = scorer.score([TEXTS[0], TEXTS[1], TEXTS[0]])
    np.testing.assert_allclose(
        scores.log_probabilities[0], scores.log_probabilities[2], atol=TOLERANCE, rtol=0
    )


def scores_nothing_for_no_texts(scorer: LabelScorer) -> None:
    scores = scorer.score([])
    assert scores.log_probabilities.shape == (0, len(scorer.outcomes))
    assert scores.label_mass.shape == (0,)
    assert scores.removed_chars.shape == (0,)


def says_how_much_of_a_long_text_is_left_out(scorer: LabelScorer) -> None:
    scores = scorer.score(["short", "word " * 20_000, "also short"])
    assert scores.removed_chars[1] > 0
    assert scores.removed_chars[[0, 2]].tolist() == [0, 0]
    _same(LabelScores(*(part[:1] for part in scores)), scorer.score(["short"]))


def tells_its_progress(scorer: LabelScorer) -> None:
    counter = Counter()
    scorer.score(TEXTS, counter)
    assert counter.done == len(TEXTS)


SCORER_CASES: tuple[Callable[[LabelScorer], None], ...] = (
    has_shapes_and_types,
    names_each_outcome_once,
    is_normalised_and_finite,
    is_deterministic,
    does_not_depend_on_the_batch,
    keeps_the_order_of_the_texts,
    scores_equal_texts_equally,
    scores_nothing_for_no_texts,
    says_how_much_of_a_long_text_is_left_out,
    tells_its_progress,
)


def writes_one_text_for_each(writer: RationaleWriter, outcomes: tuple[str, ...]) -> None:
    decisions = [outcomes[row % len(outcomes)] for row in range(len(TEXTS))]
    written = writer.write(TEXTS, decisions)
    assert len(written) == len(TEXTS)
    assert all(isinstance(text, str) for text in written)
    for text in written:
        text.encode("utf-8")  # no half surrogate pairs: records are UTF-8


def writes_the_same_again(writer: RationaleWriter, outcomes: tuple[str, ...]) -> None:
    decisions = [outcomes[0]] * len(TEXTS)
    assert writer.write(TEXTS, decisions) == writer.write(TEXTS, decisions)


def writes_nothing_for_no_texts(writer: RationaleWriter, outcomes: tuple[str, ...]) -> None:
    assert writer.write([], []) == []


def tells_the_progress_of_writing(writer: RationaleWriter, outcomes: tuple[str, ...]) -> None:
    counter = Counter()
    writer.write(TEXTS[:2], [outcomes[0], outcomes[-1]], counter)
    assert counter.done == 2


WRITER_CASES: tuple[Callable[[RationaleWriter, tuple[str, ...]], None], ...] = (
    writes_one_text_for_each,
    writes_the_same_again,
    writes_nothing_for_no_texts,
    tells_the_progress_of_writing,
)
