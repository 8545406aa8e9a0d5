"""YAML as people expect it: no duplicate keys, and ``yes`` or ``0123`` stay text.

PyYAML follows YAML 1.1, where ``yes`` is true, ``0123`` is 83, ``12:30`` is 750 and ``1e-4`` is text.
Labels are called ``yes`` and ``no`` in real data, so only the JSON spellings are resolved here.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from finetune.domain.errors import InvalidInput

_INT = re.compile(r"-?(?:0|[1-9][0-9]*)$")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?$|-?\.[0-9]+(?:[eE][-+]?[0-9]+)?$")


class SettingsLoader(yaml.SafeLoader):
    """Safe YAML with JSON's scalars and without duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping; a key that stands there twice is an error, not a silent loss."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands here twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


class LabelsLoader(SettingsLoader):
    """The same, with names left alone: only whole numbers and null are not text."""


def _resolve(loader: type[SettingsLoader], kind: str, pattern: str | re.Pattern[str], first: str) -> None:
    loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(pattern), list(first))


for _loader in (SettingsLoader, LabelsLoader):
    _loader.yaml_implicit_resolvers = {}
    _resolve(_loader, "null", r"(?:~|null)$", "~n")
    _loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("$"), [""])
    _resolve(_loader, "int", _INT, "-0123456789")
_resolve(SettingsLoader, "bool", r"(?:true|false)$", "tf")
_resolve(SettingsLoader, "float", _FLOAT, "-.0123456789")


def parse_yaml(text: str, where: str, loader: type[SettingsLoader] = SettingsLoader) -> Any:
    """Parse one YAML document.

    Parameters
    ----------
    text
        The document.
    where
        The file, or the command-line option, for the error message.
    loader
        :class:`SettingsLoader` or :class:`LabelsLoader`.

    Raises
    ------
    InvalidInput
        Where the text is not YAML; the message names line and column.

    Examples
    --------
    >>> parse_yaml("{a: yes, b: 1e-4, c: 0123, d: 7, e: null, f: true}", "here")
    {'a': 'yes', 'b': 0.0001, 'c': '0123', 'd': 7, 'e': None, 'f': True}
    """
    try:
        return yaml.load(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = where if mark is None else f"{where}:{mark.line + 1}:{mark.column + 1}"
        raise InvalidInput(
            f"not valid YAML: {error.problem or error.context}",
            where=place,
            remedy="check indentation, quotes and brackets around this place",
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidInput(
            f"not valid YAML: {error}", where=where, remedy="check the file for stray characters"
        ) from error
