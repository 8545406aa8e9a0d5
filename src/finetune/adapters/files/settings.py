"""Reading ``configs/*.yaml``: every mistake is answered with file, key, value and remedy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from finetune.adapters.files.problems import invalid
from finetune.adapters.files.yaml_text import LabelsLoader, SettingsLoader, parse_yaml
from finetune.application.config import ProjectConfig
from finetune.application.labels_file import LabelsFile
from finetune.application.settings import GuaranteeConfig
from finetune.domain.errors import InvalidInput

AFTER_TRAINING = ("calibration", "conformal", "risk", "prediction")
"""The sections that a trained run may still change."""


def load_config(path: Path, overrides: Sequence[str] = ()) -> ProjectConfig:
    """Read a configuration.

    Parameters
    ----------
    path
        The YAML file.
    overrides
        ``a.b.c=value`` each, the value parsed as YAML; later ones win.

    Raises
    ------
    InvalidInput
        With the file (or the override), the dotted key, the value seen and the remedy.
    """
    document = _mapping(path, SettingsLoader)
    origin = {key: f"--set {text}" for text in overrides for key in [_override(document, text)]}
    try:
        return ProjectConfig.model_validate(document)
    except ValidationError as error:
        raise invalid(error, ProjectConfig, document, _place(path, origin)) from error


def load_guarantee_config(path: Path | None = None, overrides: Sequence[str] = ()) -> GuaranteeConfig:
    """Read what is asked of probabilities of any model; without a file, the defaults.

    Raises
    ------
    InvalidInput
        As :func:`load_config`.
    """
    document = {} if path is None else _mapping(path, SettingsLoader)
    origin = {key: f"--set {text}" for text in overrides for key in [_override(document, text)]}
    try:
        return GuaranteeConfig.model_validate(document)
    except ValidationError as error:
        place = _place(Path("settings") if path is None else path, origin)
        raise invalid(error, GuaranteeConfig, document, place) from error


def load_run_config(run_folder: Path, overrides: Sequence[str] = ()) -> ProjectConfig:
    """Read the configuration that a run was trained with.

    Raises
    ------
    InvalidInput
        As :func:`load_config`, and where an override touches what belongs to the trained run.
    """
    for text in overrides:
        key, _ = _parts(text)
        if key.split(".")[0] not in AFTER_TRAINING:
            raise InvalidInput(
                "this key belongs to the trained run",
                where=f"--set {text}",
                seen=key,
                remedy="change only "
                + ", ".join(f"{name}.*" for name in AFTER_TRAINING)
                + " here; for anything else train again",
            )
    path = run_folder / "config.yaml"
    if not path.is_file():
        raise InvalidInput(
            "there is no trained run here", where=str(path), remedy="run `finetune train` first"
        )
    return load_config(path, overrides)


def load_labels(path: Path) -> LabelsFile:
    """Read a labels file and check that its names make a label set.

    Raises
    ------
    InvalidInput
        With the file, the dotted key, the value seen and the remedy.
    """
    document = _mapping(path, LabelsLoader)
    try:
        labels = LabelsFile.model_validate(document)
    except ValidationError as error:
        raise invalid(error, LabelsFile, document, lambda _: str(path)) from error
    try:
        labels.label_set()
    except InvalidInput as error:
        where = str(path) if error.where is None else f"{path}: {error.where}"
        raise InvalidInput(error.what, where=where, seen=error.seen, remedy=error.remedy) from error
    return labels


def _mapping(path: Path, loader: type[SettingsLoader]) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InvalidInput(
            "there is no such file",
            where=str(path),
            remedy="name another one, or write one with `finetune init`",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"the file cannot be read: {error}", where=str(path), remedy="it must be a UTF-8 text file"
        ) from error
    document = parse_yaml(text, str(path), loader)
    if not isinstance(document, dict):
        raise InvalidInput(
            "the file is not a mapping (key: value)",
            where=str(path),
            seen=document,
            remedy="see `finetune init`",
        )
    return document


def _place(path: Path, origin: dict[str, str]) -> Callable[[str], str]:
    def place(key: str) -> str:
        for setting, option in reversed(origin.items()):
            if key == setting or key.startswith(f"{setting}.") or setting.startswith(f"{key}."):
                return option
        return str(path)

    return place


def _parts(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not all(key.strip().split(".")):
        raise InvalidInput(
            "an override must look like key.key=value",
            where="--set",
            seen=text,
            remedy="for example lora.r=8",
        )
    return key.strip(), value


def _override(document: dict[str, Any], text: str) -> str:
    """Put one override into the document; return its dotted key."""
    key, value = _parts(text)
    *parents, last = key.split(".")
    here: Any = document
    for part in parents:
        if isinstance(here, list):
            here = here[_index(here, part, text)]
        else:
            if here.get(part) is None:
                here[part] = {}
            here = here[part]
        if not isinstance(here, dict | list):
            raise InvalidInput(
                f"{part!r} has no keys of its own", where=f"--set {text}", seen=here, remedy="check the key"
            )
    parsed = parse_yaml(value, f"--set {text}")
    if isinstance(here, list):
        here[_index(here, last, text)] = parsed
    else:
        here[last] = parsed
    return key


def _index(items: list[Any], part: str, text: str) -> int:
    if not part.isdecimal() or int(part) >= len(items):
        raise InvalidInput(
            f"this is a list of {len(items)} entries, counted from 0",
            where=f"--set {text}",
            seen=part,
            remedy="use the number of an entry, or set the whole list: key=[…]",
        )
    return int(part)
