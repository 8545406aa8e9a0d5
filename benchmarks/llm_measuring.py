"""Sides that take turns: each in a process of its own, one piece of work at a time.

A parent holds a :class:`Worker` for each side and tells them in turn to go on, so that a slow moment of the
machine meets all of them.  In the child a :class:`Turn` measures what lies between two such words.
"""

from __future__ import annotations

import ctypes
import datetime
import gc
import json
import os
import platform
import select
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGES = ("torch", "transformers", "peft", "accelerate", "trl")
# Loading weights and encoding rows; nothing of that is measured.
PREPARATION = 600.0
PAGE = """\
# Throughput

How fast token trees train and score, beside what others do with the same rows and the same weights. Each
part is written by the command at its head. The numbers hold for one machine, and the better the less else
runs on it: all sides of a part take turns, so that its ratios suffer less from that than its times.
"""


class Worker:
    """A child process that works when told to.

    Parameters
    ----------
    arguments
        What follows ``python -m``.
    threads
        Of the child.
    """

    def __init__(self, arguments: Sequence[str], threads: int) -> None:
        self._complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115  Closed by `end`.
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"},
            cwd=ROOT,
        )
        self.problem: str | None = None

    def begin(self) -> None:
        """Wait until it is prepared."""
        self._read(PREPARATION)

    def work(self, limit: float) -> dict[str, Any] | None:
        """Let it do one piece; what it measured, or None once it has failed or taken too long."""
        if self.problem is not None:
            return None
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        return self._read(limit)

    def end(self) -> None:
        """Stop it."""
        self._process.kill()
        self._process.communicate()
        self._complaints.close()

    def _read(self, limit: float) -> dict[str, Any] | None:
        output = self._process.stdout
        assert output is not None
        if not select.select([output], [], [], limit)[0]:
            self.problem = f"> {limit:g} s"
            self._process.kill()
            return None
        line = output.readline()
        if not line:
            self._process.wait()
            self._complaints.seek(0)
            self.problem = f"failed: {(self._complaints.read().strip().splitlines() or ['killed'])[-1]}"
            return None
        return dict(json.loads(line))


class Turn:
    """The child's end: waits for the word, and says what was measured since."""

    def __init__(self) -> None:
        # What libraries print goes to the complaints.
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._before = _resident("VmRSS")

    def wait(self) -> None:
        """Wait for the word; the process ends with the parent."""
        # What was freed goes back to the system: other sides need it meanwhile.
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        if not sys.stdin.readline():
            os._exit(0)
        # Sets the high-water mark of resident memory back to what is resident.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self._start = (time.perf_counter(), time.process_time())

    def tell(self, **values: Any) -> None:
        """Say what was measured since the word was given."""
        measured = {
            "wall": time.perf_counter() - self._start[0],
            "processor": time.process_time() - self._start[1],
            "memory": _resident("VmHWM") - self._before,
        }
        self.say(**measured, **values)

    def say(self, **values: Any) -> None:
        """Say something."""
        print(json.dumps(values), file=self._out, flush=True)


def take_turns(
    workers: Mapping[str, Worker], rounds: int, limit: float
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """Let all sides do one piece after another.

    Returns
    -------
    tuple
        For each side what its pieces gave; and the words for those that came to no end.
    """
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in workers}
    try:
        for worker in workers.values():
            worker.begin()
        for _ in range(rounds):
            for side, worker in workers.items():
                measured = worker.work(limit)
                if measured is not None:
                    found[side].append(measured)
    finally:
        for worker in workers.values():
            worker.end()
    return found, {side: worker.problem for side, worker in workers.items() if worker.problem}


def best(pieces: Sequence[Mapping[str, float]], value: str, per: str | None = None) -> float:
    """Return the least that a piece has of a value, or of it per another one."""
    return min(piece[value] / (piece[per] if per else 1.0) for piece in pieces)


def machine(packages: Sequence[str] = PACKAGES) -> str:
    """Say what was measured on, and with what."""
    cpu_info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    processor = cpu_info.partition("model name")[2].partition("\n")[0].lstrip("\t: ")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"{processor}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}; "
        f"{versions}."
    )


def command() -> str:
    """Return the command that is running, when, and how busy the machine was."""
    module = Path(sys.argv[0]).stem
    return (
        f"`python -m benchmarks.{module} {shlex.join(sys.argv[1:])}` on {datetime.date.today()}, after a "
        f"minute in which {os.getloadavg()[0]:.1f} processes wanted to run, those of the part before it "
        f"among them"
    )


def write_section(page: Path, title: str, text: str, new_page: str = PAGE) -> None:
    """Put a section into the page, in the place of the one with its title."""
    old = page.read_text(encoding="utf-8") if page.is_file() else new_page
    head, *sections = old.split("\n## ")
    kept = {section.partition("\n")[0]: section for section in sections}
    kept[title] = f"{title}\n\n{text.strip()}\n"
    page.write_text("\n## ".join([head, *kept.values()]), encoding="utf-8")


def _resident(which: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition(f"{which}:")[2].split()[0])
