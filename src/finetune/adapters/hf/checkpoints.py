"""Finding the checkpoint to go on from after a training that was cut off anywhere."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune.domain.errors import IntegrityError

_NAME = re.compile(r"checkpoint-(\d+)")
# trainer_state.json is what the Trainer writes last.
_PARTS = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "optimizer.pt",
    "scheduler.pt",
    "trainer_state.json",
)


def is_complete(checkpoint: Path, processes: int = 1) -> bool:
    """Whether every part of a checkpoint was written before the processes ended."""
    states = [f"rng_state_{i}.pth" for i in range(processes)] if processes > 1 else ["rng_state.pth"]
    if not all((checkpoint / part).is_file() for part in (*_PARTS, *states)):
        return False
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        return False
    return isinstance(state, dict) and "global_step" in state


def latest_checkpoint(folder: Path, processes: int = 1) -> Path | None:
    """Return the newest complete checkpoint, after removing newer ones that were cut off.

    A checkpoint that the newest one names as the best so far must be there too.

    Raises
    ------
    IntegrityError
        The best checkpoint is gone, so resuming could not end as an uninterrupted run would.
    """
    found = sorted(
        (
            (int(match[1]), path)
            for path in folder.glob("checkpoint-*")
            if (match := _NAME.fullmatch(path.name))
        ),
        reverse=True,
    )
    for _, path in found:
        if not is_complete(path, processes):
            shutil.rmtree(path)
            continue
        state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        best = state.get("best_global_step")
        if best and not (folder / f"checkpoint-{best}").is_dir():
            raise IntegrityError(
                "the best checkpoint so far is gone",
                where=str(folder),
                seen=f"checkpoint-{best}",
                remedy="put it back, or delete the folder and train again",
            )
        return path
    return None


def step_of(checkpoint: Path | None) -> int:
    """Return the optimiser steps that a checkpoint has behind it; 0 without one."""
    return 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])


_FACTS = {
    "processes": "number of processes",
    "precision": "numerical precision",
    "path": "way to run batches",
    "tree_tokens": "limit of tokens to a tree",
}


class BegunTraining:
    """How an interrupted training runs: it must be gone on with in the same way.

    Parameters
    ----------
    file
        ``job.json`` of its checkpoints.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        recorded = json.loads(file.read_text(encoding="utf-8"))["machine"]
        # Trainings of before token trees say nothing of them, and were padded.
        self._machine: dict[str, Any] = {"path": "padded", "tree_tokens": None, **recorded}

    @property
    def path(self) -> str:
        """``tree`` or ``padded``."""
        return str(self._machine["path"])

    def check(self, machine: Mapping[str, Any]) -> None:
        """Check some or all facts of how the training would run here.

        Raises
        ------
        IntegrityError
            One of them was another one before, so that it would end with other weights.
        """
        before = {name: self._machine[name] for name in machine}
        if before != machine:
            other = " and another ".join(_FACTS[name] for name in machine if before[name] != machine[name])
            raise IntegrityError(
                f"the interrupted training ran with another {other}",
                where=str(self._file),
                seen=dict(machine),
                remedy=f"resume it with {before}, or delete this folder to begin again",
            )
