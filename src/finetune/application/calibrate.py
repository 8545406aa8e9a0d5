"""Calibrate: held-out rows to a certificate of what the run's decisions are worth."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from finetune.application import certificate as certificates
from finetune.application.certificate import (
    Certificate,
    CertifiedData,
    CertifiedModel,
    CertifiedRisk,
    CertifiedSets,
    CertifiedTemperature,
    InfeasibleRisk,
)
from finetune.application.config import ConformalConfig, ProjectConfig, RiskConfig
from finetune.application.decision_rule import DecisionRule, costs_of, coverage_law, least_confidence
from finetune.application.labels_file import LabelsFile
from finetune.application.ports import Clock, ModelOpener, Progress, StoreOpener
from finetune.application.runs import OF_AN_EVALUATION, ScoredRows, open_prepared, open_run, score_split
from finetune.application.statements import state_infeasible, state_risk, state_sets
from finetune.domain.calibration import Temperature, compute_log_loss, fit_temperature
from finetune.domain.conformal import ConformalPredictor
from finetune.domain.errors import InfeasibleGuarantee, InsufficientData
from finetune.domain.labels import ABSTAIN
from finetune.domain.risk import selective_threshold
from finetune.domain.splits import split_calibration


@dataclass(frozen=True)
class Calibrate:
    """Fits the temperature and both thresholds, each on rows that nothing else has seen.

    Parameters
    ----------
    models, stores, progress, clock
        The ports it works through.

    Notes
    -----
    The temperature is fitted on the validation rows.  The calibration rows are halved by a hash of their
    ids: one half sets the threshold of the prediction sets, the other the threshold of the whole final
    rule.  So each guarantee holds exactly, given what was fitted before it.
    """

    models: ModelOpener
    stores: StoreOpener
    progress: Progress
    clock: Clock

    def __call__(self, config: ProjectConfig, labels: LabelsFile | None = None) -> Certificate:
        """Calibrate a trained run and write ``calibration.json``.

        The scores behind it are kept as ``scores_validation.jsonl`` and ``scores_calibration.jsonl``.  What
        was measured under an earlier certificate is removed.

        Parameters
        ----------
        config
            The configuration of the run.
        labels
            The labels file as it is now, for its costs, which may have changed since training; None: the
            costs at training.  Costs of cases that are abstentions count only where the run has that
            outcome.

        Raises
        ------
        InsufficientData
            There are fewer than two calibration rows.
        InfeasibleGuarantee
            The error rate cannot be promised with these rows, and ``risk.on_infeasible`` is ``error``.
        IntegrityError
            The run or its data are not what training saw.
        """
        run = open_run(config, self.stores)
        prepared = open_prepared(run, self.stores)
        now = run.labels_file if labels is None else labels
        costs = (now if ABSTAIN in run.labels.outcomes else now.without_abstention()).costs
        matrix = costs_of(run.labels.outcomes, costs)
        model = run.open_model(self.models)
        validation = score_split(prepared, "validation", run.labels, model, self.progress)
        calibration = score_split(prepared, "calibration", run.labels, model, self.progress)
        run.store.write_examples("scores_validation.jsonl", validation.rows())
        run.store.write_examples("scores_calibration.jsonl", calibration.rows())
        if len(calibration.examples) < 2:
            raise InsufficientData(
                "calibration needs at least two rows, one for each threshold",
                where=str(prepared.folder / "calibration.jsonl"),
                seen=len(calibration.examples),
                remedy="prepare with a greater share of calibration rows",
            )
        for_sets, for_risk = halves(calibration, config.data.seed)
        temperature = certify_temperature(validation)
        predictor = fit_sets(for_sets, temperature.value, config.conformal)
        rule = DecisionRule(
            outcomes=run.labels.outcomes,
            temperature=Temperature(temperature.value),
            sets=predictor,
            costs=matrix,
            threshold=-np.inf,
            abstain_on_ambiguous_set=config.risk.abstain_on_ambiguous_set,
        )
        certificate = Certificate(
            created=self.clock.now(),
            task=run.labels.task,
            model=CertifiedModel(**asdict(model.identity)),
            label_set_hash=run.labels.fingerprint(),
            outcomes=run.labels.outcomes,
            config_hash=config.fingerprint(),
            data=CertifiedData(
                validation_hash=prepared.sha256("validation.jsonl"),
                calibration_hash=prepared.sha256("calibration.jsonl"),
                validation_rows=len(validation.examples),
                conformal_rows=len(for_sets.examples),
                selective_rows=len(for_risk.examples),
                seed=config.data.seed,
            ),
            temperature=temperature,
            conformal=certify_sets(predictor),
            selective=certify_risk(for_risk, rule, config.risk),
            abstain_on_ambiguous_set=config.risk.abstain_on_ambiguous_set,
            costs=costs,
        )
        for stale in OF_AN_EVALUATION:
            run.store.remove(stale)
        run.store.write_json(certificates.FILE, certificate.document())
        run.finish()
        return certificate


def halves(calibration: ScoredRows, seed: int) -> tuple[ScoredRows, ScoredRows]:
    """Divide the calibration rows by id: those for the sets, and those for the risk.

    Not by text: pinned rows may repeat a text, and all copies in one half would count as one draw.
    """
    mask = split_calibration([example.id for example in calibration.examples], seed)
    return calibration.part(np.flatnonzero(mask)), calibration.part(np.flatnonzero(~mask))


def certify_temperature(validation: ScoredRows) -> CertifiedTemperature:
    """Fit the temperature; 1, with a note, where the rows determine none.

    Where every validation row is right, the log loss falls for ever as the temperature goes to 0: that says
    nothing about how sure the model may be, and would round all probabilities to 0 and 1.
    """
    n = len(validation.examples)
    if n == 0:
        return CertifiedTemperature(
            value=1.0,
            n=0,
            log_loss_before=None,
            log_loss_after=None,
            note="there are no validation rows; the model's own probabilities are used",
        )
    log_probs = validation.scores.log_probabilities
    note = None
    fitted = fit_temperature(log_probs, validation.truth)
    if fitted.at_limit:
        fitted = Temperature(1.0)
        note = "the validation rows determine no temperature; the model's own probabilities are used"
    before, after = (
        compute_log_loss(temperature.apply(log_probs), validation.truth, inputs="log_probabilities")
        for temperature in (Temperature(1.0), fitted)
    )
    return CertifiedTemperature(
        value=fitted.value, n=n, log_loss_before=before, log_loss_after=after, note=note
    )


def fit_sets(rows: ScoredRows, temperature: float, config: ConformalConfig) -> ConformalPredictor:
    """Set the threshold of the prediction sets."""
    log_probs = Temperature(temperature).apply(rows.scores.log_probabilities)
    predictor = ConformalPredictor(config.method, inputs="log_probabilities")
    return predictor.calibrate(log_probs, rows.truth, config.alpha)


def certify_sets(predictor: ConformalPredictor) -> CertifiedSets:
    """Write down what the prediction sets promise."""
    law, everything = coverage_law(predictor), predictor.covers_everything
    low, high, _ = law.interval(0.95)
    n, rank = predictor.n_calibration, predictor.rank
    return CertifiedSets(
        method=predictor.method,
        alpha=predictor.alpha,
        n=n,
        rank=rank,
        threshold=None if everything else predictor.threshold,
        expected_coverage=law.expected,
        coverage_low=low,
        coverage_high=high,
        covers_everything=everything,
        statement=state_sets(predictor.alpha, n, rank, low, high, everything=everything),
    )


def certify_risk(rows: ScoredRows, rule: DecisionRule, config: RiskConfig) -> CertifiedRisk | InfeasibleRisk:
    """Set the threshold of the final rule, or say that none can be promised.

    Raises
    ------
    InfeasibleGuarantee
        No threshold can be promised, and the configuration asks for an error then.
    """
    rulings, n = rule.apply(rows.scores), len(rows.examples)
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
            raise InfeasibleGuarantee(
                f"{error.what}, on the {n} calibration rows that this rests on "
                "(the other half sets the shortlists)",
                where="risk",
                seen=error.seen,
                remedy=f"{error.remedy}; or set risk.on_infeasible: abstain, which hands everything over",
                needed=error.needed,
            ) from error
        return InfeasibleRisk(
            level=config.level,
            delta=config.delta,
            n=n,
            reason=error.what,
            needed=error.needed,
            statement=state_infeasible(config.level, config.delta, n, error.needed),
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
        statement=state_risk(config.level, config.delta, n, found.n_answered, found.n_errors),
    )
