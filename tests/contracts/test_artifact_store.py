"""Every ArtifactStore: whole files, refused NaN, a manifest that notices every change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.fakes import MemoryStores

from finetune.adapters.files import store as store_module
from finetune.adapters.files.store import FolderStore
from finetune.domain.errors import IntegrityError, InvalidInput


@pytest.fixture(params=["folder", "memory"])
def stores(request):
    return FolderStore if request.param == "folder" else MemoryStores()


@pytest.fixture
def store(stores, tmp_path):
    return stores(tmp_path / "run")


def test_what_is_written_is_read(store):
    document = {"text": "Zürich 🙈", "list": [1, 2.5, None, True], "yes": "no"}
    store.write_json("a.json", document)
    store.write_yaml("a.yaml", document)
    store.write_examples("sub/rows.jsonl", [document, {"b": 1}])
    assert store.read_json("a.json") == document
    assert store.read_yaml("a.yaml") == document
    assert list(store.read_rows("sub/rows.jsonl")) == [document, {"b": 1}]
    assert store.exists("sub")
    assert not store.exists("missing")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}])
def test_what_json_cannot_hold_is_refused_and_writes_nothing(store, value):
    store.write_json("a.json", {"before": 1})
    with pytest.raises(InvalidInput, match="not JSON"):
        store.write_json("a.json", {"x": value})
    with pytest.raises(InvalidInput, match="not JSON"):
        store.write_examples("rows.jsonl", [{"x": 1}, {"x": value}])
    assert store.read_json("a.json") == {"before": 1}
    assert not store.exists("rows.jsonl")


@pytest.mark.parametrize("content", ["", "{", "[]", "3"])
def test_damaged_json_is_an_integrity_error(store, content):
    store.write_text("a.json", content)
    with pytest.raises(IntegrityError):
        store.read_json("a.json")


def test_what_is_removed_is_gone_and_nothing_else(store):
    for name in ("a.json", "sub/a.json", "sub/b.json", "subway.json"):
        store.write_json(name, {"x": 1})
    store.remove("a.json")
    store.remove("sub")
    store.remove("never-there")
    assert [store.exists(name) for name in ("a.json", "sub", "subway.json")] == [False, False, True]


def test_missing_file_has_a_remedy(store):
    with pytest.raises(InvalidInput, match="What to do"):
        store.read_json("missing.json")
    with pytest.raises(InvalidInput, match="What to do"):
        store.sha256("missing")


@pytest.mark.parametrize("name", ["../a.json", "/a.json", ""])
def test_names_stay_in_the_folder(store, name):
    with pytest.raises(InvalidInput, match="out of the folder"):
        store.write_text(name, "x")


def test_hash_of_a_folder_depends_on_names_and_contents(store):
    store.write_text("one/a", "1")
    store.write_text("two/a", "1")
    assert store.sha256("one") == store.sha256("two")
    store.write_text("two/b", "")
    assert store.sha256("one") != store.sha256("two")
    before = store.sha256("one/a")
    store.write_text("one/a", "2")
    assert store.sha256("one/a") != before


def sealed(store):
    store.write_text("a.txt", "a")
    store.write_text("adapter/weights", "w")
    store.write_text("metrics.jsonl", "")
    store.write_text("checkpoints/1/x", "")
    store.seal({"version": 1})
    return store


def test_sealed_files_verify_and_growing_ones_are_left_out(store):
    sealed(store)
    store.write_text("metrics.jsonl", "more")
    store.write_text("checkpoints/1/x", "more")
    store.verify()
    store.verify("a.txt", "adapter")
    manifest = store.read_json("manifest.json")
    assert manifest["version"] == 1
    assert set(manifest["files"]) == {"a.txt", "adapter/weights"}


def test_changed_added_and_unknown_files_are_noticed(store):
    sealed(store)
    store.write_text("a.txt", "b")
    store.verify("adapter")
    with pytest.raises(IntegrityError, match=r"a\.txt"):
        store.verify("a.txt")
    with pytest.raises(IntegrityError, match=r"a\.txt"):
        store.verify()
    store.write_text("adapter/more", "")
    with pytest.raises(IntegrityError, match="adapter"):
        store.verify("adapter")
    with pytest.raises(IntegrityError, match="other"):
        store.verify("other")


def test_without_a_manifest_nothing_verifies(store):
    store.write_text("a.txt", "a")
    with pytest.raises(IntegrityError, match="no manifest"):
        store.verify()


def test_publish_replaces_a_folder_as_a_whole(stores, tmp_path):
    old, new = stores(tmp_path / "data"), stores(tmp_path / "data.partial")
    old.write_text("only_old", "1")
    old.write_text("both", "1")
    new.write_text("both", "2")
    new.publish(old.folder)
    assert not old.exists("only_old")
    assert not new.exists("both")
    other = stores(tmp_path / "third")
    other.write_text("x", "")
    other.publish(tmp_path / "fourth")
    assert stores(tmp_path / "fourth").exists("x")


def test_failed_publish_leaves_the_old_folder(tmp_path, monkeypatch):
    old, new = FolderStore(tmp_path / "data"), FolderStore(tmp_path / "data.partial")
    old.write_text("a", "1")
    new.write_text("a", "2")
    rename = Path.rename

    def interrupted(self, target):
        if self == new.folder:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        new.publish(old.folder)
    assert (old.folder / "a").read_text() == "1"


def test_interrupted_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    store = FolderStore(tmp_path)
    store.write_text("a", "old")

    def rows():
        yield {"x": 1}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.write_examples("a", rows())
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_missing_sealed_file_is_named(tmp_path):
    store = sealed(FolderStore(tmp_path))
    (tmp_path / "adapter" / "weights").unlink()
    with pytest.raises(IntegrityError, match="is missing since"):
        store.verify("adapter")


def test_damaged_line_is_named(tmp_path):
    store = FolderStore(tmp_path)
    (tmp_path / "rows.jsonl").write_bytes(b'{"a": 1}\n\xff\n')
    with pytest.raises(IntegrityError, match=r"rows\.jsonl:2"):
        list(store.read_rows("rows.jsonl"))


def test_yaml_cannot_make_objects(tmp_path):
    (tmp_path / "a.yaml").write_text("!!python/object/apply:os.getcwd []")
    with pytest.raises(IntegrityError, match="not YAML"):
        FolderStore(tmp_path).read_yaml("a.yaml")


def test_manifest_that_was_tampered_with(tmp_path):
    store = sealed(FolderStore(tmp_path))
    (tmp_path / store_module.MANIFEST).write_text(json.dumps({"files": []}))
    with pytest.raises(IntegrityError, match="lists no files"):
        store.verify()
