"""Turning pydantic's findings into sentences that name the key, the value and the remedy."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from finetune.domain.errors import InvalidInput
from finetune.domain.labels import closest

_SENTENCES: Mapping[str, str] = {
    "missing": "this key is missing",
    "string_type": "must be text",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "path_type": "must be a path",
    "model_type": "must be a mapping (key: value)",
    "model_attributes_type": "must be a mapping (key: value)",
    "mapping_type": "must be a mapping (key: value)",
    "dict_type": "must be a mapping (key: value)",
    "tuple_type": "must be a list",
    "literal_error": "must be {expected}",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must have at least {min_length} entry",
    "string_too_short": "must not be empty",
    "value_error": "{error}",
    "string_pattern_mismatch": "must match {pattern}",
}


class Problem(NamedTuple):
    """One finding: the dotted key, what is wrong, the value seen and what to do."""

    key: str
    what: str
    seen: object
    remedy: str


def invalid(
    error: ValidationError, model: type[BaseModel], document: object, place: Callable[[str], str]
) -> InvalidInput:
    """Return the error to raise for a document that does not fit a model.

    Parameters
    ----------
    error
        What pydantic found.
    model
        The model it was held against.
    document
        The document as it was read.
    place
        Where a dotted key was set: the file, or an option of the command line.
    """
    problems = find_problems(error, model, document)
    if len(problems) == 1:
        key, what, seen, remedy = problems[0]
        where = place(key)
        return InvalidInput(what, where=f"{where}: {key}" if key else where, seen=seen, remedy=remedy)
    lines = [
        str(
            InvalidInput(
                item.what, where=f"{place(item.key)}: {item.key}", seen=item.seen, remedy=item.remedy
            )
        )
        for item in problems
    ]
    return InvalidInput(f"{len(problems)} problems:\n  " + "\n  ".join(lines).removesuffix("."))


def find_problems(error: ValidationError, model: type[BaseModel], document: object) -> list[Problem]:
    """Return one problem a key; alternatives of a union are joined by "or"."""
    grouped: dict[str, list[tuple[ErrorDetails, tuple[str | int, ...]]]] = {}
    for detail in error.errors(include_url=False):
        path = _real_path(detail, document)
        grouped.setdefault(".".join(map(str, path)), []).append((detail, path))
    problems = []
    for key, found in grouped.items():
        detail, path = found[0]
        seen = None if not path or detail["type"] in ("missing", "extra_forbidden") else _seen(document, path)
        if detail["type"] == "extra_forbidden":
            problems.append(_unknown_key(key, path, model))
        else:
            what = " or ".join(dict.fromkeys(_sentence(item) for item, _ in found))
            remedy = "add it" if detail["type"] == "missing" else "correct it"
            problems.append(Problem(key, what.replace(" or must be ", " or "), seen, remedy))
    return problems


def _sentence(detail: ErrorDetails) -> str:
    template = _SENTENCES.get(detail["type"])
    if template is None:
        return detail["msg"][0].lower() + detail["msg"][1:]
    return template.format(**detail.get("ctx", {}))


def _real_path(detail: ErrorDetails, document: object) -> tuple[str | int, ...]:
    """Return the keys of a location; pydantic's also names the members of unions, which nobody wrote."""
    path: list[str | int] = []
    here = document
    for part in detail["loc"]:
        if isinstance(here, Mapping) and part in here:
            here = here[part]
        elif isinstance(here, Sequence) and not isinstance(here, str) and isinstance(part, int):
            here = here[part] if part < len(here) else None
        elif not (detail["type"] == "missing" and part == detail["loc"][-1]):
            continue
        path.append(part)
    return tuple(path)


def _seen(document: object, path: Sequence[str | int]) -> object:
    here: Any = document
    for part in path:
        here = here[part]
    return "null" if here is None else here


def _unknown_key(key: str, path: Sequence[str | int], model: type[BaseModel]) -> Problem:
    known = list(_fields(model, path[:-1]))
    near = closest(str(path[-1]), known)
    remedy = f"perhaps you meant {near!r}" if near else f"remove it; known keys are {', '.join(known)}"
    return Problem(key, "this key is unknown", None, remedy)


def _fields(model: type[BaseModel], path: Sequence[str | int]) -> Mapping[str, Any]:
    for part in path:
        if isinstance(part, int) or part not in model.model_fields:
            continue
        inner = _model_within(model.model_fields[part].annotation)
        if inner is not None:
            model = inner
    return model.model_fields


def _model_within(annotation: object) -> type[BaseModel] | None:
    if inspect.isclass(annotation):
        return annotation if issubclass(annotation, BaseModel) else None
    return next(filter(None, map(_model_within, get_args(annotation))), None)
