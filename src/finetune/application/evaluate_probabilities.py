"""Evaluate probabilities of any model: put their certificate to the test on rows that nothing has seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finetune.application.certificate import Certificate
from finetune.application.evaluation import EvaluationReport, evaluate_rows
from finetune.application.external import (
    AS_CALIBRATED,
    Reading,
    file_hash,
    open_external,
    refuse_seen,
    score_file,
)
from finetune.application.outputs import refuse_overwriting, require_json
from finetune.application.ports import Clock, ProbabilitySource, Progress, ReportWriter, StoreOpener
from finetune.application.probability_rows import add_truth
from finetune.application.scored_rows import ScoredRows
from finetune.domain.errors import InsufficientData, LeakageDetected


@dataclass(frozen=True)
class EvaluateProbabilities:
    """Measures a certificate of probabilities on labelled test rows.

    Parameters
    ----------
    source, stores, report, progress, clock
        The ports it works through.
    """

    source: ProbabilitySource
    stores: StoreOpener
    report: ReportWriter
    progress: Progress
    clock: Clock

    def __call__(
        self,
        certificate: Path,
        test: Path,
        output: Path,
        *,
        reading: Reading = AS_CALIBRATED,
        page: bool = True,
    ) -> EvaluationReport:
        """Evaluate and write the document, then the page beside it.

        Parameters
        ----------
        certificate
            What ``finetune calibrate --probabilities`` wrote.
        test
            Labelled rows of the same model that were neither trained on nor calibrated with.
        output
            Where the document goes; the page lies beside it, with the suffix ``.html``.
        reading
            How the file is to be read, where it differs from the calibrated one.
        page
            Whether to write the page; without, that of an earlier evaluation is removed.

        Raises
        ------
        InvalidInput
            A file, a row or a column cannot be used.
        InsufficientData
            There are no test rows.
        IntegrityError
            The certificate is damaged.
        LeakageDetected
            The test rows, or some of them, were used for the certificate.
        MissingExtra
            The packages for the page are missing; the document is written all the same.
        """
        require_json(output)
        refuse_overwriting(output, certificate, test)
        opened, beside = open_external(certificate, self.stores), output.with_suffix(".html").name
        promised = opened.certificate
        test_hash = file_hash(test, self.stores)
        if test_hash in (promised.data.calibration_hash, promised.data.validation_hash):
            raise LeakageDetected(
                "this is the file that the certificate was made from",
                where=str(test),
                remedy="evaluate on rows that were not calibrated with",
            )
        rows = self.source.read(opened.file(test, reading, labelled=True), self.progress)
        scored = add_truth(
            score_file(rows, promised.outcomes, opened.model.decimals, self.progress), rows, opened.labels
        )
        if not len(scored):
            raise InsufficientData("there are no test rows", where=str(test), remedy="give at least one")
        if rows.ids is not None and promised.data.ids is not None:
            refuse_seen(promised.data.ids.among(rows.ids), rows.ids, rows, "to make the certificate")
        with self.progress.task("measuring", 1) as task:
            found = self._measure(promised, scored, test, test_hash)
            task.advance()
        store = self.stores(output.parent)
        # An old page beside new numbers would mislead, should the new page not come about.
        if not page and store.exists(beside):
            self.progress.say(f"{output.with_name(beside)}: removed, for it showed an earlier evaluation")
        store.remove(beside)
        store.write_json(output.name, found.document())
        if page:
            store.write_text(beside, self.report.render(found.document()))
        return found

    def _measure(
        self, certificate: Certificate, scored: ScoredRows, test: Path, test_hash: str
    ) -> EvaluationReport:
        return evaluate_rows(
            certificate,
            scored,
            None,
            np.random.default_rng(certificate.data.seed),
            {"created": self.clock.now(), "run": test.name, "test_hash": test_hash},
        )
