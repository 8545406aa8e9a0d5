"""The tasks, the tokeniser and the base model of the throughput measurements.

No download: tasks are CLINC150 and Banking77 ($FINETUNE_DATA, or shared/data beside the checkout) and the
demo's generated messages.  The tokeniser is a byte-level BPE of 32,768 tokens, trained here on the sources
of Python's standard library (English and code) and on the texts, with the pipeline and the chat template of
the shipped model, whose own 3,072 tokens would make every prompt longer.  Label lists are not trained on.
The base is a Qwen2 of 54.8 million random parameters: speed does not depend on what they are.
"""

from __future__ import annotations

import csv
import json
import os
import sysconfig
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, Qwen2Config

from finetune.adapters.embedded.base import model_folder
from finetune.adapters.embedded.messages import generate_messages, labels_document
from finetune.adapters.hf.encoder import HfEncoder
from finetune.adapters.hf.row_attention import attend_in_rows
from finetune.adapters.hf.trees import tree_loss
from finetune.application.config import ProjectConfig, PromptConfig
from finetune.application.labels_file import LabelsFile
from finetune.application.ports import EncodedExample
from finetune.application.prompting import build_prompt
from finetune.domain.examples import Example
from finetune.domain.labels import LabelSet
from finetune.domain.prompts import PromptFormat
from finetune.domain.token_tree import TokenTree, target_counts

ROOT = Path(__file__).parents[1]
VOCABULARY = 32_768
MAX_LENGTH = 2048
GENERATED = 4000
SEED = 7
# Folder and column of the label, as in configs/.
REAL = {"clinc150": "intent", "banking77": "category"}
SHAPES = {
    "clinc150": "150 labels and abstention listed, short questions",
    "banking77": "77 labels listed, short questions",
    "triage": "the demo's messages, 5 labels and abstention listed with what they mean",
    "demo": "the demo as it is: the same messages, and an instruction that lists nothing",
}
# Of the demo's configuration (finetune.adapters.embedded.project).
_DEMO_SYSTEM = 'Answer: {"decision": "<decision>"}'


class Task(NamedTuple):
    """A label set, its instructions, rows to train on and texts to score."""

    labels: LabelSet
    prompt: PromptFormat
    rows: list[Example]
    texts: list[str]


def data_folder() -> Path:
    """Return where the tests find the real data; it need not be there."""
    return Path(os.environ.get("FINETUNE_DATA", ROOT.parent / "shared" / "data"))


def missing(shape: str) -> str | None:
    """Say why a shape cannot be measured here, if it cannot."""
    folder = data_folder() / shape
    return f"no data at {folder}" if shape in REAL and not folder.is_dir() else None


def load_task(shape: str) -> Task:
    """Return a task, its rows and texts in an order drawn once and for all."""
    draws = np.random.default_rng(SEED)
    if shape in REAL:
        file = ROOT / "configs" / shape / "labels.yaml"
        labels = LabelsFile.model_validate(yaml.safe_load(file.read_text(encoding="utf-8"))).label_set()
        rows = [Example(f"{i}", text, label) for i, (text, label) in enumerate(_read(shape, "train"))]
        texts = [text for text, _ in _read(shape, "test")]
        prompt = build_prompt(PromptConfig(), labels)
    else:
        labels = LabelsFile.model_validate(labels_document()).label_set()
        messages = generate_messages(GENERATED + 500, SEED)
        rows = [Example(f"{i}", m.text, m.label, m.rationale) for i, m in enumerate(messages[:GENERATED])]
        texts = [message.text for message in messages[GENERATED:]]
        system = _DEMO_SYSTEM if shape == "demo" else None
        prompt = build_prompt(PromptConfig(system=system), labels)
    return Task(
        labels,
        prompt,
        [rows[i] for i in draws.permutation(len(rows))],
        [texts[i] for i in draws.permutation(len(texts))],
    )


