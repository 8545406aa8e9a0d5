"""From scored rows to what can be promised: one way, wherever the rows come from."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from finetune.application.certified import (
    CertifiedMap,
    CertifiedRisk,
    CertifiedScope,
    CertifiedSets,
    InfeasibleRisk,
)
from finetune.application.decision_rule import DecisionRule, costs_of, coverage_law, least_confidence
from finetune.application.labels_file import Costs
from finetune.application.maps import apply_map, fit_map, open_map
from finetune.application.scored_rows import ScoredRows
from finetune.application.settings import CalibrationConfig, ConformalConfig, RiskConfig
from finetune.application.statements import Unit, state_infeasible, state_risk, state_scope, state_sets
from finetune.domain.calibration.maps import CalibrationMap
from finetune.domain.conformal import ConformalPredictor, conformal_rank
from finetune.domain.errors import InfeasibleGuarantee
from finetune.domain.risk import selective_threshold


class Asked(Protocol):
    """What is asked of the rows: the sections that a project's configuration and a guarantee's share."""

    @property
    def calibration(self) -> CalibrationConfig:
        """The map."""

    @property
    def conformal(self) -> ConformalConfig:
        """The prediction sets."""

    @property
    def risk(self) -> RiskConfig:
        """The error among what is answered."""


class Basis(NamedTuple):
    """Rows that were used for nothing else: for the map, for the sets, and for the final rule."""

    validation: ScoredRows
    for_sets: ScoredRows
    for_risk: ScoredRows


class Certified(NamedTuple):
    """What came of it: the parts of a certificate that rows decide."""

    map: CertifiedMap
    conformal: CertifiedSets
    selective: CertifiedRisk | InfeasibleRisk
    scope: CertifiedScope | None


def certify(
    basis: Basis,
    asked: Asked,
    outcomes: tuple[str, ...],
    costs: Costs | None,
    unit: Unit,
    rng: np.random.Generator,
) -> Certified:
    """Fit the map and set both thresholds, each on rows that nothing else has seen.

    Parameters
    ----------
    basis
        The rows; at least one for the sets and one for the risk.
    asked
        Level and method of everything.
    outcomes
        Names of the columns.
    costs
        What decisions cost; None: the likeliest label is the action.
    unit
        What one row is called in the statements.
    rng
        Draws what is drawn to choose a map.

    Raises
    ------
    InfeasibleGuarantee
        No threshold can be promised, and the configuration asks for an error then.
    """
    matrix = costs_of(outcomes, costs)  # first: a wrong cost table must not cost the time of a fit
    certified = fit_map(basis.validation, asked.calibration, rng)
    fitted = open_map(certified)
    predictor = fit_sets(basis.for_sets, fitted, asked.conformal)
    scope = certify_scope(basis.for_sets, asked.risk, unit)
    rule = DecisionRule(
        outcomes=outcomes,
        map=fitted,
        sets=predictor,
        costs=matrix,
        threshold=-np.inf,
        abstain_on_ambiguous_set=asked.risk.abstain_on_ambiguous_set,
        least_evidence=-np.inf if scope is None or scope.least is None else scope.least,
    )
    return Certified(
        certified, certify_sets(predictor, unit), certify_risk(basis.for_risk, rule, asked.risk, unit), scope
    )


def fit_sets(rows: ScoredRows, fitted: CalibrationMap, config: ConformalConfig) -> ConformalPredictor:
    """Set the threshold of the prediction sets."""
    predictor = ConformalPredictor(config.method, inputs="log_probabilities", **config.options)
    return predictor.calibrate(apply_map(fitted, rows.scores.log_probabilities), rows.truth, config.alpha)


def certify_sets(predictor: ConformalPredictor, unit: Unit) -> CertifiedSets:
    """Write down what the prediction sets promise."""
    law, everything = coverage_law(predictor), predictor.covers_everything
    low, high, _ = law.interval(0.95)
    n, rank = predictor.n_calibration, predictor.rank
    return CertifiedSets(
        method=predictor.method,
        options=predictor.options,
        alpha=predictor.alpha,
        n=n,
        rank=rank,
        threshold=None if everything else predictor.threshold,
        expected_coverage=law.expected,
        coverage_low=low,
        coverage_high=high,
        covers_everything=everything,
        statement=state_sets(
            predictor.alpha, n, rank, low, high, method=predictor.method, everything=everything, unit=unit
        ),
    )


def certify_scope(rows: ScoredRows, config: RiskConfig, unit: Unit) -> CertifiedScope | None:
    """Set the least evidence of what is in scope; None where nothing is to be handed over for that.

    A new row that is exchangeable with these has less evidence than the ``rank``-th least of theirs with a
    probability of at most ``rank / (n + 1)``, which is at most the share that may be handed over.

    References
    ----------
    Bates, S. et al. (2023). Testing for outliers with conformal p-values. Annals of Statistics 51, sec. 2.
    """
    if config.out_of_scope is None:
        return None
    n = len(rows)
    rank = n + 1 - conformal_rank(n, config.out_of_scope)
    least = float(np.sort(rows.scores.label_mass)[rank - 1]) if rank else None
    return CertifiedScope(
        share=config.out_of_scope,
        n=n,
        rank=rank,
        least=least,
        statement=state_scope(config.out_of_scope, n, rank, unit),
    )


def certify_risk(
    rows: ScoredRows, rule: DecisionRule, config: RiskConfig, unit: Unit
) -> CertifiedRisk | InfeasibleRisk:
    """Set the threshold of the final rule, or say that none can be promised.

    Raises
    ------
    InfeasibleGuarantee
        No threshold can be promised, and the configuration asks for an error then.
    """
    rulings, n = rule.apply(rows.scores), len(rows)
    try:
        found = selective_threshold(
            rulings.score,
            rulings.proposals != rows.truth,
            config.level,
            config.delta,
            eligible=rulings.eligible,
        )
    except InfeasibleGuarantee as error:
        if config.on_infeasible == "error":
            few = n < (error.needed or 0)
            least = f"at least {error.needed:,} such rows are needed, all answered rightly: " if few else ""
            raise InfeasibleGuarantee(
                f"{error.what}, on the {n:,} calibration rows that this rests on "
                "(the other half sets the shortlists)",
                where="risk",
                seen=error.seen,
                remedy=f"{least}calibrate with more rows, improve the model, or promise less: allow a "
                f"greater risk.level than {config.level:g} or risk.delta than {config.delta:g}; "
                "-s risk.on_infeasible=abstain hands everything over",
                needed=error.needed,
            ) from error
        return InfeasibleRisk(
            level=config.level,
            delta=config.delta,
            n=n,
            reason=error.what,
            needed=error.needed,
            statement=state_infeasible(config.level, config.delta, n, error.needed, unit),
        )
    everything = found.threshold == -np.inf
    return CertifiedRisk(
        level=config.level,
        delta=config.delta,
        n=n,
        threshold=None if everything else found.threshold,
        confidence=None if everything else least_confidence(found.threshold),
        answered=found.n_answered,
        errors=found.n_errors,
        upper_bound=found.upper_bound,
        statement=state_risk(config.level, config.delta, n, found.n_answered, found.n_errors, unit),
    )
