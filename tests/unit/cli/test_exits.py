from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from finetune.cli import exits
from finetune.container import Container
from finetune.domain import errors
from finetune.domain.errors import FinetuneError

Invoke = Callable[..., Result]
DELIBERATE = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, FinetuneError) and kind is not FinetuneError
]


def build(kind: type[FinetuneError]) -> FinetuneError:
    if kind is errors.MissingExtra:
        return errors.MissingExtra("hf", "training")
    return kind("it is wrong", where="a.csv:7", seen="[x]", remedy="mend it")


def fail_with(error: BaseException) -> Callable[..., object]:
    def use_case(*arguments: object, **settings: object) -> object:
        raise error

    return use_case


@pytest.mark.parametrize("kind", DELIBERATE)
def test_every_deliberate_error_has_a_code_of_its_own(kind: type[FinetuneError]) -> None:
    codes = {other.__name__: exits.exit_code(build(other)) for other in DELIBERATE}
    reserved = {exits.OK, exits.OTHER, exits.USAGE, exits.IO, exits.UNFORESEEN, exits.INTERRUPTED}
    assert codes[kind.__name__] not in reserved
    assert list(codes.values()).count(codes[kind.__name__]) == 1
    assert f"``{kind.__name__}``" in str(exits.__doc__)


def test_a_subclass_has_the_code_of_its_ancestor() -> None:
    class BadColumn(errors.InvalidInput):
        pass

    assert exits.exit_code(BadColumn("no column")) == exits.exit_code(errors.InvalidInput("no"))


@pytest.mark.parametrize("kind", [*DELIBERATE, FinetuneError])
def test_a_deliberate_error_is_one_message_and_its_code(
    invoke: Invoke, container: Container, kind: type[FinetuneError]
) -> None:
    error = build(kind)
    container.train.override(fail_with(error))
    result = invoke("train")
    assert result.exit_code == exits.exit_code(error)
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert f"What to do: {error.remedy}." in result.stderr
    assert result.stderr.count(str(error.remedy)) == 1
    assert "Traceback" not in result.output


def test_what_json_lacks_is_text() -> None:
    error = errors.InvalidInput("it is wrong", seen=[(1.5, float("nan")), {"a": float("-inf")}])
    assert exits.document(error)["error"]["seen"] == [[1.5, "nan"], {"a": "-inf"}]


def test_json_errors_are_one_object_on_stdout(invoke: Invoke, container: Container) -> None:
    container.train.override(
        fail_with(errors.InfeasibleGuarantee("too few", where="calibration", seen=3, remedy="add", needed=22))
    )
    result = invoke("train", "--json")
    error = json.loads(result.stdout)["error"]
    assert error["type"] == "InfeasibleGuarantee"
    assert error["exit_code"] == result.exit_code == 5
    assert (error["what"], error["where"], error["seen"], error["remedy"], error["needed"]) == (
        "too few",
        "calibration",
        3,
        "add",
        22,
    )
    assert "too few" in result.stderr


def test_a_value_that_json_lacks_is_still_shown(invoke: Invoke, container: Container) -> None:
    container.train.override(fail_with(errors.InvalidInput("odd", seen=Path("a/b"))))
    assert json.loads(invoke("train", "--json").stdout)["error"]["seen"] == repr(Path("a/b"))


def test_an_unforeseen_error_is_short_and_says_where(invoke: Invoke, container: Container) -> None:
    container.train.override(fail_with(ZeroDivisionError("by nought")))
    result = invoke("train", "-s", "lora.r=8")
    assert result.exit_code == exits.UNFORESEEN
    assert "ZeroDivisionError: by nought" in result.stderr
    assert "test_exits.py" in result.stderr
    assert "FINETUNE_DEBUG=1 finetune train -s lora.r=8" in result.stderr
    assert "Traceback" not in result.output
    assert len(result.stderr.splitlines()) <= 4


@pytest.mark.parametrize("way", ["option", "environment"])
def test_the_traceback_is_shown_on_demand(
    invoke: Invoke, container: Container, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    container.train.override(fail_with(ZeroDivisionError("by nought")))
    if way == "environment":
        monkeypatch.setenv("FINETUNE_DEBUG", "1")
    result = invoke(*(["--debug"] if way == "option" else []), "train")
    assert result.exit_code == exits.UNFORESEEN
    assert "Traceback (most recent call last)" in result.stderr


def test_a_file_error_names_the_file(invoke: Invoke, container: Container) -> None:
    container.train.override(fail_with(OSError(28, "No space left on device", "artifacts/a.json")))
    result = invoke("train")
    assert result.exit_code == exits.IO
    assert result.stderr.startswith("Error: artifacts/a.json: No space left on device.\n")


@pytest.mark.parametrize("command", ["prepare", "train", "calibrate", "evaluate"])
def test_ctrl_c_says_what_is_safe_and_how_to_go_on(
    invoke: Invoke, container: Container, command: str
) -> None:
    getattr(container, command).override(fail_with(KeyboardInterrupt()))
    result = invoke(command, "--json")
    assert result.exit_code == exits.INTERRUPTED
    assert exits.AFTER_INTERRUPT[command] in result.stderr
    assert json.loads(result.stdout)["error"]["type"] == "Interrupted"
    assert "Traceback" not in result.output


def test_usage_errors_have_code_2(invoke: Invoke) -> None:
    unknown_command, unknown_option = invoke("trian"), invoke("train", "--resum", "--json")
    assert unknown_command.exit_code == unknown_option.exit_code == exits.USAGE
    assert "Did you mean 'train'?" in unknown_command.stderr
    assert "train --help" in unknown_option.stderr
    assert json.loads(unknown_option.stdout)["error"]["exit_code"] == exits.USAGE


def test_a_missing_configuration_says_how_to_begin(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    result = invoke("train")
    assert result.exit_code == 3
    assert "finetune init" in result.stderr


def test_errors_are_drawn_on_a_terminal_without_reading_their_markup(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    exits.report(
        errors.InvalidInput("[bold] is no [/label]"), as_json=False, debug=False, command_line="finetune x"
    )
    assert "[bold] is no [/label]" in capsys.readouterr().err
