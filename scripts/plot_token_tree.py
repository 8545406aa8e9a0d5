"""Draw the tree and the mask of docs/token-trees.md, and count the tokens of its table.

    python scripts/plot_token_tree.py                  # into docs/img, and into the page
    python scripts/plot_token_tree.py --data FOLDER    # where banking77/ and clinc150/ lie; else data/
    python scripts/plot_token_tree.py --to FOLDER      # the picture somewhere else, the page untouched

The picture's messages, tokeniser and prompt are those of the demo.  Lines of the table whose data are not
there stay as they are.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from concepts.style import make
from transformers.utils import logging
from tree_picture import draw_batch

from finetune.adapters.data.sources import FileSource
from finetune.adapters.embedded.messages import generate_messages, labels_document
from finetune.adapters.embedded.project import CONFIG
from finetune.adapters.files.settings import load_config, load_labels
from finetune.adapters.hf.batches import LengthGroupedSampler
from finetune.adapters.hf.encoder import HfEncoder
from finetune.adapters.hf.loading import load_tokenizer
from finetune.application.config import ProjectConfig
from finetune.application.labels_file import LabelsFile
from finetune.application.prepare_rows import read_rows
from finetune.application.prompting import build_prompt
from finetune.cli.console import SilentProgress
from finetune.container import resolve_model
from finetune.domain.examples import Example
from finetune.domain.token_tree import TokenTree

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "token-trees.md"
COMMAND = "$ python scripts/plot_token_tree.py"
# Rows of the demo (seed 0) that are short; three of them begin alike.
SHOWN = (155, 301, 479, 523)
N_ROWS = 1280


class Task(NamedTuple):
    """Rows, and how they become tokens."""

    name: str
    encoder: HfEncoder
    examples: Sequence[Example]


def demo_task(rows: Sequence[int] = range(N_ROWS)) -> Task:
    """Return rows of the demo as ``finetune demo`` writes them."""
    messages = generate_messages(max(rows) + 1, seed=0)
    config = ProjectConfig.model_validate(yaml.safe_load(CONFIG))
    encoder = encoder_of(config, LabelsFile.model_validate(labels_document()))
    examples = [
        Example(id=str(i), text=messages[i].text, label=messages[i].label, rationale=messages[i].rationale)
        for i in rows
    ]
    return Task("demo", encoder, examples)


def real_tasks(name: str, data: Path) -> Iterator[Task]:
    """Yield training rows with the prompt of their configuration, and with one that lists the labels."""
    config = load_config(ROOT / "configs" / name.lower() / "llm_lora.yaml")
    labels = load_labels(ROOT / config.labels)
    files = tuple(
        file.model_copy(update={"path": data.joinpath(*file.path.parts[1:])})
        for file in config.data.files
        if file.split == "train"
    )
    if not all(file.path.is_file() for file in files):
        return
    source = config.data.model_copy(update={"files": files})
    found = read_rows(FileSource(), source, labels.label_set(), SilentProgress()).examples
    drawn = np.random.default_rng(0).choice(len(found), size=N_ROWS, replace=False)
    examples = [found[i] for i in drawn]
    yield Task(name, encoder_of(config, labels), examples)
    changes = {
        "prompt": config.prompt.model_copy(update={"list_labels": True}),
        # A list of labels takes more than the shipped model could read.
        "training": config.training.model_copy(update={"max_length": 4096}),
    }
    yield Task(f"{name}, labels listed", encoder_of(config.model_copy(update=changes), labels), examples)


def encoder_of(config: ProjectConfig, labels: LabelsFile) -> HfEncoder:
    """Return the encoder of a configuration."""
    label_set = labels.label_set()
    tokenizer = load_tokenizer(config, resolve_model)
    return HfEncoder(tokenizer, label_set, build_prompt(config.prompt, label_set), config.training.max_length)


class Counts(NamedTuple):
    """Tokens of a batch: in one rectangle, in its rows alone, and in one tree."""

    padded: int
    rows: int
    tree: int


def training_counts(rows: Sequence[Sequence[int]]) -> Counts:
    """Count what training on some rows runs."""
    tree, lengths = TokenTree(), [len(row) for row in rows]
    for row in rows:
        tree.add(row)
    return Counts(len(rows) * max(lengths), sum(lengths), len(tree))


def scoring_counts(prompts: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]) -> Counts:
    """Count what scoring labels runs: of the last token of each only the probability is asked for."""
    tree = TokenTree()
    for prompt in prompts:
        end = int(tree.add(prompt)[-1])
        for path in labels:
            tree.add(path[:-1], start=end)
    lengths = np.add.outer([len(prompt) for prompt in prompts], [len(path) - 1 for path in labels])
    return Counts(lengths.size * int(lengths.max()), int(lengths.sum()), len(tree))


def draw_picture(path: Path) -> list[str]:
    """Draw the picture into a file, and return what it shows."""
    shown = demo_task(SHOWN)
    texts = [example.text for example in shown.examples]
    return make(lambda: draw_batch(shown.encoder, texts, chosen=(texts[-1], "refill")), path)


def table_rows(task: Task) -> Iterator[str]:
    """Yield the lines of the page's table for a task: means over batches in the order of training."""
    trained = [task.encoder.encode(example).ids for example in task.examples]
    prompts = [task.encoder.score_ids(example.text)[0] for example in task.examples]
    labels = task.encoder.label_paths
    for size in (8, 64):
        found = [training_counts([trained[i] for i in batch]) for batch in batches(trained, size)]
        yield table_row(task.name, f"training, {size} rows", found)
    found = [scoring_counts([prompts[i] for i in batch], labels) for batch in batches(prompts, 16)]
    yield table_row(task.name, f"scoring, 16 texts × {len(labels)} labels", found)


