"""Calibrate probabilities of any model: a file of them to a certificate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from finetune.application.certificate import Certificate
from finetune.application.certified import CertifiedData, CertifiedProbabilities
from finetune.application.certify import Basis, certify
from finetune.application.external import file_hash, inputs_for, refuse_seen, score_file
from finetune.application.labels_file import LabelsFile
from finetune.application.outputs import refuse_overwriting, require_json
from finetune.application.ports import (
    Clock,
    ProbabilityFile,
    ProbabilityRows,
    ProbabilitySource,
    Progress,
    StoreOpener,
)
from finetune.application.probability_rows import add_truth, decimals_of, labels_of_columns
from finetune.application.row_problems import SHOWN
from finetune.application.scored_rows import ScoredRows, halves
from finetune.application.seen_ids import remember
from finetune.application.settings import GuaranteeConfig
from finetune.application.statements import NOT_PROMISED_OF_PROBABILITIES
from finetune.domain.errors import InsufficientData, LeakageDetected
from finetune.domain.labels import LabelSet
from finetune.domain.splits import hash_order


class _Rows(NamedTuple):
    """The rows of both files, checked, and what is known of them."""

    validation: ScoredRows
    calibration: ScoredRows
    labels: LabelsFile
    read_as: ProbabilityRows
    decimals: int | None
    hashes: tuple[str, str]
    named: bool


@dataclass(frozen=True)
class CalibrateProbabilities:
    """Fits the map and both thresholds on rows of a file, as :class:`Calibrate` does on those of a run.

    Parameters
    ----------
    source, stores, progress, clock
        The ports it works through.
    """

    source: ProbabilitySource
    stores: StoreOpener
    progress: Progress
    clock: Clock

    def __call__(
        self,
        config: GuaranteeConfig,
        file: ProbabilityFile,
        output: Path,
        *,
        validation: Path | None = None,
        labels: LabelsFile | None = None,
    ) -> Certificate:
        """Calibrate and write the certificate.

        Parameters
        ----------
        config
            What is asked for.
        file
            Labelled rows that the model was not trained on.  Without ``validation`` a share of them, chosen
            by a hash of their ids, fits the map; the others are halved, as those of a run are.
        output
            Where the certificate goes.
        validation
            A file of rows for the map, read in the same way.
        labels
            Names, aliases and costs of the outcomes; None: the columns of the file, without costs.

        Raises
        ------
        InvalidInput
            A file, a row or a column cannot be used.
        InsufficientData
            Fewer than two rows are left for the thresholds.
        InfeasibleGuarantee
            The error rate cannot be promised with these rows, and ``risk.on_infeasible`` is ``error``.
        LeakageDetected
            A validation row is a calibration row too.
        """
        require_json(output)
        refuse_overwriting(output, file.path, *([] if validation is None else [validation]))
        rows = self._rows(config, file, validation, labels)
        if len(rows.calibration) < 2:
            raise InsufficientData(
                "calibration needs at least two rows, one for each threshold",
                where=str(file.path),
                seen=len(rows.calibration),
                remedy="give more rows, or fewer of them to the map with -s validation=0.1",
            )
        label_set, costs = rows.labels.label_set(), None if labels is None else labels.costs
        self._say_absent(rows, label_set, file.path)
        basis = Basis(rows.validation, *halves(rows.calibration, config.seed))
        with self.progress.task("setting map and thresholds", 1) as task:
            rng = np.random.default_rng(config.seed)
            found = certify(basis, config, label_set.outcomes, costs, "case", rng)
            task.advance()
        certificate = Certificate(
            created=self.clock.now(),
            task=rows.labels.task,
            model=CertifiedProbabilities(
                source=file.path.name,
                inputs=rows.read_as.inputs,
                decimals=rows.decimals,
                label=file.label or "label",
                id=file.id,
                labels=rows.labels.labels,
                abstain=rows.labels.abstain,
            ),
            label_set_hash=label_set.fingerprint(),
            outcomes=label_set.outcomes,
            config_hash=config.fingerprint(),
            data=CertifiedData(
                validation_hash=rows.hashes[0],
                calibration_hash=rows.hashes[1],
                validation_rows=len(basis.validation),
                conformal_rows=len(basis.for_sets),
                selective_rows=len(basis.for_risk),
                seed=config.seed,
                ids=remember([*rows.validation.ids, *rows.calibration.ids]) if rows.named else None,
            ),
            map=found.map,
            conformal=found.conformal,
            selective=found.selective,
            scope=found.scope,
            abstain_on_ambiguous_set=config.risk.abstain_on_ambiguous_set,
            costs=costs,
            not_promised=NOT_PROMISED_OF_PROBABILITIES,
        )
        self.stores(output.parent).write_json(output.name, certificate.document())
        return certificate

    def _say_absent(self, rows: _Rows, labels: LabelSet, path: Path) -> None:
        """Name the labels that no row has: perhaps their columns are no outcomes."""
        met = {*np.unique(rows.validation.truth).tolist(), *np.unique(rows.calibration.truth).tolist()}
        absent = [name for name in labels.names if labels.index(name) not in met]
        if absent:
            more = f" and {len(absent) - SHOWN:,} more" if len(absent) > SHOWN else ""
            self.progress.say(
                f"{path}: no row has the label {', '.join(map(repr, absent[:SHOWN]))}{more}; "
                "is it an outcome, and are these rows like the cases to come?"
            )

    def _rows(
        self,
        config: GuaranteeConfig,
        file: ProbabilityFile,
        validation: Path | None,
        labels: LabelsFile | None,
    ) -> _Rows:
        if labels is not None:
            file = replace(file, outcomes=labels.label_set().outcomes)
        read = self.source.read(file, self.progress)
        labels = labels or labels_of_columns(read)
        label_set, decimals = labels.label_set(), decimals_of(read)

        def check(rows: ProbabilityRows) -> ScoredRows:
            scored = score_file(rows, label_set.outcomes, decimals, self.progress)
            return add_truth(scored, rows, label_set)

        calibration, own_hash = check(read), file_hash(file.path, self.stores)
        if validation is None:
            share = 0.0 if config.calibration.map == "none" else config.validation
            chosen, calibration = cut(calibration, share, config.seed)
            named = read.ids is not None
            return _Rows(chosen, calibration, labels, read, decimals, (own_hash, own_hash), named)
        other_hash = file_hash(validation, self.stores)
        if other_hash == own_hash:
            raise LeakageDetected(
                "the validation rows are the calibration rows",
                where=str(validation),
                remedy="leave --validation away: a share of the rows is then taken for it",
            )
        # The same columns, read in the same way, whatever else the other file holds.
        inputs = inputs_for(validation, file.inputs, read.inputs)
        like = replace(file, path=validation, outcomes=label_set.outcomes, inputs=inputs)
        others = self.source.read(like, self.progress)
        chosen, named = check(others), read.ids is not None and others.ids is not None
        if named:
            known = set(calibration.ids)
            both = [row for row, name in enumerate(chosen.ids) if name in known]
            refuse_seen(both, chosen.ids, others, f"as a calibration row, in {file.path}")
        return _Rows(chosen, calibration, labels, read, decimals, (other_hash, own_hash), named)


def cut(rows: ScoredRows, share: float, seed: int) -> tuple[ScoredRows, ScoredRows]:
    """Take a share of the rows for the map, by a hash of their ids; the others follow.

    The hash is independent of the one that halves the others.
    """
    order = np.array(hash_order(rows.ids, seed, "map"), dtype=np.int64)
    taken = int(share * len(rows))
    return rows.part(np.sort(order[:taken])), rows.part(np.sort(order[taken:]))
