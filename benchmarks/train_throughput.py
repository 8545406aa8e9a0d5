"""Training on token trees against padded batches and TRL, as a section of a Markdown page.

    make throughput

runs this in the environment of the other trainers.  See ``--help`` for parts of it.  Linux only.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.llm_measuring import Worker, best, command, machine, take_turns, write_section
from benchmarks.llm_tasks import MAX_LENGTH, SHAPES, load_task, make_base, missing
from benchmarks.train_sides import PER_FORWARD, ROWS, SIDES, TRAINER, TREE, TRL, TRL_PACKED, step_rows

Found = dict[str, list[dict[str, Any]]]

WANTED = {TRL: 4.0, TRAINER: 3.0}
METHOD = """\
Steps of LoRA training: float32, {threads} threads, r = 16 on all linear layers, dropout 0, {rows} rows a
step in forwards of {per_forward} (a tree holds at most as many tokens as such a forward), on a Qwen2 of
54.8 million random parameters with a vocabulary of 32,768 (how they are made: `benchmarks/llm_tasks.py`).

- A side is a process of its own. After a forward and backward of 64 tokens to warm up, the sides take
  turns, step by step; the time is that from the reading of the rows to the log of the loss, of the best
  step.
- Useful tokens are those of the rows, prompts and answers, without padding: the same number for every
  side.
- Memory is the peak of resident memory during the steps, over what the process held after its imports:
  weights, optimiser and activations.
- The loss is that of the first step, on the same rows and the same answer tokens, before a weight has
  changed.
- transformers' `Trainer` pads, and makes the logits of all tokens. TRL is `SFTTrainer` with its defaults,
  activation checkpointing among them, but for float32, the batch and a `max_length` of {max_length}, with
  which nothing is cut off. Its packs hold {max_length} tokens at most; so that it has {rows} rows a step
  too, that side repeats the rows of the first step.
- Rows of similar length are in one step, as in finetune, for all sides: shuffled rows would have more
  padding.
"""
TEXT = """\
{what}: {length:.0f} tokens a row, the first {common} the same in all. Written by {command}. {machine}

| side | useful tokens / s | processor s / 1,000 | peak MB | wall : trees | processor : trees | loss |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
{table}

{verdict}
"""


def main() -> None:
    options = _options()
    method = METHOD.format(
        threads=options.threads, rows=ROWS, per_forward=PER_FORWARD, max_length=f"{MAX_LENGTH:,}"
    )
    if options.write:
        write_section(options.write, "Training", method)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_base(folder / "base")
        for shape in options.shapes:
            reason = missing(shape)
            text = f"Not measured: {reason}." if reason else measure(shape, folder, options)
            print(f"\n{shape}\n{text}", flush=True)
            if options.write:
                write_section(options.write, f"Training: {shape}", text)


def measure(shape: str, folder: Path, options: argparse.Namespace) -> str:
    """Measure a shape; the text of its section."""
    rows = step_rows(load_task(shape), folder / "base", options.rounds)
    tokens = [sum(len(row.ids) for row in step) for step in rows]
    ran = command()
    workers = {
        side: Worker(
            ["benchmarks.train_sides", side, shape, str(folder), str(options.rounds)], options.threads
        )
        for side in options.sides
    }
    found, problems = take_turns(workers, options.rounds, options.limit)
    for side, pieces in found.items():
        for number, piece in enumerate(pieces):
            piece["tokens"] = tokens[0 if side == TRL_PACKED else number]
    return TEXT.format(
        what=SHAPES[shape],
        length=sum(tokens) / ROWS / options.rounds,
        common=common(rows),
        command=ran,
        machine=machine(),
        table="\n".join(table(found, problems)),
        verdict="\n".join(verdict(found)),
    )


def table(found: Found, problems: dict[str, str]) -> list[str]:
    lines = []
    ours = found.get(TREE, [])
    for side, pieces in found.items():
        if not pieces:
            lines.append(f"| {side} | {problems.get(side, 'no step')} | | | | | |")
            continue
        ratios = [
            f"{best(pieces, key, 'tokens') / best(ours, key, 'tokens'):.1f}" if ours else ""
            for key in ("wall", "processor")
        ]
        columns = [
            f"{1 / best(pieces, 'wall', 'tokens'):,.0f}",
            f"{1e3 * best(pieces, 'processor', 'tokens'):.2f}",
            f"{max(piece['memory'] for piece in pieces) / 1e6:,.0f}",
            *ratios,
            f"{pieces[0]['loss']:.5f}",
        ]
        lines.append("| " + " | ".join([side, *columns]) + " |")
    return lines


def verdict(found: Found) -> list[str]:
    ours = found.get(TREE, [])
    if not ours:
        return []
    lines = []
    for side, wanted in WANTED.items():
        if pieces := found.get(side, []):
            wall, processor = (
                best(pieces, key, "tokens") / best(ours, key, "tokens") for key in ("wall", "processor")
            )
            lines.append(
                f"- Trees are {wall:.1f} times as fast as {side} ({processor:.1f} in processor time; "
                f"wanted: {wanted:g})."
            )
    losses = [pieces[0]["loss"] for pieces in found.values() if pieces]
    return [*lines, f"- First losses differ by {max(losses) - min(losses):.1e} at most."]


def common(steps: list[list[Any]]) -> int:
    """How many tokens all rows begin with."""
    rows = [row.ids for step in steps for row in step]
    return next((i for i, ids in enumerate(zip(*rows, strict=False)) if len(set(ids)) > 1), 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_throughput", description=__doc__)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--rounds", type=int, default=3, help="measured steps")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=float, default=150.0, help="seconds after which a step is cut off")
    parser.add_argument("--write", type=Path, help="a Markdown file for the section")
    return parser.parse_args()


if __name__ == "__main__":
    main()
