"""Evaluate: put a certificate to the test on rows that nothing has seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finetune.application.comparison import compare
from finetune.application.config import ProjectConfig
from finetune.application.evaluation import EvaluationReport, evaluate_rows
from finetune.application.ports import Clock, ModelOpener, Progress, ReportWriter, StoreOpener
from finetune.application.runs import open_prepared, open_run, score_split
from finetune.domain.errors import InsufficientData, IntegrityError


@dataclass(frozen=True)
class Evaluate:
    """Measures a calibrated run on its test rows.

    Parameters
    ----------
    models, stores, report, progress, clock
        The ports it works through.
    """

    models: ModelOpener
    stores: StoreOpener
    report: ReportWriter
    progress: Progress
    clock: Clock

    def __call__(
        self, config: ProjectConfig, *, base: bool = False, against: Path | None = None
    ) -> EvaluationReport:
        """Evaluate and write ``evaluation.json``, then ``report.html``.

        Parameters
        ----------
        config
            The configuration of the run.
        base
            Whether to score the rows without the adapter as well, for comparison.
        against
            Folder of another run, evaluated on the same test rows, to compare with.

        Raises
        ------
        InsufficientData
            There are no test rows.
        InvalidInput
            The other run was not evaluated, or on other rows.
        IntegrityError
            The certificate belongs to another model, adapter, prompt, label set or calibration data.
        MissingExtra
            The packages for the HTML page are missing; ``evaluation.json`` is written all the same.
        """
        run = open_run(config, self.stores)
        certificate = run.certificate()
        prepared = open_prepared(run, self.stores)
        if certificate.data.calibration_hash != prepared.sha256("calibration.jsonl"):
            raise IntegrityError(
                "the calibration rows are not those of the certificate",
                where=str(prepared.folder),
                remedy="run `finetune calibrate` again",
            )
        model = run.open_model(self.models)
        self.progress.say(model.notice)
        certificate.check(model.identity, run.labels)
        test = score_split(prepared, "test", run.labels, model, self.progress)
        if not len(test):
            raise InsufficientData(
                "there are no test rows",
                where=str(prepared.folder / "test.jsonl"),
                remedy="prepare with a greater share of test rows",
            )
        run.store.write_examples("scores_test.jsonl", test.rows(run.labels.outcomes))
        beside = None if against is None else compare(self.stores(against), test, run.labels.outcomes)
        without = None
        del model  # two of them at once may be more than the memory holds
        if base:
            alone = run.open_model(self.models, base=True)
            without = score_split(prepared, "test", run.labels, alone, self.progress)
        report = evaluate_rows(
            certificate,
            test,
            without,
            np.random.default_rng(config.data.seed),
            {
                "created": self.clock.now(),
                "run": config.name,
                "test_hash": prepared.sha256("test.jsonl"),
            },
            beside,
        )
        # An old page beside new numbers would mislead, should the new page not come about.
        run.store.remove("report.html")
        run.store.write_json("evaluation.json", report.document())
        run.finish()
        run.store.write_text("report.html", self.report.render(report.document()))
        run.finish()
        return report
