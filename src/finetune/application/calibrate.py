"""Calibrate: held-out rows to a certificate of what the run's decisions are worth."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from finetune.application import certificate as certificates
from finetune.application.batch_effect import MEASURED_ROWS, measure_batch_effect
from finetune.application.certificate import Certificate
from finetune.application.certified import CertifiedBatchEffect, CertifiedData, CertifiedModel
from finetune.application.certify import Basis, certify
from finetune.application.config import ProjectConfig
from finetune.application.decision_rule import costs_of
from finetune.application.labels_file import Costs, LabelsFile
from finetune.application.ports import (
    ArtifactStore,
    Clock,
    DecisionModel,
    LabelScores,
    ModelOpener,
    Progress,
    StoreOpener,
)
from finetune.application.prepared import read_prepared
from finetune.application.runs import OF_AN_EVALUATION, open_prepared, open_run, score_split
from finetune.application.scored_rows import ScoredRows, halves
from finetune.application.statements import NOT_PROMISED
from finetune.domain.errors import InsufficientData
from finetune.domain.labels import ABSTAIN, LabelSet


@dataclass(frozen=True)
class Calibrate:
    """Fits the map and both thresholds of a run, each on rows that nothing else has seen.

    Parameters
    ----------
    models, stores, progress, clock
        The ports it works through.

    Notes
    -----
    The map is fitted on the validation rows.  The calibration rows are halved by a hash of their ids: one
    half sets the threshold of the prediction sets, the other the threshold of the whole final rule.  So
    each guarantee holds exactly, given what was fitted before it.
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
        costs_of(run.labels.outcomes, costs)  # a wrong table is found before the model is loaded
        model = run.open_model(self.models)
        self.progress.say(model.notice)
        found = certify_model(config, run.labels, prepared, model, costs, self.progress, self.clock)
        for stale in OF_AN_EVALUATION:
            run.store.remove(stale)
        found.write(run.store)
        run.finish()
        return found.certificate


class CertifiedRun(NamedTuple):
    """A certificate, and the scores that it rests on."""

    certificate: Certificate
    validation: ScoredRows
    calibration: ScoredRows

    def write(self, store: ArtifactStore) -> None:
        """Write ``calibration.json`` and the scores."""
        outcomes = self.certificate.outcomes
        store.write_examples("scores_validation.jsonl", self.validation.rows(outcomes))
        store.write_examples("scores_calibration.jsonl", self.calibration.rows(outcomes))
        store.write_json(certificates.FILE, self.certificate.document())


def certify_model(
    config: ProjectConfig,
    labels: LabelSet,
    prepared: ArtifactStore,
    model: DecisionModel,
    costs: Costs | None,
    progress: Progress,
    clock: Clock,
) -> CertifiedRun:
    """Score the held-out rows with a model, and say what can be promised of its decisions.

    Parameters
    ----------
    config
        What is asked for.
    labels
        The label set of the model.
    prepared
        Validation and calibration rows, of which the model has seen none.
    model
        An opened model.
    costs
        What decisions cost; None: the likeliest label is the action.
    progress, clock
        Ports.

    Raises
    ------
    InsufficientData, InfeasibleGuarantee, IntegrityError
        As for :class:`Calibrate`.
    """
    validation = score_split(prepared, "validation", labels, model, progress)
    calibration = score_split(prepared, "calibration", labels, model, progress)
    if len(calibration) < 2:
        raise InsufficientData(
            "calibration needs at least two rows, one for each threshold",
            where=str(prepared.folder / "calibration.jsonl"),
            seen=len(calibration),
            remedy="prepare with a greater share of calibration rows",
        )
    basis = Basis(validation, *halves(calibration, config.data.seed))
    rng = np.random.default_rng(config.data.seed)
    found = certify(basis, config, labels.outcomes, costs, "message", rng)
    certificate = Certificate(
        created=clock.now(),
        task=labels.task,
        model=CertifiedModel(**asdict(model.identity)),
        label_set_hash=labels.fingerprint(),
        outcomes=labels.outcomes,
        config_hash=config.fingerprint(),
        data=CertifiedData(
            validation_hash=prepared.sha256("validation.jsonl"),
            calibration_hash=prepared.sha256("calibration.jsonl"),
            validation_rows=len(basis.validation),
            conformal_rows=len(basis.for_sets),
            selective_rows=len(basis.for_risk),
            seed=config.data.seed,
        ),
        map=found.map,
        conformal=found.conformal,
        selective=found.selective,
        scope=found.scope,
        batch_effect=_batch_effect(prepared, model, calibration.scores, progress),
        abstain_on_ambiguous_set=config.risk.abstain_on_ambiguous_set,
        costs=costs,
        not_promised=NOT_PROMISED,
    )
    return CertifiedRun(certificate, validation, calibration)


def _batch_effect(
    prepared: ArtifactStore, model: DecisionModel, together: LabelScores, progress: Progress
) -> CertifiedBatchEffect:
    rows = read_prepared(prepared, "calibration")[:MEASURED_ROWS]
    with progress.task("scoring rows alone, to compare", len(rows)) as task:
        return measure_batch_effect(
            model.scorer, [row.text for row in rows], together.part(slice(len(rows))), task
        )
