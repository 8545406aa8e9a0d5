"""Backends by name: those of this package, those that others register, and what is missing."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from finetune import backends
from finetune.backends import BUILT_IN, list_backends, open_backend
from finetune.domain.errors import InvalidInput, MissingExtra


class MyBackend:
    """Flips a coin.

    And nothing else.
    """


def register(monkeypatch, *points: tuple[str, str]) -> None:
    found = [EntryPoint(name, value, backends.GROUP) for name, value in points]
    monkeypatch.setattr(backends, "entry_points", lambda group: [p for p in found if p.group == group])


@pytest.mark.parametrize("name", BUILT_IN)
def test_each_backend_of_this_package_opens(name):
    opened = open_backend(name, str)
    assert opened.trainer() is not None
    assert opened.models() is not None
    assert opened.encoders() is not None


def test_an_unknown_name_says_which_there_are(monkeypatch):
    register(monkeypatch, ("coin", f"{__name__}:MyBackend"))
    with pytest.raises(InvalidInput, match="no such backend") as caught:
        open_backend("casual", str)
    assert "causal, encoder, remote, baseline, coin" in str(caught.value)


def test_what_is_not_installed_is_named_with_its_remedy(monkeypatch):
    there = BUILT_IN["baseline"]
    monkeypatch.setitem(BUILT_IN, "baseline", there._replace(modules=("sklearn", "no_such_module")))
    with pytest.raises(MissingExtra, match=r"finetune-decisions\[baseline\]"):
        open_backend("baseline", str)
    (info,) = [info for info in list_backends() if info.name == "baseline"]
    assert info.problem == "not installed: no_such_module"
    assert info.remedy == "pip install 'finetune-decisions[baseline]'"


def test_others_register_by_entry_point(monkeypatch):
    register(monkeypatch, ("coin", f"{__name__}:MyBackend"))
    assert type(open_backend("coin", str)).__name__ == "MyBackend"
    (info,) = [info for info in list_backends() if info.name == "coin"]
    assert info.summary == "Flips a coin."
    assert info.problem is None


def test_nobody_takes_a_name_of_this_package(monkeypatch):
    register(monkeypatch, ("causal", f"{__name__}:MyBackend"))
    assert type(open_backend("causal", str)).__name__ == "CausalBackend"
    assert [info.name for info in list_backends()] == list(BUILT_IN)


def test_a_backend_that_cannot_be_imported_is_listed_with_the_reason(monkeypatch):
    register(monkeypatch, ("broken", "no_such_package.backend:Broken"))
    (info,) = [info for info in list_backends() if info.name == "broken"]
    assert "No module named 'no_such_package'" in info.problem
    with pytest.raises(InvalidInput, match="cannot be loaded"):
        open_backend("broken", str)
