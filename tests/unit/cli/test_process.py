"""The entry point as a process of its own: signals, closed pipes, odd bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ENTRY = "from finetune.cli.main import run\nrun()"
WAITING = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
from finetune.cli.main import app
from finetune.container import Container
container = Container()
def train(config, labels, *, resume):
    print("ready", file=sys.stderr, flush=True)
    time.sleep(60)
container.train.override(train)
app(["train"], obj=container)
"""


def start(code: str, *arguments: str, folder: Path | None = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
    )


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for a single process")
def test_a_real_ctrl_c_ends_in_a_line_and_130(project: Path) -> None:
    process = start(WAITING, folder=project)
    assert process.stderr is not None
    assert process.stderr.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == b""
    assert b"--resume" in err
    assert b"Traceback" not in err


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["train", "--json"]])
def test_a_closed_pipe_is_no_complaint(project: Path, arguments: list[str]) -> None:
    process = start(ENTRY, *arguments, folder=project / "configs")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=60)
    assert b"BrokenPipe" not in err
    assert b"Exception" not in err
    assert b"Traceback" not in err


def test_text_that_is_not_unicode_is_an_error_and_not_a_crash(project: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-c", ENTRY, "predict", "-i", "-"],
        input=b"fine\n\xff\xfe\n",
        capture_output=True,
        cwd=project,
        check=False,
        env={**os.environ, "PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:strict"},
    )
    assert process.returncode == 3
    assert b"UTF-8" in process.stderr


def test_the_installed_script_is_this_entry_point() -> None:
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="finetune")
    assert script.value == "finetune.cli.main:run"
