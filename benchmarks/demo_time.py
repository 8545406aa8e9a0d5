"""The demo's time with and without token trees, as a section of a Markdown page.

    python -m benchmarks.demo_time --before e6c230e

runs the demo of this working tree and that of an older commit in turn, with the same seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.llm_measuring import ROOT, command, machine, write_section

TITLE = "The demo"
TEXT = """\
Written by {command}. {machine}

The commands of the demo with {size} messages, whose model has 2.3 million parameters, as they were in
{before} and as they are, in turn, with {threads} threads; `predict` is for {texts} messages. Wall /
processor seconds of the whole command, the loading of Python and of the model among them.

| seed | code | train | evaluate | predict | predict with rationales | accuracy | log loss |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |
"""
TEXTS = 1000


WRITE = """
from pathlib import Path
from finetune.adapters.embedded.project import EmbeddedProject
EmbeddedProject().write(Path(), {size}, {seed})
"""


class Spent(NamedTuple):
    """Seconds of one command."""

    wall: float
    processor: float


class Run(NamedTuple):
    """What the commands took, and accuracy and log loss of the test rows."""

    spent: dict[str, Spent]
    results: list[float]


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as temporary:
        old = Path(temporary) / "old"
        old.mkdir()
        archive = subprocess.run(
            ["git", "archive", options.before, "src"], cwd=ROOT, capture_output=True, check=True
        )
        subprocess.run(["tar", "-x", "-C", str(old)], input=archive.stdout, check=True)
        sources = {options.before: old / "src", "now": ROOT / "src"}
        lines = []
        runs: dict[str, list[Run]] = {name: [] for name in sources}
        for seed in range(options.seeds):
            for name, source in sources.items():
                runs[name].append(run(source, Path(temporary) / f"{name}-{seed}", seed, options))
                lines.append(row(seed, name, runs[name][-1]))
                print(lines[-1], flush=True)
    before, now = runs.values()
    gains = [
        f"{step} {sum(r.spent[step].wall for r in before) / sum(r.spent[step].wall for r in now):.2f}"
        for step in before[0].spent
    ]
    text = TEXT.format(
        command=command(),
        machine=machine(),
        size=f"{options.size:,}",
        before=options.before,
        threads=options.threads,
        texts=TEXTS,
    )
    text += "\n".join([*lines, "", f"- Times as fast in wall time, all seeds together: {', '.join(gains)}."])
    print("\n" + text)
    if options.write:
        write_section(options.write, TITLE, text)


def run(source: Path, folder: Path, seed: int, options: argparse.Namespace) -> Run:
    """Do what the demo does with the code in a folder, one command after another."""
    folder.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": str(source),
        "OMP_NUM_THREADS": str(options.threads),
        "HF_HUB_OFFLINE": "1",
    }

    def call(*arguments: str) -> Spent:
        start = (time.perf_counter(), _processor())
        subprocess.run(
            [sys.executable, "-W", "ignore", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            check=True,
        )
        return Spent(time.perf_counter() - start[0], _processor() - start[1])

    # As the demo, but for fewer messages, of which too few may be left for the promise that it makes.
    configured = ("--config", "configs/llm_lora.yaml", "--set", "risk.on_infeasible=abstain")
    call("-c", WRITE.format(size=options.size, seed=seed))
    call("-m", "finetune", "prepare", *configured)
    trained = call("-m", "finetune", "train", *configured)
    call("-m", "finetune", "calibrate", *configured)
    evaluated = call("-m", "finetune", "evaluate", *configured)
    messages = (folder / "data" / "messages.jsonl").read_text(encoding="utf-8").splitlines()[:TEXTS]
    texts = [{"id": f"new-{i}", "text": json.loads(line)["text"]} for i, line in enumerate(messages)]
    (folder / "more.jsonl").write_text("\n".join(map(json.dumps, texts)) + "\n", encoding="utf-8")
    predict = ("-m", "finetune", "predict", *configured, "--input", "more.jsonl", "--output")
    predicted = call(*predict, "decided.jsonl")
    explained = call(*predict, "explained.jsonl", "--set", "prediction.rationale=true")
    file = folder / "artifacts" / "runs" / "triage" / "evaluation.json"
    found = json.loads(file.read_text(encoding="utf-8"))
    return Run(
        {"train": trained, "evaluate": evaluated, "predict": predicted, "predict with rationales": explained},
        [found["accuracy"]["value"], found["log_loss"]["after"]["value"]],
    )


def row(seed: int, name: str, measured: Run) -> str:
    times = [f"{spent.wall:.1f} / {spent.processor:.1f}" for spent in measured.spent.values()]
    return "| " + " | ".join([str(seed), name, *times, *(f"{v:.4f}" for v in measured.results)]) + " |"


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo_time", description=__doc__)
    parser.add_argument("--before", default="e6c230e", help="a commit without token trees")
    parser.add_argument("--size", type=int, default=3000, help="messages of the demo")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", type=Path, help="a Markdown file for the section")
    return parser.parse_args()


if __name__ == "__main__":
    main()
