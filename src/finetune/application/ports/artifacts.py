"""The files of prepared data and runs, and the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol


class ArtifactStore(Protocol):
    """Files of one folder: atomic writes, hashes, a manifest."""

    @property
    def folder(self) -> Path:
        """The folder."""

    def exists(self, name: str) -> bool:
        """Whether a file or folder of this name is there."""

    def write_json(self, name: str, document: Mapping[str, Any]) -> None:
        """Write a JSON file atomically; NaN and infinities are refused."""

    def write_yaml(self, name: str, document: Mapping[str, Any]) -> None:
        """Write a YAML file atomically."""

    def write_text(self, name: str, text: str) -> None:
        """Write a text file atomically."""

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON object; missing or damaged files raise with a remedy."""

    def read_yaml(self, name: str) -> dict[str, Any]:
        """Read a YAML mapping safely."""

    def write_examples(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write one JSON object a line, atomically."""

    def read_rows(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield the objects of a JSONL file."""

    def remove(self, name: str) -> None:
        """Remove a file or folder, if it is there."""

    def sha256(self, name: str) -> str:
        """Hash one file, or all files of a folder in the order of their names."""

    def seal(self, facts: Mapping[str, Any]) -> None:
        """Write ``manifest.json``: facts, and the SHA-256 of every file but logs and checkpoints."""

    def verify(self, *names: str) -> None:
        """Raise :class:`IntegrityError` where a named file differs from the manifest."""

    def publish(self, folder: Path) -> None:
        """Move this folder to another place; what stood there goes away once the new one is there."""


class StoreOpener(Protocol):
    """Opens the store of a folder."""

    def __call__(self, folder: Path) -> ArtifactStore:
        """Open (not create) the folder's store."""


class ReportWriter(Protocol):
    """Turns an evaluation into a page that someone can read without us."""

    def render(self, evaluation: Mapping[str, Any]) -> str:
        """Return a self-contained HTML page."""
