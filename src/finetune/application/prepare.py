"""Prepare: labelled rows to checked, divided instruction data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from finetune.application.config import ProjectConfig
from finetune.application.decision_rule import costs_of
from finetune.application.labels_file import LabelsFile
from finetune.application.ports import (
    Clock,
    EncodedExample,
    EncoderOpener,
    ExampleSource,
    Progress,
    ProgressTask,
    PromptEncoder,
    StoreOpener,
)
from finetune.application.prepare_notices import dropped_abstention, find_notices
from finetune.application.prepare_report import (
    LossExample,
    PrepareReport,
    find_conflicts,
    label_counts,
    token_lengths,
)
from finetune.application.prepare_rows import ReadRows, read_rows, rejection_error
from finetune.application.prepared import check_prepared, preparation_facts, read_prepared
from finetune.application.prompting import build_prompt
from finetune.domain.errors import InsufficientData, LeakageDetected
from finetune.domain.examples import Example
from finetune.domain.labels import ABSTAIN
from finetune.domain.prompts import PromptFormat, answer_text
from finetune.domain.splits import SPLITS, DuplicateReport, assign_splits, detect_leakage, remove_duplicates

__all__ = ["Prepare", "check_prepared", "read_prepared"]


@dataclass(frozen=True)
class Prepare:
    """Reads, checks, removes duplicates, divides and encodes; writes only when all of it went well.

    Parameters
    ----------
    source, stores, encoders, progress, clock
        The ports it works through.
    """

    source: ExampleSource
    stores: StoreOpener
    encoders: EncoderOpener
    progress: Progress
    clock: Clock

    def __call__(self, config: ProjectConfig, labels: LabelsFile) -> PrepareReport:
        """Write the prepared folder of a configuration.

        The folder is written beside its place and put there at the end: interrupted or failed, what
        was prepared before stays as it was, but for ``rejects.jsonl``, which lists the rows that
        cannot be used also where they are the error.

        Raises
        ------
        InvalidInput
            A file, a row (unless ``data.on_bad_row`` is ``skip``), the costs or a repeated id.
        InsufficientData
            A split would be empty.
        LeakageDetected
            Nearly equal texts in two splits: never, unless the removal of duplicates is at fault.
        """
        rows = read_rows(self.source, config.data, labels.label_set(), self.progress)
        rejects = [row._asdict() for row in rows.rejected]
        if rows.rejected and config.data.on_bad_row == "error":
            place = self.stores(config.prepared_folder)
            place.write_examples("rejects.jsonl", rejects)
            raise rejection_error(rows.rejected, str(place.folder / "rejects.jsonl"))
        effective = _effective(labels, rows.examples)
        label_set = effective.label_set()
        costs_of(label_set.outcomes, effective.costs)
        duplicates = self._duplicates(rows, config)
        kept = [rows.examples[row] for row in duplicates.keep.nonzero()[0]]
        splits = self._divide(kept, config)
        prompt = build_prompt(config.prompt, label_set)
        encoder = self.encoders(config, label_set, prompt)
        encoded = self._encode(kept, splits, encoder)

        counts = label_counts(kept, splits, label_set.outcomes)
        conflicts = find_conflicts(rows.examples, rows.positions, duplicates)
        notices = find_notices(counts, duplicates, len(rejects), config)
        if effective is not labels:
            notices.insert(0, dropped_abstention())
        report = PrepareReport(
            folder=config.prepared_folder,
            read=rows.total,
            rejected=tuple(rows.rejected),
            exact_duplicates=duplicates.exact,
            near_duplicates=duplicates.near,
            conflicts=conflicts,
            labels=counts,
            tokens={split: token_lengths(encoded[split]) for split in SPLITS},
            example=_loss_example(kept[splits.index("train")], encoded["train"][0], encoder),
            notices=tuple(notices),
        )
        store = self.stores(config.prepared_folder.with_name(f".{config.prepared_folder.name}.partial"))
        for split in SPLITS:
            chosen = [example for example, where in zip(kept, splits, strict=True) if where == split]
            store.write_examples(f"{split}.jsonl", [_document(example, prompt) for example in chosen])
        store.write_examples("rejects.jsonl", rejects)
        listed = [{"kind": "conflict", **asdict(conflict)} for conflict in conflicts]
        store.write_examples("duplicates.jsonl", [*listed, *_removed(rows, duplicates)])
        store.write_yaml("labels.yaml", effective.document())
        store.write_json("report.json", report.document())
        made_for = {**preparation_facts(config), "labels": labels.label_set().fingerprint()}
        store.seal({"version": 1, "created": self.clock.now(), "made_for": made_for})
        store.publish(config.prepared_folder)
        return report

    def _duplicates(self, rows: ReadRows, config: ProjectConfig) -> DuplicateReport:
        texts = [example.text for example in rows.examples]
        with self.progress.task("Looking for duplicates", total=len(texts)) as task:
            return remove_duplicates(
                texts,
                [example.label for example in rows.examples],
                [example.split for example in rows.examples],
                threshold=_threshold(config),
                on_progress=_advancer(task, len(texts)),
            )

    def _divide(self, kept: Sequence[Example], config: ProjectConfig) -> list[str]:
        texts = [example.text for example in kept]
        splits = assign_splits(
            texts,
            [example.label for example in kept],
            config.data.split.model_dump(),
            seed=config.data.seed,
            preset=[example.split for example in kept],
        )
        sizes = Counter(splits)
        if not all(sizes[split] for split in SPLITS):
            raise InsufficientData(
                "a split has no rows",
                where="data.split",
                seen={split: sizes[split] for split in SPLITS},
                remedy="add rows, or change the shares in data.split or the pinned files in data.files",
            )
        with self.progress.task("Checking that the splits are apart", total=len(texts)) as task:
            leaks = detect_leakage(texts, splits, _threshold(config), _advancer(task, len(texts)))
        if leaks:
            first = leaks[0]
            raise LeakageDetected(
                f"{len(leaks):,} pairs of nearly equal texts are in two splits",
                where=f"rows {kept[first.row_a].id} and {kept[first.row_b].id}",
                seen=texts[first.row_a],
                remedy="report this as a bug: duplicates are removed before the rows are divided",
            )
        return splits

    def _encode(
        self, kept: Sequence[Example], splits: Sequence[str], encoder: PromptEncoder
    ) -> dict[str, list[EncodedExample]]:
        encoded: dict[str, list[EncodedExample]] = {split: [] for split in SPLITS}
        with self.progress.task("Encoding", total=len(kept)) as task:
            for example, split in zip(kept, splits, strict=True):
                encoded[split].append(encoder.encode(example))
                task.advance()
        return encoded


def _effective(labels: LabelsFile, examples: Sequence[Example]) -> LabelsFile:
    """Return the labels of the run: abstention is an outcome only where the data have examples of it."""
    if labels.abstain is None or any(example.label == ABSTAIN for example in examples):
        return labels
    return labels.without_abstention()


def _threshold(config: ProjectConfig) -> float:
    threshold = config.data.near_duplicate_threshold
    return 1.0 if threshold is None else threshold


def _advancer(task: ProgressTask, total: int) -> Callable[[int, int], None]:
    """Return a callback for work that is counted in distinct texts, of which there may be fewer."""
    shown = 0

    def advance(done: int, of: int) -> None:
        nonlocal shown
        now = total if done == of else done
        task.advance(now - shown)
        shown = now

    return advance


def _document(example: Example, prompt: PromptFormat) -> dict[str, Any]:
    return {
        "id": example.id,
        "text": example.text,
        "label": example.label,
        "rationale": example.rationale,
        "metadata": dict(example.metadata),
        "messages": prompt.messages(example.text),
        "answer": answer_text(str(example.label), example.rationale or ""),
    }


def _removed(rows: ReadRows, duplicates: DuplicateReport) -> list[Mapping[str, Any]]:
    return [
        {
            "kind": "removed",
            "position": rows.positions[row],
            "id": rows.examples[row].id,
            "text": rows.examples[row].text,
            "label": rows.examples[row].label,
            "kept_position": rows.positions[kept_row],
            "kept_id": rows.examples[kept_row].id,
            "kept_label": rows.examples[kept_row].label,
            "similarity": round(similarity, 4),
        }
        for row, kept_row, similarity in duplicates.removed
    ]


def _loss_example(example: Example, encoded: EncodedExample, encoder: PromptEncoder) -> LossExample:
    tokens = encoder.tokens(encoded.ids)
    return LossExample(
        example.id,
        tuple((token, position >= encoded.answer_start) for position, token in enumerate(tokens)),
    )
