"""Calibrate: held-out rows to a certificate of what the run's decisions are worth."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from finetune.application import certificate as certificates
from finetune.application.batch_effect import MEASURED_ROWS, measure_batch_effect
from finetune.application.certificate import Certificate
from finetune.application.certified import CertifiedBatchEffect, CertifiedData, CertifiedModel
from finetune.application.certify import Basis, certify
from finetune.application.config import ProjectConfig
from finetune.application.decision_rule import costs_of
from finetune.application.labels_file import LabelsFile
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
from finetune.application.scored_rows import halves
from finetune.application.statements import NOT_PROMISED
from finetune.domain.errors import InsufficientData
from finetune.domain.labels import ABSTAIN


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
        validation = score_split(prepared, "validation", run.labels, model, self.progress)
        calibration = score_split(prepared, "calibration", run.labels, model, self.progress)
        run.store.write_examples("scores_validation.jsonl", validation.rows(run.labels.outcomes))
        run.store.write_examples("scores_calibration.jsonl", calibration.rows(run.labels.outcomes))
        if len(calibration) < 2:
            raise InsufficientData(
                "calibration needs at least two rows, one for each threshold",
                where=str(prepared.folder / "calibration.jsonl"),
                seen=len(calibration),
                remedy="prepare with a greater share of calibration rows",
            )
        basis = Basis(validation, *halves(calibration, config.data.seed))
        rng = np.random.default_rng(config.data.seed)
        found = certify(basis, config, run.labels.outcomes, costs, "message", rng)
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
                validation_rows=len(basis.validation),
                conformal_rows=len(basis.for_sets),
                selective_rows=len(basis.for_risk),
                seed=config.data.seed,
            ),
            map=found.map,
            conformal=found.conformal,
            selective=found.selective,
            batch_effect=self._batch_effect(prepared, model, calibration.scores),
            abstain_on_ambiguous_set=config.risk.abstain_on_ambiguous_set,
            costs=costs,
            not_promised=NOT_PROMISED,
        )
        for stale in OF_AN_EVALUATION:
            run.store.remove(stale)
        run.store.write_json(certificates.FILE, certificate.document())
        run.finish()
        return certificate

    def _batch_effect(
        self, prepared: ArtifactStore, model: DecisionModel, together: LabelScores
    ) -> CertifiedBatchEffect:
        rows = read_prepared(prepared, "calibration")[:MEASURED_ROWS]
        with self.progress.task("scoring rows alone, to compare", len(rows)) as task:
            return measure_batch_effect(
                model.scorer, [row.text for row in rows], together.part(slice(len(rows))), task
            )
