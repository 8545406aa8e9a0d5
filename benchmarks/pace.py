"""Turns by optimiser steps, for trainings that are measured beside one another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.llm_measuring import Turn
from transformers import TrainerCallback


class Pace(TrainerCallback):
    """Takes a turn for each optimiser step, from the reading of its rows on."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._turn.say()
        self._turn.wait()

    def on_log(self, *_: Any, logs: Mapping[str, Any] | None = None, **__: Any) -> None:
        # Each step ends with the log of its loss.
        if logs is not None and "loss" in logs:
            self._turn.tell(loss=logs["loss"])
            self._turn.wait()
