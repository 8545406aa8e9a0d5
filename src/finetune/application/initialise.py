"""Init: a commented project to start from."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from finetune.application.config import Columns, DataFile
from finetune.application.labels_file import AbstainEntry, LabelEntry, LabelsFile
from finetune.application.ports import ExampleSource, RawRow, StoreOpener
from finetune.domain.errors import InvalidInput
from finetune.domain.labels import ABSTAIN, closest, fold

OUT_OF_SCOPE = ("oos", "out of scope", ABSTAIN)
"""Names in data that mean abstention, compared after folding."""

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_TASK_HINT = "# say what is decided here: the model reads it"
_YAML_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
_DEFAULTS = {
    "MODEL": "embedded",
    "LABELS": "configs/labels.yaml",
    "ID": "id",
    "TRAIN": "0.6",
    "VALIDATION": "0.1",
    "CALIBRATION": "0.2",
    "TEST": "0.1",
    "LIST": "true",
}


@dataclass(frozen=True)
class InitReport:
    """What was written, and the labels that were found in the data (none without data)."""

    folder: Path
    written: tuple[str, ...]
    labels: Mapping[str, int]
    skipped_rows: int

    def document(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "version": 1,
            "folder": str(self.folder),
            "written": list(self.written),
            "labels": dict(self.labels),
            "skipped_rows": self.skipped_rows,
        }


@dataclass(frozen=True)
class Init:
    """Writes the files of a new project.

    Parameters
    ----------
    source, stores
        The ports it works through.
    """

    source: ExampleSource
    stores: StoreOpener

    def __call__(
        self, folder: Path, data: Path | None = None, text_column: str = "text", label_column: str = "label"
    ) -> InitReport:
        """Write a project; with ``data``, one for the labels found there.

        Raises
        ------
        InvalidInput
            A file of the project is already there, or the data cannot be read, lack a column, or their
            labels make no label set.
        """
        found = LabelsFound(Counter(), 0)
        if data is None:
            place, labels = "data/sample.jsonl", read_template("labels.yaml")
        else:
            found = count_labels(self.source, data, text_column, label_column)
            place, labels = _place(data, folder), labels_yaml(found.counts, data.name)
        values = {"NAME": "run", "FILES": f"  files: [{_scalar(place)}]", "TEXT": _scalar(text_column)}
        config = fill(read_template("llm_lora.yaml"), {**values, "LABEL": _scalar(label_column)})
        content = {
            "configs/labels.yaml": labels,
            "configs/llm_lora.yaml": config,
            ".gitignore": read_template("gitignore"),
            "README.md": read_template("README.md").replace("@DATA@", place),
        }
        if data is None:
            content["data/sample.jsonl"] = read_template("sample.jsonl")
        store = self.stores(folder)
        there = [name for name in content if store.exists(name)]
        if there:
            raise InvalidInput(
                f"nothing was written, because this is already there: {', '.join(there)}",
                where=str(folder),
                remedy="choose another folder, or move these files away",
            )
        for name, text in content.items():
            store.write_text(name, text)
        return InitReport(folder, tuple(content), dict(found.counts), found.skipped)


@dataclass(frozen=True)
class LabelsFound:
    """Rows of each label, and how many rows have none or cannot be read."""

    counts: Counter[str]
    skipped: int


def count_labels(source: ExampleSource, data: Path, text_column: str, label_column: str) -> LabelsFound:
    """Count the labels of one file.

    Raises
    ------
    InvalidInput
        The file cannot be read, has no such column, or the column does not hold labels.
    """
    counts: Counter[str] = Counter()
    columns: dict[str, None] = {}
    skipped = 0
    for row in source.read(DataFile(path=data), Columns(text=text_column, label=label_column)):
        label = row.values.get(label_column) if isinstance(row, RawRow) else None
        if isinstance(row, RawRow):
            columns.update(dict.fromkeys(row.values))
        if label is None or not label.strip():
            skipped += 1
        else:
            counts[label.strip()] += 1
    if label_column not in columns:
        near = closest(label_column, columns)
        raise InvalidInput(
            f"there is no column {label_column!r} for the labels",
            where=str(data),
            seen=list(columns),
            remedy="name it with --label-column" + (f"; perhaps {near!r}" if near else ""),
        )
    rows = counts.total()
    if rows >= 20 and len(counts) > rows / 2:
        raise InvalidInput(
            f"column {label_column!r} has {len(counts):,} values in {rows:,} rows: it holds no labels",
            where=str(data),
            remedy="name the column of the labels with --label-column",
        )
    return LabelsFound(counts, skipped)


def labels_yaml(counts: Mapping[str, int], task: str) -> str:
    """Write a labels file for the labels of some data, with their counts as comments.

    Names that mean out of scope become aliases of ``abstain``.

    Raises
    ------
    InvalidInput
        The names make no label set: fewer than two, or two that differ in case or spaces only.

    Examples
    --------
    >>> print(labels_yaml({"card": 3, "yes": 2, "oos": 1}, "bank.csv").split("costs")[0])
    version: 1
    task: "Classification of the texts in bank.csv"  # say what is decided here: the model reads it
    labels:
      - {name: card, description: ""}  # 3 rows
      - {name: "yes", description: ""}  # 2 rows
    <BLANKLINE>
    # Rows that no label fits: one more outcome of the model.
    abstain: {description: "", aliases: [oos]}  # 1 row
    <BLANKLINE>
    """
    meant = {fold(name) for name in OUT_OF_SCOPE}
    outside = [name for name in counts if fold(name) in meant]
    names = sorted((name for name in counts if name not in outside), key=lambda name: (name.casefold(), name))
    LabelsFile(
        task=task,
        labels=tuple(LabelEntry(name=name) for name in names),
        abstain=AbstainEntry(aliases=tuple(outside)) if outside else None,
    ).label_set()
    lines = [
        "version: 1",
        f"task: {json.dumps(f'Classification of the texts in {task}', ensure_ascii=False)}  {_TASK_HINT}",
        "labels:",
    ]
    lines += [f'  - {{name: {_scalar(name)}, description: ""}}  # {_rows(counts[name])}' for name in names]
    if outside:
        aliases = ", ".join(_scalar(name) for name in outside if name != ABSTAIN)
        total = sum(counts[name] for name in outside)
        lines += [
            "",
            "# Rows that no label fits: one more outcome of the model.",
            f'abstain: {{description: "", aliases: [{aliases}]}}  # {_rows(total)}',
        ]
    lines += [
        "",
        "costs:            # of deciding the column when the row is true; a right decision costs 0",
        "  default: 1.0",
        "  abstain: 0.3    # what handing a text over to a human costs",
        "  pairs: {}       # single ones: {true_label: {decided_label: 10.0}}",
    ]
    return "\n".join(lines) + "\n"


def read_template(name: str) -> str:
    """Return the text of a file of this package's ``templates``."""
    return files("finetune.application").joinpath("templates", name).read_text(encoding="utf-8")


def fill(template: str, values: Mapping[str, str]) -> str:
    """Put values, or their defaults, in the places ``@NAME@`` of the configuration template.

    Examples
    --------
    >>> fill("model_id: @MODEL@     # which", {})
    'model_id: embedded    # which'
    """
    all_values = _DEFAULTS | dict(values)

    def padded(match: re.Match[str]) -> str:
        # Spaces before a comment belong to the place, so that comments stay in their column.
        value, comment = all_values[match[1]], match[2]
        return f"{value.ljust(len(match[0]) - 2)} #" if comment else value

    return re.sub(r"@([A-Z]+)@( +#)?", padded, template)


def _scalar(text: str) -> str:
    """Return text for YAML, in quotes unless it is one plain word (JSON strings are YAML strings)."""
    if _PLAIN.fullmatch(text) and text.lower() not in _YAML_WORDS:
        return text
    return json.dumps(text, ensure_ascii=False)


def _place(data: Path, folder: Path) -> str:
    """Return the path of the data as seen from the project's folder; absolute where it lies outside."""
    absolute, root = (Path(os.path.normpath(path.absolute())) for path in (data, folder))
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else str(absolute)


def _rows(number: int) -> str:
    return f"{number:,} {'row' if number == 1 else 'rows'}"
