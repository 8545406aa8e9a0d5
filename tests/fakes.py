"""In-memory stand-ins for the ports of the application; models are in ``fake_models``."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from finetune.application.config import Columns, DataFile, ProjectConfig
from finetune.application.ports import (
    BadRow,
    Direction,
    EncodedExample,
    FinishedTrial,
    Inputs,
    LogRange,
    ProbabilityFile,
    ProbabilityRows,
    Progress,
    Proposal,
    RawRow,
    Settings,
    Space,
)
from finetune.domain.decisions import DecisionRecord
from finetune.domain.errors import IntegrityError, InvalidInput
from finetune.domain.examples import Example
from finetune.domain.labels import LabelSet
from finetune.domain.prompts import PromptFormat, answer_text


@dataclass
class FakeTask:
    description: str
    total: int
    done: int = 0

    def advance(self, n: int = 1) -> None:
        self.done += n

    def describe(self, text: str) -> None:
        self.description = text


@dataclass
class FakeProgress:
    """Remembers what it was told."""

    tasks: list[FakeTask] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[FakeTask]:
        task = FakeTask(description, total)
        self.tasks.append(task)
        yield task

    def say(self, message: str) -> None:
        self.said.append(message)


class FakeClock:
    """It is always the same second."""

    def now(self) -> str:
        return "2025-01-02T03:04:05+00:00"


@dataclass
class FakeSource:
    """Rows by path; a ``str`` stands for a broken line."""

    files: Mapping[str, Sequence[Mapping[str, Any] | str]]

    def read(self, file: DataFile, columns: Columns) -> Iterator[RawRow | BadRow]:
        if str(file.path) not in self.files:
            raise InvalidInput("there is no such file", where=str(file.path), remedy="check data.files")
        rows = self.files[str(file.path)]
        names = list(dict.fromkeys(key for row in rows if not isinstance(row, str) for key in row))
        if columns.text not in names:
            raise InvalidInput(f"there is no column {columns.text!r}", where=str(file.path), seen=names)
        for number, row in enumerate(rows, start=1):
            position = f"{file.path}:{number}"
            yield BadRow(position, "broken", row) if isinstance(row, str) else RawRow(position, row)


@dataclass
class FakeProbabilities:
    """Tables of columns by path; the first row stands in line 2."""

    tables: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    inputs: Inputs = "probabilities"

    def read(self, file: ProbabilityFile, progress: Progress) -> ProbabilityRows:
        if str(file.path) not in self.tables:
            raise InvalidInput("there is no such file", where=str(file.path), remedy="check the path")
        table = self.tables[str(file.path)]
        wanted = [*(file.outcomes or ()), *([file.label] if file.label else [])]
        for name in wanted:
            if name not in table:
                raise InvalidInput(f"there is no column {name!r}", where=str(file.path), seen=list(table))
        others = {"id", "text", "split", file.label, file.id}
        names = file.outcomes or tuple(name for name in table if name not in others)
        with progress.task("reading", 1) as task:
            task.advance()
        values = np.array([table[name] for name in names], dtype=np.float64).T
        return ProbabilityRows(
            path=file.path,
            names=names,
            values=values.reshape(-1, len(names)),
            inputs=file.inputs or self.inputs,
            labels=None if file.label is None else table[file.label],
            ids=table.get(file.id),
            lines=np.arange(2, len(values) + 2),
        )


@dataclass
class MemoryStore:
    """One folder of a dictionary of files; texts by their whole path."""

    folder: Path
    files: dict[str, str] = field(default_factory=dict)

    def exists(self, name: str) -> bool:
        return bool(self._names(name))

    def write_json(self, name: str, document: Mapping[str, Any]) -> None:
        self.write_text(name, _json(document))

    write_yaml = write_json

    def write_text(self, name: str, text: str) -> None:
        if Path(name).is_absolute() or ".." in Path(name).parts or not name:
            raise InvalidInput("the name leads out of the folder", seen=name)
        self.files[str(self.folder / name)] = text

    def write_examples(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        self.write_text(name, "".join(_json(row) + "\n" for row in rows))

    def read_json(self, name: str) -> dict[str, Any]:
        return self._object(self._text(name))

    read_yaml = read_json

    def read_rows(self, name: str) -> Iterator[dict[str, Any]]:
        for line in self._text(name).splitlines():
            yield self._object(line)

    def remove(self, name: str) -> None:
        for key in self._names(name):
            del self.files[key]

    def sha256(self, name: str) -> str:
        names = self._names(name)
        if not names:
            raise InvalidInput(
                "there is no such file", where=str(self.folder / name), remedy="write it first"
            )
        root = str(self.folder / name)
        content = [[key.removeprefix(root), self.files[key]] for key in names]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def seal(self, facts: Mapping[str, Any]) -> None:
        self.write_json("manifest.json", {**facts, "files": self._hashes()})

    def verify(self, *names: str) -> None:
        if not self.exists("manifest.json"):
            raise IntegrityError("there is no manifest", where=str(self.folder), remedy="run the step again")
        sealed = self.read_json("manifest.json")["files"]
        found = self._hashes()
        for name in names or sorted(sealed):
            keys = {key for key in sealed.keys() | found.keys() if key == name or key.startswith(f"{name}/")}
            changed = [key for key in sorted(keys) if sealed.get(key) != found.get(key)]
            if changed or not keys:
                raise IntegrityError("changed", where=str(self.folder / name), remedy="run the step again")

    def publish(self, folder: Path) -> None:
        for key in [key for key in self.files if Path(key).is_relative_to(folder)]:
            del self.files[key]
        for key in self._names("."):
            self.files[str(folder / Path(key).relative_to(self.folder))] = self.files.pop(key)

    def _names(self, name: str) -> list[str]:
        return sorted(key for key in self.files if Path(key).is_relative_to(self.folder / name))

    def _text(self, name: str) -> str:
        if str(self.folder / name) not in self.files:
            raise InvalidInput(
                "there is no such file", where=str(self.folder / name), remedy="write it first"
            )
        return self.files[str(self.folder / name)]

    def _object(self, text: str) -> dict[str, Any]:
        try:
            document = json.loads(text)
        except ValueError as error:
            raise IntegrityError("damaged", where=str(self.folder), remedy="run the step again") from error
        if not isinstance(document, dict):
            raise IntegrityError("damaged", where=str(self.folder), remedy="run the step again")
        return document

    def _hashes(self) -> dict[str, str]:
        keys = [str(Path(key).relative_to(self.folder)) for key in self._names(".")]
        return {
            key: self.sha256(key)
            for key in keys
            if key.split("/")[0] not in ("metrics.jsonl", "checkpoints", "manifest.json")
        }


@dataclass
class MemoryStores:
    """Opens stores over one dictionary."""

    files: dict[str, str] = field(default_factory=dict)

    def __call__(self, folder: Path) -> MemoryStore:
        return MemoryStore(folder, self.files)


@dataclass
class MemoryLog:
    """The events of a run."""

    events: list[dict[str, Any]] = field(default_factory=list)

    def append(self, event: str, values: Mapping[str, Any]) -> None:
        self.events.append(json.loads(_json({"event": event, **values})))


@dataclass
class MemorySinks:
    """Opens sinks that remember unfinished work by path, as files do."""

    partial: dict[Path, tuple[str, list[DecisionRecord]]] = field(default_factory=dict)
    finished: dict[Path, list[DecisionRecord]] = field(default_factory=dict)
    kept: list[list[DecisionRecord]] = field(default_factory=list)

    def __call__(self, path: Path, key: str) -> MemorySink:
        if path.suffix not in (".jsonl", ".csv"):
            raise InvalidInput(
                "outputs of this type cannot be written", seen=path.suffix, remedy="use .jsonl"
            )
        earlier_key, earlier = self.partial.get(path, (key, []))
        notice = None
        if earlier_key != key:
            self.kept.append(earlier)
            earlier, notice = [], "started anew"
        self.partial[path] = (key, earlier)
        return MemorySink(self, path, earlier, len(earlier), notice or ("continued" if earlier else None))


@dataclass
class MemorySink:
    sinks: MemorySinks
    path: Path
    records: list[DecisionRecord]
    done: int
    notice: str | None

    def write(self, records: Sequence[DecisionRecord]) -> None:
        self.records.extend(records)

    def finish(self) -> None:
        del self.sinks.partial[self.path]
        self.sinks.finished[self.path] = deepcopy(self.records)


@dataclass
class WordEncoder:
    """One token a word; the text is shortened from its end to fit ``max_length``."""

    prompt: PromptFormat
    max_length: int
    words: list[str] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)

    def encode(self, example: Example) -> EncodedExample:
        answer = [*answer_text(str(example.label), example.rationale or "").split(" "), "<end>"]
        fixed = sum(len(message["content"].split()) for message in self.prompt.messages(""))
        text = example.text.split()
        shortened = " ".join(text[: max(self.max_length - fixed - len(answer), 0)])
        removed = 0 if len(shortened.split()) == len(text) else len(example.text) - len(shortened)
        prompt = " ".join(message["content"] for message in self.prompt.messages(shortened)).split()
        return EncodedExample(tuple(map(self._number, prompt + answer)), len(prompt), removed)

    def tokens(self, ids: Sequence[int]) -> list[str]:
        return [f" {self.words[number]}" for number in ids]

    def _number(self, word: str) -> int:
        if word not in self.numbers:
            self.numbers[word] = len(self.words)
            self.words.append(word)
        return self.numbers[word]


def open_word_encoder(config: ProjectConfig, labels: LabelSet, prompt: PromptFormat) -> WordEncoder:
    return WordEncoder(prompt, config.training.max_length)


@dataclass
class MemoryStudy:
    """Draws from ranges by chance; lists are gone through in order."""

    space: Space
    direction: Direction
    seed: int
    told: list[FinishedTrial] = field(default_factory=list)
    asked: Proposal | None = None

    def ask(self) -> Proposal:
        if self.asked is None:
            self.asked = Proposal(len(self.told) + 1, self._propose(len(self.told)))
        return self.asked

    def tell(self, number: int, value: float | None, facts: Mapping[str, Any]) -> None:
        assert self.asked is not None
        assert self.asked.number == number
        facts = json.loads(_json(facts))
        self.told.append(FinishedTrial(number, self.asked.settings, value, facts))
        self.asked = None

    def finished(self) -> tuple[FinishedTrial, ...]:
        return tuple(self.told)

    def _propose(self, position: int) -> Settings:
        lists = {key: values for key, values in self.space.items() if not isinstance(values, LogRange)}
        combinations = list(itertools.product(*lists.values()))
        if len(lists) == len(self.space) and position >= len(combinations):
            raise InvalidInput("every combination was tried")
        chosen = dict(zip(lists, combinations[position % len(combinations)], strict=True))
        rng = np.random.default_rng((self.seed, position))
        return {
            key: float(f"{np.exp(rng.uniform(*np.log(values))):.3g}")
            if isinstance(values, LogRange)
            else chosen[key]
            for key, values in self.space.items()
        }


@dataclass
class MemoryStudies:
    """Opens studies that outlive the process, by folder."""

    studies: dict[Path, MemoryStudy] = field(default_factory=dict)

    def __call__(self, folder: Path, space: Space, direction: Direction, seed: int) -> MemoryStudy:
        study = self.studies.setdefault(folder, MemoryStudy(space, direction, seed))
        if study.direction != direction:
            raise IntegrityError("this search optimises in the other direction", where=str(folder))
        return study


def _json(document: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(document), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"not JSON: {error}", remedy="write plain data only") from error