def batches(rows: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Yield row numbers in the order of the first epoch, neighbours of similar length."""
    order = list(LengthGroupedSampler([len(row) for row in rows], size, seed=0))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def table_row(task: str, batch: str, found: Sequence[Counts]) -> str:
    """Return one line of the table."""
    means = Counts(*(round(float(column.mean())) for column in np.array(found).T))
    numbers = " | ".join(f"{number:,}" for number in means)
    return f"| {task} | {batch} | {numbers} | {means.padded / means.tree:.1f} |"


def with_table_row(page: str, row: str) -> str:
    """Return the page with this line in place of the one that begins with the same two cells."""
    start = "|".join(row.split("|")[:3]) + "|"
    found, count = re.subn(rf"^{re.escape(start)}.*$", lambda _: row, page, flags=re.MULTILINE)
    if count != 1:
        raise SystemExit(f"{PAGE.name} has {count} lines that begin with {start}")
    return found


def with_findings(page: str, findings: Sequence[str]) -> str:
    """Return the page with these findings under the command."""
    block = re.compile(rf"({re.escape(COMMAND)}\n).*?(?=^```$)", re.DOTALL | re.MULTILINE)
    return block.sub(lambda found: found[1] + "".join(f"{line}\n" for line in findings), page)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, draw and count."""
    parser = argparse.ArgumentParser(description="Draw and count the token trees of docs/token-trees.md.")
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="folder of banking77/ and clinc150/")
    parser.add_argument("--to", type=Path, help="folder for the picture, instead of docs/img; the page stays")
    options = parser.parse_args(arguments)
    logging.set_verbosity_error()
    findings = draw_picture((options.to or ROOT / "docs" / "img") / "token-tree.svg")
    tasks = [demo_task(), *real_tasks("banking77", options.data), *real_tasks("CLINC150", options.data)]
    rows = [row for task in tasks for row in table_rows(task)]
    print("\n".join([COMMAND, *findings, "", *rows]))
    if options.to is None:
        page = with_findings(PAGE.read_text(encoding="utf-8"), findings)
        for row in rows:
            page = with_table_row(page, row)
        PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
