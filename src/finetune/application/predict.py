"""Predict: texts to decision records, one for every row that comes in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from finetune.application.config import Columns, DataFile, ProjectConfig
from finetune.application.decider import Item, check_text, open_decider
from finetune.application.outputs import refuse_overwriting
from finetune.application.ports import (
    BadRow,
    ExampleSource,
    ModelOpener,
    Progress,
    RawRow,
    SinkOpener,
    StoreOpener,
)
from finetune.domain.decisions import REASONS, DecisionRecord
from finetune.domain.examples import content_id
from finetune.domain.labels import digest

# Forwards between two writes of the output: few enough to lose little, many enough to batch by length.
_BATCHES_PER_WRITE = 16
_SHOWN_REJECTS = 20


class Reject(NamedTuple):
    """A row that could not be decided on, and why; its record has the reason ``error`` or ``too_long``."""

    id: str
    position: str
    problem: str


@dataclass(frozen=True)
class PredictReport:
    """What became of a file.

    Parameters
    ----------
    output
        Where the records are.
    rows, continued
        Records in all, and how many an earlier, interrupted call had written.
    answered, abstentions
        Counts over the records that this call wrote; abstentions by reason.
    rejects
        All rows of the file that could not be decided on.
    """

    output: Path
    rows: int
    continued: int
    answered: int
    abstentions: dict[str, int]
    rejects: tuple[Reject, ...]

    def document(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "version": 1,
            "output": str(self.output),
            "rows": self.rows,
            "continued": self.continued,
            "answered": self.answered,
            "abstentions": self.abstentions,
            "rejects": [reject._asdict() for reject in self.rejects],
        }


@dataclass(frozen=True)
class Predict:
    """Decides under the certificate of a run; without a certificate that fits, it refuses.

    Parameters
    ----------
    models, stores, source, sinks, progress
        The ports it works through.
    """

    models: ModelOpener
    stores: StoreOpener
    source: ExampleSource
    sinks: SinkOpener
    progress: Progress

    def text(
        self, config: ProjectConfig, texts: Sequence[str], rationale: bool | None = None
    ) -> list[DecisionRecord]:
        """Decide on texts.

        Parameters
        ----------
        config
            The configuration of the run.
        texts
            Any texts; one that cannot be scored gets a record with the reason ``error`` or ``too_long``, and
            what is wrong is shown.
        rationale
            Whether to write rationales; None: as the configuration says.

        Returns
        -------
        list[DecisionRecord]
            In the order of the texts.

        Raises
        ------
        InvalidInput
            The run was not trained, or not calibrated.
        IntegrityError
            The certificate does not fit what was loaded.
        """
        wanted = _wanted(rationale, config)
        decider = open_decider(config, self.models, self.stores, rationale=wanted)
        self.progress.say(decider.model.notice)
        ids = _Ids()
        items = [check_text(ids.of(text), text, config.data.max_text_chars) for text in texts]
        for number, item in enumerate(items, start=1):
            if item.problem:
                self.progress.say(f"text {number}: {item.problem}")
        with self.progress.task("deciding", len(items)) as task:
            return decider.decide(items, rationale=wanted, task=task)

    def file(
        self,
        config: ProjectConfig,
        input: Path,
        output: Path,
        rationale: bool | None = None,
        columns: Columns | None = None,
    ) -> PredictReport:
        """Decide on every row of a file; an interrupted call is continued by calling it again.

        Parameters
        ----------
        config
            The configuration of the run.
        input, output
            Files; their types are told by suffix.  Every input row gives exactly one record, in order.
        rationale
            Whether to write rationales; None: as the configuration says.
        columns
            Where text and id are; None: as the configuration says.

        Raises
        ------
        InvalidInput
            The run was not trained or calibrated, or a file cannot be read or written.
        IntegrityError
            The certificate does not fit what was loaded.
        """
        refuse_overwriting(output, input)
        columns, wanted = columns or config.data.columns, _wanted(rationale, config)
        total = sum(1 for _ in self.source.read(DataFile(path=input), columns))
        decider = open_decider(config, self.models, self.stores, rationale=wanted)
        self.progress.say(decider.model.notice)
        # The same work: these bytes, this certificate, read and written in the same way.
        key = digest(
            [
                self.stores(input.parent).sha256(input.name),
                decider.certificate.hash,
                columns.model_dump(mode="json"),
                config.data.max_text_chars,
                wanted,
            ]
        )
        sink = self.sinks(output, key)
        done = sink.done
        if sink.notice:
            self.progress.say(sink.notice)
        rows, rejects = 0, list[Reject]()
        counted: Counter[str] = Counter()
        placed = self._items(input, columns, config.data.max_text_chars)
        with self.progress.task("deciding", total) as task:
            while chunk := list(islice(placed, config.prediction.batch_size * _BATCHES_PER_WRITE)):
                rejects += [
                    Reject(item.id, position, item.problem) for position, item in chunk if item.problem
                ]
                items = [item for _, item in chunk][max(done - rows, 0) :]
                task.advance(len(chunk) - len(items))
                rows += len(chunk)
                if items:
                    records = decider.decide(items, rationale=wanted, task=task)
                    sink.write(records)
                    counted.update(record.abstain_reason for record in records)
        sink.finish()
        for reject in rejects[:_SHOWN_REJECTS]:
            self.progress.say(f"{reject.position}: {reject.problem}")
        if len(rejects) > _SHOWN_REJECTS:
            self.progress.say(f"and {len(rejects) - _SHOWN_REJECTS:,} more rows that could not be decided on")
        return PredictReport(
            output=output,
            rows=rows,
            continued=min(done, rows),
            answered=counted["none"],
            abstentions={reason: counted[reason] for reason in REASONS[1:] if counted[reason]},
            rejects=tuple(rejects),
        )

    def _items(self, input: Path, columns: Columns, max_chars: int) -> Iterator[tuple[str, Item]]:
        ids = _Ids()
        for row in self.source.read(DataFile(path=input), columns):
            yield row.position, _item(row, columns, max_chars, ids)


class _Ids:
    """Ids for texts that have none: by content, with a suffix from the second of equal texts on."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def of(self, text: str) -> str:
        content = content_id(text, None)
        self._seen[content] += 1
        return content if self._seen[content] == 1 else f"{content}-{self._seen[content]}"


def _item(row: RawRow | BadRow, columns: Columns, max_chars: int, ids: _Ids) -> Item:
    if isinstance(row, BadRow):
        return Item(row.position, "", "error", row.problem)
    text = str(row.values.get(columns.text) or "")
    given = row.values.get(columns.id) if columns.id is not None else None
    return check_text(str(given) if given not in (None, "") else ids.of(text), text, max_chars)


def _wanted(rationale: bool | None, config: ProjectConfig) -> bool:
    return config.prediction.rationale if rationale is None else rationale
