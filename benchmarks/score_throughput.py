"""Label scores from token trees against generation and forwards per label, as a section of a Markdown page.

    make throughput

runs this.  See ``--help`` for parts of it.  Linux only.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from operator import eq
from pathlib import Path
from typing import Any

from benchmarks.llm_measuring import Worker, best, command, machine, take_turns, write_section
from benchmarks.llm_tasks import SHAPES, load_task, make_base, missing, open_encoder, teach
from benchmarks.score_sides import (
    ALL,
    EXPANDED,
    GENERATE,
    MORE,
    MORE_PRUNED,
    NEW_TOKENS,
    PER_LABEL,
    PREFILL,
    PREFILL_LOGITS,
    PREFILL_ROWS,
    PRUNED,
    SIDES,
    unique_tokens,
)

from finetune.application.config import PredictionConfig

Found = dict[str, list[dict[str, Any]]]

METHOD = """\
Deciding texts: float32, {threads} threads, from the texts to the decisions, on the model of the training
measurements after {steps} steps of {rows} rows that taught it these tasks, all its weights (`teach` in
`benchmarks/llm_tasks.py`; not measured). Pruning leaves out what a model holds for unlikely, and a model
that has learnt nothing holds all labels for alike.

- A side is a process of its own. The sides take turns; the time is that of the best turn after a first
  one. The same texts come in each turn; no side keeps anything of them.
- finetune keeps the keys and values of the instructions from the first turn on, as it does in use; the
  others run them with each text. With pruning, the default, up to {prune:g} of a text's label mass is
  left out.
- Tokens run are all tokens that go through the model, padding among them.
- "generate": greedy, {new_tokens} tokens at most, left-padded, with a cache; it ends where all answers
  have ended.
- "one forward per label" is how lm-evaluation-harness does it: prompt and label as one row, all logits.
  It is stopped after {limit:g} s, and its rate is that of the rows done until then.
- "plain forward" runs the *unique* tokens (each token of texts and labels once, the instructions apart)
  as if they were one text, or rows of 512: a causal mask, a cache, no logits but the last ones; or, as
  scores need them, all logits and their softmax. Its texts per second are those of a scorer that did
  nothing else.
- Memory is the peak of resident memory while deciding, over what the process held after its imports.
- "agree" is the share of texts with the decision of the trees that leave nothing out.
"""
TEXT = """\
{what}: {texts} texts in batches of {batch}, {unique:.0f} unique tokens a text beside the instructions.
Written by {command}. {machine}

| side | texts / s | processor s / text | tokens run / text | peak MB | wall : trees | agree |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
{table}

