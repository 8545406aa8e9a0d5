"""Predict from probabilities of any model: one decision record for every row of a file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from finetune.application.decision_rule import certified_rule
from finetune.application.external import (
    AS_CALIBRATED,
    Reading,
    file_hash,
    open_external,
    score_file,
)
from finetune.application.outputs import refuse_overwriting
from finetune.application.ports import ProbabilitySource, Progress, SinkOpener, StoreOpener
from finetune.application.predict import PredictReport
from finetune.application.records import build_records
from finetune.domain.decisions import REASONS
from finetune.domain.errors import InsufficientData
from finetune.domain.labels import digest

_ROWS_PER_WRITE = 4096


@dataclass(frozen=True)
class PredictProbabilities:
    """Decides on rows of a file under a certificate of probabilities.

    Parameters
    ----------
    source, stores, sinks, progress
        The ports it works through.
    """

    source: ProbabilitySource
    stores: StoreOpener
    sinks: SinkOpener
    progress: Progress

    def __call__(
        self,
        certificate: Path,
        input: Path,
        output: Path,
        *,
        reading: Reading = AS_CALIBRATED,
    ) -> PredictReport:
        """Decide on every row; an interrupted call is continued by calling it again.

        Parameters
        ----------
        certificate
            What ``finetune calibrate --probabilities`` wrote.
        input
            Rows of the same model; a column of labels is not looked at.
        output
            Where the records go, one for each row, in order.
        reading
            How the file is to be read, where it differs from the calibrated one.

        Raises
        ------
        InvalidInput
            A file, a row or a column cannot be used: nothing is decided then.
        InsufficientData
            There are no rows.
        IntegrityError
            The certificate is damaged.
        """
        refuse_overwriting(output, certificate, input)
        opened = open_external(certificate, self.stores)
        rule, file = certified_rule(opened.certificate), opened.file(input, reading, labelled=False)
        rows = self.source.read(file, self.progress)
        scored = score_file(rows, opened.certificate.outcomes, opened.model.decimals, self.progress)
        n = len(scored.ids)
        if n == 0:
            raise InsufficientData("there are no rows", where=str(input), remedy="give at least one")
        key = digest([file_hash(input, self.stores), opened.certificate.hash, rows.inputs, file.id])
        sink = self.sinks(output, key)
        if sink.notice:
            self.progress.say(sink.notice)
        counted: Counter[str] = Counter()
        with self.progress.task("deciding", n) as task:
            task.advance(sink.done)
            for start in range(sink.done, n, _ROWS_PER_WRITE):
                part = slice(start, min(start + _ROWS_PER_WRITE, n))
                rulings = rule.apply(scored.scores.part(part))
                sink.write(build_records(opened.certificate, scored.ids[part], rulings))
                counted.update(rulings.reasons)
                task.advance(part.stop - part.start)
            done = sink.done
        sink.finish()
        return PredictReport(
            output=output,
            rows=n,
            continued=done,
            answered=counted["none"],
            abstentions={reason: counted[reason] for reason in REASONS[1:] if counted[reason]},
            rejects=(),
        )
