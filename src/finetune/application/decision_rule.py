"""The one rule that turns scores into decisions: calibration, evaluation and prediction all call it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from finetune.application.certificate import FILE, REMEDY, Certificate
from finetune.application.labels_file import Costs
from finetune.application.maps import apply_map, open_map
from finetune.application.ports import LabelScores
from finetune.domain.calibration.maps import CalibrationMap
from finetune.domain.checks import BoolArray, FloatArray, IntArray
from finetune.domain.conformal import ConformalPredictor, CoverageLaw
from finetune.domain.decisions import Reason, abstention_reasons
from finetune.domain.errors import IntegrityError, InvalidInput
from finetune.domain.labels import ABSTAIN
from finetune.domain.risk import ABSTAINED, answers, cost_matrix, scored_actions
from finetune.domain.sums import row_products


@dataclass(frozen=True)
class Rulings:
    """What is decided about ``n`` texts with ``K`` outcomes.

    Parameters
    ----------
    log_probabilities
        Shape (n, K), after the certified map.
    decisions
        Outcome per row; ``abstain`` wherever ``reasons`` is not ``none``.
    reasons
        Why a row is an abstention, or ``none``.
    confidence
        Shape (n,): probability of the best answer, whether it is given or not.
    sets
        Shape (n, K): the prediction sets.
    expected_cost
        Shape (n,): of the decision taken; None without costs.
    proposals
        Shape (n,): column of the action of least expected cost; K or the column of ``abstain`` hands over.
    taken
        Shape (n,): column of the decision in the cost matrix.
    eligible
        Shape (n,): rows that only a lack of confidence can still hand over.
    score
        Shape (n,): log-odds of the proposal, what the risk threshold is compared with; it says nothing of
        rows that are not eligible.
    """

    log_probabilities: FloatArray
    decisions: tuple[str, ...]
    reasons: tuple[Reason, ...]
    confidence: FloatArray
    sets: BoolArray
    expected_cost: FloatArray | None
    proposals: IntArray
    taken: IntArray
    eligible: BoolArray
    score: FloatArray

    @property
    def answered(self) -> BoolArray:
        """Rows that got a label, shape (n,)."""
        return np.array([reason == "none" for reason in self.reasons], dtype=np.bool_)


@dataclass(frozen=True)
class DecisionRule:
    """Everything that decides besides the model.

    Parameters
    ----------
    outcomes
        Names of the columns.
    map
        From the model's log-probabilities to calibrated ones.
    sets
        A calibrated predictor that takes log-probabilities.
    costs
        Shape (K, A): see :func:`finetune.domain.risk.cost_matrix`; None: the likeliest label is the action.
    threshold
        Least log-odds that is answered: −inf answers every eligible row, +inf none.
    abstain_on_ambiguous_set
        Whether more than one outcome in the set is an abstention.
    least_evidence
        Least label mass that is in scope: −inf takes everything for that.

    Notes
    -----
    Action, confidence and the comparison with the threshold are those of
    :class:`finetune.domain.risk.RiskControlledPredictor`; sets and lengths only take rows away from what it
    would answer.  A row is abstained for the first reason that holds: ``too_long`` (the model did not see
    all of it), ``out_of_scope`` (too little evidence for all labels together), then those of
    :func:`finetune.domain.decisions.abstention_reasons` in their order.
    """

    outcomes: tuple[str, ...]
    map: CalibrationMap
    sets: ConformalPredictor
    costs: FloatArray | None
    threshold: float
    abstain_on_ambiguous_set: bool
    least_evidence: float = -math.inf

    def apply(self, scores: LabelScores) -> Rulings:
        """Decide.

        Parameters
        ----------
        scores
            What the model says of ``n >= 1`` texts.

        Returns
        -------
        Rulings
            One ruling per row; each depends on its own row alone.
        """
        log_probs = apply_map(self.map, scores.log_probabilities)
        probabilities = np.exp(log_probs)
        sets = self.sets.predict(log_probs)
        too_long = scores.removed_chars > 0
        foreign = scores.label_mass < self.least_evidence
        abstain_index = self.outcomes.index(ABSTAIN) if ABSTAIN in self.outcomes else None
        hand_over = len(self.outcomes) if abstain_index is None else abstain_index
        actions, score = scored_actions(log_probs, self.costs, abstain_index)
        proposals = np.where(actions == ABSTAINED, hand_over, actions)

        def reasons(confident: BoolArray) -> list[Reason]:
            return abstention_reasons(
                probabilities=probabilities,
                prediction_sets=sets,
                actions=proposals,
                confident=confident,
                abstain_index=abstain_index,
                abstain_on_ambiguous_set=self.abstain_on_ambiguous_set,
            )

        everywhere = np.ones(len(log_probs), dtype=np.bool_)
        eligible = np.array([reason == "none" for reason in reasons(everywhere)]) & ~too_long & ~foreign
        final: tuple[Reason, ...] = tuple(
            "too_long" if cut else "out_of_scope" if unlike else reason
            for cut, unlike, reason in zip(
                too_long, foreign, reasons(answers(score, self.threshold)), strict=True
            )
        )
        taken = np.where([reason == "none" for reason in final], proposals, hand_over)
        return Rulings(
            log_probabilities=log_probs,
            decisions=tuple(
                self.outcomes[action] if reason == "none" else ABSTAIN
                for action, reason in zip(proposals, final, strict=True)
            ),
            reasons=final,
            confidence=best_answer(probabilities, proposals, abstain_index),
            sets=sets,
            expected_cost=None
            if self.costs is None
            else row_products(probabilities, self.costs)[np.arange(len(taken)), taken],
            proposals=proposals,
            taken=taken,
            eligible=eligible,
            score=score,
        )


def best_answer(probabilities: FloatArray, proposals: IntArray, abstain_index: int | None) -> FloatArray:
    """Return the probability of the proposed label, or of the likeliest label where none is proposed."""
    rows = np.arange(len(probabilities))
    labels = probabilities if abstain_index is None else np.delete(probabilities, abstain_index, axis=1)
    hand_over = probabilities.shape[1] if abstain_index is None else abstain_index
    column = np.where(proposals == hand_over, 0, proposals)
    # A sum that ends a rounding error above 1 is still a probability.
    return np.minimum(np.where(proposals == hand_over, labels.max(axis=1), probabilities[rows, column]), 1.0)


def costs_of(outcomes: tuple[str, ...], costs: Costs | None) -> FloatArray | None:
    """Return the cost matrix of a label file; its last column hands over, also where that is no outcome."""
    if costs is None:
        return None
    return cost_matrix(outcomes, default=costs.default, abstain=costs.abstain, pairs=costs.pairs)


def coverage_law(sets: ConformalPredictor) -> CoverageLaw:
    """Return the law of the coverage; sets that hold everything cover everything, whatever the reason."""
    return CoverageLaw(sets.n_calibration, sets.n_calibration + 1) if sets.covers_everything else sets.law


def certified_rule(certificate: Certificate) -> DecisionRule:
    """Return the rule that a certificate describes.

    Raises
    ------
    IntegrityError
        The certificate contradicts itself.
    """
    try:
        return _described_rule(certificate)
    except InvalidInput as error:
        raise IntegrityError(
            f"the certificate contradicts itself: {error.what}", where=FILE, seen=error.seen, remedy=REMEDY
        ) from error


def _described_rule(certificate: Certificate) -> DecisionRule:
    sets = certificate.conformal
    if sets.covers_everything != (sets.threshold is None):
        raise InvalidInput("sets hold everything exactly if they have no threshold", seen=sets.threshold)
    predictor = ConformalPredictor.from_dict(
        {
            "kind": "conformal_predictor",
            "version": 1,
            "method": sets.method,
            "inputs": "log_probabilities",
            "randomized": False,
            "options": dict(sets.options),
            "n_labels": len(certificate.outcomes),
            "alpha": sets.alpha,
            "n_calibration": sets.n,
            "rank": sets.rank,
            "threshold": "+inf" if sets.threshold is None else sets.threshold,
        }
    )
    return DecisionRule(
        outcomes=certificate.outcomes,
        map=open_map(certificate.map),
        sets=predictor,
        costs=costs_of(certificate.outcomes, certificate.costs),
        threshold=certificate.risk_threshold,
        abstain_on_ambiguous_set=certificate.abstain_on_ambiguous_set,
        least_evidence=certificate.least_evidence,
    )


def least_confidence(threshold: float) -> float:
    """Return the probability that log-odds stand for.

    Examples
    --------
    >>> least_confidence(0.0), least_confidence(-math.inf), least_confidence(math.inf)
    (0.5, 0.0, 1.0)
    """
    return 1.0 / (1.0 + math.exp(-threshold)) if threshold >= -700.0 else 0.0