{verdict}
"""


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.model or Path(temporary)
        recipe = taught_model(folder, [s for s in options.shapes if missing(s) is None], options.teach)
        method = METHOD.format(
            threads=options.threads,
            limit=options.limit,
            steps=recipe["steps"],
            rows=recipe["rows"],
            prune=PredictionConfig().prune,
            new_tokens=NEW_TOKENS,
        )
        if options.write:
            write_section(options.write, "Scoring", method)
        for shape in options.shapes:
            reason = missing(shape)
            text = f"Not measured: {reason}." if reason else measure(shape, folder / "taught", options)
            print(f"\n{shape}\n{text}", flush=True)
            if options.write:
                write_section(options.write, f"Scoring: {shape}", text)


def taught_model(folder: Path, shapes: list[str], steps: int) -> dict[str, Any]:
    """See to it that a taught model is there, and say how it was taught."""
    base, taught = folder / "base", folder / "taught"
    if not (taught / "recipe.json").is_file():
        make_base(base)
        teach(base, taught, shapes, steps)
    return dict(json.loads((taught / "recipe.json").read_text(encoding="utf-8")))


def measure(shape: str, folder: Path, options: argparse.Namespace) -> str:
    """Measure a shape; the text of its section."""
    task = load_task(shape)
    encoder = open_encoder(folder, task)
    texts = task.texts[: options.texts]
    unique = len(unique_tokens(encoder, texts)) / len(texts)
    ran = command()
    arguments = [shape, str(folder), str(options.texts), str(options.batch), str(options.limit)]
    workers = {
        side: Worker(["benchmarks.score_sides", side, *arguments], options.threads) for side in options.sides
    }
    # One batch may go on beyond the limit before its side looks at the clock.
    found, problems = take_turns(workers, options.rounds + 1, 10 * options.limit)
    found = {side: pieces[1:] for side, pieces in found.items()}
    return TEXT.format(
        what=SHAPES[shape],
        texts=len(texts),
        batch=options.batch,
        unique=unique,
        command=ran,
        machine=machine(),
        table="\n".join(table(found, problems)),
        verdict="\n".join(verdict(found, unique)),
    )


def table(found: Found, problems: dict[str, str]) -> list[str]:
    lines = []
    ours, exact = found.get(PRUNED, []), found.get(ALL, [])
    for side, pieces in found.items():
        if not pieces:
            lines.append(f"| {side} | {problems.get(side, 'no turn')} | | | | | |")
            continue
        wall = best(pieces, "wall", "texts")
        decisions = pieces[0]["decisions"]
        whole = bool(decisions) and pieces[0].get("share", 1.0) == 1.0 and bool(exact)
        agree = sum(map(eq, decisions, exact[0]["decisions"])) / len(decisions) if whole else None
        columns = [
            f"{1 / wall:.2f}",
            f"{best(pieces, 'processor', 'texts'):.3f}",
            f"{best(pieces, 'tokens', 'texts'):,.0f}",
            f"{max(piece['memory'] for piece in pieces) / 1e6:,.0f}",
            f"{wall / best(ours, 'wall', 'texts'):.1f}" if ours else "",
            "" if agree is None else f"{agree:.2f}",
        ]
        lines.append("| " + " | ".join([side, *columns]) + " |")
    return lines


def verdict(found: Found, unique: float) -> list[str]:
    measured = {side: pieces for side, pieces in found.items() if pieces}
    wall = {side: best(pieces, "wall", "texts") for side, pieces in measured.items()}
    lines = []
    if PRUNED in wall and ALL in wall:
        exact = measured[ALL][0]
        lines.append(
            f"- The likeliest label has probability {exact['sure']:.2f} on average; "
            f"pruning moved no distribution by more than {measured[PRUNED][0]['left_out']:.1g}"
            f"{_moved(measured)}."
        )
    for side in (PRUNED, MORE_PRUNED, ALL):
        ratios = [f"{wall[other] / wall[side]:.1f} times {name}" for other, name in _PEERS if other in wall]
        if side in wall and ratios:
            lines.append(f"- {side}: {', '.join(ratios)} (wanted: 8 times generation).")
    plain = [f"{wall[side] / wall[ALL]:.2f} of the {side}" for side in _PLAIN if {side, ALL} <= wall.keys()]
    if plain:
        rate = f"{unique / wall[ALL]:,.0f} unique tokens a second"
        lines.append(f"- {ALL}: {rate}; {'; '.join(plain)} (wanted: 0.8).")
    if GENERATE in measured:
        lines.append(f"- {measured[GENERATE][0]['valid']:.0%} of the generated answers are in the format.")
    if PER_LABEL in measured and measured[PER_LABEL][0]["share"] < 1.0:
        share = measured[PER_LABEL][0]["share"]
        lines.append(f"- One forward per label came to {share:.1%} of its rows within the limit.")
    return lines


def _moved(measured: Found) -> str:
    if MORE_PRUNED not in measured:
        return ""
    return f", or {measured[MORE_PRUNED][0]['left_out']:.1g} where {MORE:g} is allowed"


_PLAIN = (PREFILL, PREFILL_ROWS, PREFILL_LOGITS)
_PEERS = ((GENERATE, "generation"), (PER_LABEL, "one forward per label"), (EXPANDED, "cache expansion"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.score_throughput", description=__doc__)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--rounds", type=int, default=3, help="measured turns")
    parser.add_argument("--texts", type=int, default=32, help="texts of a turn")
    parser.add_argument("--batch", type=int, default=PredictionConfig().batch_size, help="texts of a batch")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=float, default=15.0, help="seconds for one forward per label")
    parser.add_argument("--teach", type=int, default=800, help="steps of teaching")
    parser.add_argument("--model", type=Path, help="a folder that keeps the taught model for the next run")
    parser.add_argument("--write", type=Path, help="a Markdown file for the section")
    return parser.parse_args()


if __name__ == "__main__":
    main()
