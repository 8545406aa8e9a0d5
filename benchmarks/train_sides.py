"""One side of the training comparison, in a process of its own.

    python -m benchmarks.train_sides SIDE SHAPE FOLDER STEPS

Every side takes the same steps: LoRA (r = 16, on all linear layers, no dropout) on the base in FOLDER,
float32, 16 rows a step.  All get their tokens and loss masks from the same encoder, and the rows in the order
in which finetune trains on them, which has rows of similar length together; others would shuffle, and pad
more.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
import trl
from benchmarks.llm_measuring import Turn
from benchmarks.llm_tasks import MAX_LENGTH, Task, configuration, load_task, open_encoder
from benchmarks.pace import Pace
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune.adapters.hf.batches import IGNORED, LengthGroupedSampler
from finetune.adapters.hf.reporting import Silence
from finetune.adapters.hf.trainer import HfTrainer
from finetune.application.ports import EncodedExample, TrainingJob

ROWS, PER_FORWARD = 16, 4
RANK, ALPHA, LEARNING_RATE = 16, 32, 2e-4
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SEED = 42


class WarmPace(Pace):
    """The same, with a model that has run once."""

    def on_train_begin(self, *_: Any, model: torch.nn.Module, **__: Any) -> None:
        # What is made once in a process is made now; no weight changes by it.
        model.train()
        ids = torch.arange(64)[None]
        model(input_ids=ids, labels=ids).loss.backward()
        model.zero_grad()
        super().on_train_begin()


class Checked:
    """A log of metrics that sees to it that batches run as they should."""

    def __init__(self, path: str) -> None:
        self._path = path

    def append(self, event: str, values: Mapping[str, Any]) -> None:
        if event == "started" and values["path"] != self._path:
            raise RuntimeError(f"not run as {self._path}: {values['path_reason']}")


def ours(path: str, task: Task, base: Path, steps: int, folder: Path) -> None:
    config = configuration(
        base,
        lora={"r": RANK, "alpha": ALPHA, "dropout": 0.0},
        training={
            "token_tree": path == "tree",
            "per_device_batch_size": PER_FORWARD,
            "gradient_accumulation_steps": ROWS // PER_FORWARD,
            "learning_rate": LEARNING_RATE,
            "max_steps": steps,
            "max_length": MAX_LENGTH,
            "bf16": False,
            # Measured before and after all steps only, on one row.
            "evaluations_per_epoch": 1,
            "json_samples": 0,
            "logging_steps": 1,
            "early_stopping": {"enabled": False},
            "seed": SEED,
        },
    )
    rows = task.rows[: ROWS * steps]
    job = TrainingJob(config, task.labels, task.prompt, rows, task.rows[-1:], folder, {}, resume=False)
    HfTrainer(str).train(job, Checked(path), Silence())


def padded_trainer(task: Task, base: Path, steps: int, folder: Path) -> None:
    collator = transformers.DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(base))
    arguments = transformers.TrainingArguments(str(folder), **_shared(steps))
    transformers.Trainer(_lora(base), arguments, collator, _rows(task, base, steps)).train()


def sft(task: Task, base: Path, steps: int, folder: Path, **options: Any) -> None:
    rows = _rows(task, base, steps)
    shared = _shared(steps)
    if options.get("packing"):
        # All packs of the rows of the first step are a step, so that this side too does 16 rows a step.
        rows = rows[:ROWS]
        packs = len(trl.pack_dataset(Dataset.from_list(rows), MAX_LENGTH))
        shared |= {"per_device_train_batch_size": 1, "gradient_accumulation_steps": packs}
    arguments = trl.SFTConfig(str(folder), **shared, bf16=False, max_length=MAX_LENGTH, **options)
    tokenizer = AutoTokenizer.from_pretrained(base)
    trainer = trl.SFTTrainer(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=_adapter(),
    )
    trainer.train()


def step_rows(task: Task, base: Path, steps: int) -> list[list[EncodedExample]]:
    """Return the rows of each step, as finetune takes them."""
    encoder = open_encoder(base, task)
    rows = [encoder.encode(row) for row in task.rows[: ROWS * steps]]
    order = list(LengthGroupedSampler([len(row.ids) for row in rows], ROWS, SEED))
    return [[rows[i] for i in order[start : start + ROWS]] for start in range(0, len(order), ROWS)]


def _rows(task: Task, base: Path, steps: int) -> list[dict[str, list[int]]]:
    return [
        {
            "input_ids": list(row.ids),
            "labels": [IGNORED] * row.answer_start + list(row.ids[row.answer_start :]),
        }
        for step in step_rows(task, base, steps)
        for row in step
    ]


def _adapter() -> LoraConfig:
    return LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS, task_type="CAUSAL_LM")


def _lora(base: Path) -> PeftModel:
    return get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), _adapter())


def _shared(steps: int) -> dict[str, Any]:
    return {
        "per_device_train_batch_size": PER_FORWARD,
        "gradient_accumulation_steps": ROWS // PER_FORWARD,
        "learning_rate": LEARNING_RATE,
        "max_steps": steps,
        "train_sampling_strategy": "sequential",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": SEED,
    }


Side = Callable[[Task, Path, int, Path], None]
TREE, PADDED = "finetune, trees", "finetune, padded"
TRAINER = "transformers Trainer"
TRL, TRL_PLAIN, TRL_PACKED = "TRL", "TRL, no checkpointing", "TRL, packing, no checkpointing"
SIDES: dict[str, Side] = {
    TREE: partial(ours, "tree"),
    PADDED: partial(ours, "padded"),
    TRAINER: padded_trainer,
    TRL: sft,
    TRL_PLAIN: partial(sft, gradient_checkpointing=False),
    TRL_PACKED: partial(sft, gradient_checkpointing=False, packing=True),
}


def main() -> None:
    side, shape, folder, steps = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    turn = Turn()
    transformers.trainer.DEFAULT_CALLBACKS.append(WarmPace(turn))
    own = folder / f"{shape}-{list(SIDES).index(side)}"
    own.mkdir(exist_ok=True)
    SIDES[side](load_task(shape), folder / "base", steps, own)


if __name__ == "__main__":
    main()
