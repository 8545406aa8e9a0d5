"""One folder of artifacts: atomic writes, hashes and a manifest that proves nothing changed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from finetune.adapters.files.atomic import sync_folder, write_atomically
from finetune.domain.errors import IntegrityError, InvalidInput

MANIFEST = "manifest.json"
_CHANGING = ("metrics.jsonl", "checkpoints", "tracking", MANIFEST)


class FolderStore:
    """Files of one folder, named by paths relative to it.

    Hashes detect damage and mix-ups; they do not protect against someone who can also write the
    manifest.

    Parameters
    ----------
    folder
        Need not exist; it is made by the first write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def folder(self) -> Path:
        """The folder."""
        return self._folder

    def exists(self, name: str) -> bool:
        """Whether a file or folder of this name is there."""
        return self._path(name).exists()

    def write_json(self, name: str, document: Mapping[str, Any]) -> None:
        """Write a JSON file atomically; NaN and infinities are refused."""
        self.write_text(name, self._json(name, document, indent=2) + "\n")

    def write_yaml(self, name: str, document: Mapping[str, Any]) -> None:
        """Write a YAML file atomically."""
        try:
            text = yaml.safe_dump(dict(document), allow_unicode=True, sort_keys=False, width=100)
        except yaml.YAMLError as error:
            raise InvalidInput(
                f"the document is not plain data: {error}", where=str(self._path(name))
            ) from error
        self.write_text(name, text)

    def write_text(self, name: str, text: str) -> None:
        """Write a text file atomically."""
        write_atomically(self._path(name), [text.encode()])

    def write_examples(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write one JSON object a line, atomically."""
        write_atomically(self._path(name), ((self._json(name, row) + "\n").encode() for row in rows))

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON object; missing or damaged files raise with a remedy."""
        return self._object(name, self._text(name), str(self._path(name)))

    def read_yaml(self, name: str) -> dict[str, Any]:
        """Read a YAML mapping safely."""
        try:
            document = yaml.safe_load(self._text(name))
        except yaml.YAMLError as error:
            raise self._damaged(name, str(self._path(name)), f"it is not YAML: {error}") from error
        if not isinstance(document, dict):
            raise self._damaged(name, str(self._path(name)), "it is not a mapping")
        return document

    def read_rows(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield the objects of a JSONL file."""
        path = self._present(name)
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                where = f"{path}:{number}"
                try:
                    text = line.decode()
                except UnicodeDecodeError as error:
                    raise self._damaged(name, where, "it is not UTF-8") from error
                yield self._object(name, text, where)

    def remove(self, name: str) -> None:
        """Remove a file or folder, if it is there."""
        path = self._path(name)
        if path.is_dir():
            # Out of sight in one step: half a folder must not be taken for the whole.
            gone = path.with_name(f".{path.name}.removed")
            shutil.rmtree(gone, ignore_errors=True)
            path.rename(gone)
            shutil.rmtree(gone)
        else:
            path.unlink(missing_ok=True)

    def sha256(self, name: str) -> str:
        """Hash one file, or all files of a folder in the order of their names."""
        path = self._present(name)
        if path.is_file():
            return _file_hash(path)
        total = hashlib.sha256()
        for file in _files(path):
            total.update(f"{file.relative_to(path).as_posix()}\0{_file_hash(file)}\n".encode())
        return total.hexdigest()

    def seal(self, facts: Mapping[str, Any]) -> None:
        """Write ``manifest.json``: facts, and the SHA-256 of every file but logs and checkpoints."""
        if "files" in facts:
            raise InvalidInput("the facts of a manifest cannot be called 'files'", where=MANIFEST)
        self.write_json(MANIFEST, {**facts, "files": self._hashes()})

    def verify(self, *names: str) -> None:
        """Raise :class:`IntegrityError` where a named file differs from the manifest.

        A folder is named like a file: nothing in it may be changed, missing or new.  Without names,
        every file of the manifest is checked.
        """
        if not self.exists(MANIFEST):
            raise IntegrityError(
                "there is no manifest, so the step that writes this folder did not finish",
                where=str(self._folder),
                remedy="run that step again",
            )
        sealed = self.read_json(MANIFEST).get("files")
        if not isinstance(sealed, dict):
            raise self._damaged(MANIFEST, str(self._path(MANIFEST)), "it lists no files")
        for name in names or sorted(sealed):
            wanted = {key: value for key, value in sealed.items() if _within(key, name)}
            found = self._hashes(name)
            if not wanted:
                raise IntegrityError(
                    "this file is not in the manifest",
                    where=str(self._path(name)),
                    remedy="run the step that writes it again",
                )
            for key in sorted(wanted.keys() | found.keys()):
                if wanted.get(key) != found.get(key):
                    what = "is missing" if key not in found else "was changed or damaged"
                    if key not in wanted:
                        what = "was added"
                    raise IntegrityError(
                        f"this file {what} since {MANIFEST} was written",
                        where=str(self._path(key)),
                        remedy="restore it, or run the step that writes it again",
                    )

    def publish(self, folder: Path) -> None:
        """Move this folder to another place; what stood there goes away once the new one is there."""
        old = folder.with_name(f".{folder.name}.old")
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        try:
            self._folder.rename(folder)
        except BaseException:
            if old.exists() and not folder.exists():
                old.rename(folder)
            raise
        sync_folder(folder.parent)
        shutil.rmtree(old, ignore_errors=True)

    def _path(self, name: str) -> Path:
        relative = Path(name)
        if relative.is_absolute() or ".." in relative.parts or not name:
            raise InvalidInput("the name leads out of the folder", where=str(self._folder), seen=name)
        return self._folder / relative

    def _present(self, name: str) -> Path:
        path = self._path(name)
        if not path.exists():
            raise InvalidInput(
                "there is no such file", where=str(path), remedy="run the step that writes it first"
            )
        return path

    def _text(self, name: str) -> str:
        try:
            return self._present(name).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise self._damaged(name, str(self._path(name)), "it is not UTF-8") from error

    def _object(self, name: str, text: str, where: str) -> dict[str, Any]:
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._damaged(name, where, f"it is not JSON: {error}") from error
        if not isinstance(document, dict):
            raise self._damaged(name, where, "it is not a JSON object")
        return document

    def _json(self, name: str, document: Mapping[str, Any], indent: int | None = None) -> str:
        try:
            return json.dumps(dict(document), allow_nan=False, ensure_ascii=False, indent=indent)
        except (TypeError, ValueError) as error:
            raise InvalidInput(
                f"the document is not JSON: {error}",
                where=str(self._path(name)),
                remedy="write finite numbers, text, lists and mappings only",
            ) from error

    def _damaged(self, name: str, where: str, why: str) -> IntegrityError:
        return IntegrityError(
            f"{name} is damaged: {why}",
            where=where,
            remedy="restore it, or run the step that writes it again",
        )

    def _hashes(self, name: str | None = None) -> dict[str, str]:
        start = self._folder if name is None else self._path(name)
        names = (file.relative_to(self._folder).as_posix() for file in _files(start))
        return {key: _file_hash(self._folder / key) for key in names if not _changing(key)}


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted((file for file in path.rglob("*") if file.is_file()), key=lambda file: file.as_posix())


def _within(key: str, name: str) -> bool:
    return key == name or key.startswith(f"{name.rstrip('/')}/")


def _changing(key: str) -> bool:
    return key.split("/", 1)[0] in _CHANGING or (key.startswith(".") and key.endswith(".tmp"))


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
