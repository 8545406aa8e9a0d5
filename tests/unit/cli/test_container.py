from __future__ import annotations

import subprocess
import sys

import pytest
from dependency_injector import errors as injector

from finetune.adapters.data.sources import FileSource
from finetune.adapters.files.clock import SystemClock
from finetune.cli.console import SilentProgress
from finetune.container import Container


def test_use_cases_get_the_adapters_and_the_progress() -> None:
    progress = SilentProgress()
    container = Container(progress=progress)
    container.encoders.override(object())  # the real one loads transformers
    prepare = container.prepare()
    assert isinstance(prepare.source, FileSource)
    assert isinstance(prepare.clock, SystemClock)
    assert prepare.progress is progress


def test_an_adapter_is_overridden_with_one_line() -> None:
    container = Container(progress=SilentProgress())
    mine = object()
    container.models.override(mine)
    assert container.calibrate().models is mine
    assert container.evaluate().models is mine
    assert container.predict().models is mine


def test_a_sweep_trains_with_the_trainer_of_the_container() -> None:
    container = Container(progress=SilentProgress())
    mine = object()
    container.trainer.override(mine)
    assert container.sweep().train.trainer is mine


def test_probabilities_are_read_by_one_source() -> None:
    container = Container(progress=SilentProgress())
    mine = object()
    container.probabilities.override(mine)
    assert container.calibrate_probabilities().source is mine
    assert container.evaluate_probabilities().source is mine
    assert container.predict_probabilities().source is mine


def test_an_override_stays_in_its_container() -> None:
    container = Container(progress=SilentProgress())
    container.source.override(object())
    assert isinstance(Container().init().source, FileSource)


def test_progress_must_be_given() -> None:
    with pytest.raises(injector.Error, match="progress"):
        Container().progress()


def test_hub_ids_are_left_as_they_are() -> None:
    assert Container().resolve_model()("Qwen/Qwen2.5-7B") == "Qwen/Qwen2.5-7B"


def test_a_missing_extra_says_what_to_install() -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'peft'): sys.modules[name] = None\n"
        "from finetune.container import Container\n"
        "from finetune.domain.errors import MissingExtra\n"
        "try: Container().backends()('causal')\n"
        "except MissingExtra as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'finetune-decisions[hf]'" in done.stdout
