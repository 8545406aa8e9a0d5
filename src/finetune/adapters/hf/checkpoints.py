"""Finding the checkpoint to go on from after a training that was cut off anywhere."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

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


def is_complete(checkpoint: Path) -> bool:
    """Whether every part of a checkpoint was written before the process ended."""
    if not all((checkpoint / part).is_file() for part in _PARTS):
        return False
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        return False
    return isinstance(state, dict) and "global_step" in state


def latest_checkpoint(folder: Path) -> Path | None:
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
        if not is_complete(path):
            shutil.rmtree(path)
            continue
        state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        best = state.get("best_global_step")
        if best and not (folder / f"checkpoint-{best}").is_dir():
            raise IntegrityError(
                "the best checkpoint so far is gone",
                where=str(folder),
                seen=f"checkpoint-{best}",
                remedy="put it back, or train again without --resume",
            )
        return path
    return None