def configuration(model: Path, **sections: Any) -> ProjectConfig:
    """Return a configuration for the base in a folder; data and labels are passed beside it."""
    return ProjectConfig.model_validate({"model_id": str(model), "data": {"files": ["none"]}, **sections})


def open_encoder(model: Path, task: Task) -> HfEncoder:
    """Return the encoder that all sides take their tokens from."""
    return HfEncoder(AutoTokenizer.from_pretrained(model), task.labels, task.prompt, MAX_LENGTH)


def make_base(folder: Path) -> None:
    """Write tokeniser and random weights."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder()).train_new_from_iterator(_corpus(), VOCABULARY)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(SEED)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=512,
        intermediate_size=2048,
        num_hidden_layers=10,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)


def teach(base: Path, folder: Path, shapes: Sequence[str], steps: int, rows: int = 32) -> None:
    """Teach the base the tasks: all its weights, for there is nothing in them to be adapted.

    The scores of a model that knows nothing are spread over all labels, as those of no tuned model are.
    First come the labels of the real tasks, without instructions, which makes the rows short; the last
    quarter of the steps is for all tasks as they are, in turn, with half the rows.
    """
    torch.manual_seed(SEED)
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    attend_in_rows(model, enabled=True)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    tasks = {shape: load_task(shape) for shape in shapes}
    bare = [_lessons(base, task, whole=False) for shape, task in tasks.items() if shape in REAL]
    if bare:
        _learn(model, bare, steps - steps // 4, rows, rate=1e-3)
    whole = [_lessons(base, task, whole=True) for task in tasks.values()]
    _learn(model, whole, steps // 4, rows // 2, rate=4e-4)
    model.save_pretrained(folder)
    recipe = {"shapes": list(shapes), "steps": steps, "rows": rows}
    (folder / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")


def _learn(
    model: PreTrainedModel,
    lessons: Sequence[Iterator[EncodedExample]],
    steps: int,
    rows: int,
    rate: float,
) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps + 2, pct_start=0.1)
    model.train()
    for step in range(steps):
        batch = list(islice(lessons[step % len(lessons)], rows))
        tree = TokenTree()
        targets = target_counts([tree.add(row.ids) for row in batch], [row.answer_start for row in batch])
        with torch.autocast("cpu", torch.bfloat16):
            loss = tree_loss(model, tree, targets) / int(targets.counts.sum())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        if step % 20 < len(lessons) or step >= steps - len(lessons):
            print(f"teaching, step {step} of {steps}: loss {loss:.4f}", flush=True)


def _lessons(base: Path, task: Task, *, whole: bool) -> Iterator[EncodedExample]:
    if whole:
        yield from map(open_encoder(base, task).encode, _endless(task.rows))
    encoder = open_encoder(base, task._replace(prompt=PromptFormat("", "{text}")))
    for row in _endless(task.rows):
        ids, _ = encoder.score_ids(row.text)
        path = encoder.label_paths[encoder.outcomes.index(str(row.label))]
        yield EncodedExample((*ids, *path), len(ids), 0)


def _endless(rows: Sequence[Example]) -> Iterator[Example]:
    draws = np.random.default_rng(SEED)
    while True:
        yield from (rows[i] for i in draws.permutation(len(rows)))


def _corpus() -> Iterator[str]:
    library = Path(sysconfig.get_paths()["stdlib"])
    for file in sorted(library.rglob("*.py")):
        if not {"site-packages", "test", "tests"} & set(file.parts):
            yield file.read_text(encoding="utf-8", errors="ignore")
    for shape in REAL:
        if missing(shape) is None:
            yield from (text for text, _ in _read(shape, "train"))
    yield from (message.text for message in generate_messages(GENERATED, SEED))


def _read(shape: str, part: str) -> list[tuple[str, str]]:
    with (data_folder() / shape / f"{part}.csv").open(encoding="utf-8", newline="") as file:
        return [(row["text"], row[REAL[shape]]) for row in csv.DictReader(file)]
