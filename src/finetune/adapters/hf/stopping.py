"""Early stopping by a metric that not every evaluation has."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainerControl, TrainerState, TrainingArguments

from finetune.application.config import EarlyStopping

_NEVER = 1 << 31


class MetricPatience(EarlyStoppingCallback):
    """Stops as transformers' callback does; an evaluation without the metric is passed over.

    It is for the best checkpoint, too, and so has to be there where nothing is stopped.
    """

    @classmethod
    def configured(cls, settings: EarlyStopping) -> MetricPatience:
        """Return the callback that the configuration asks for."""
        return cls(settings.patience if settings.enabled else _NEVER, settings.min_delta)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **others: Any,
    ) -> None:
        """Count evaluations without improvement."""
        super().on_evaluate(args, state, control, metrics, **others)
        # The Trainer looks the metric up here next, for the best checkpoint and for a scheduler that waits
        # for improvement, and fails where it is missing.
        metrics.setdefault(args.metric_for_best_model, -math.inf if args.greater_is_better else math.inf)


def had_stopped_early(checkpoint: Path, settings: EarlyStopping) -> bool:
    """Whether training had nothing left to do at a checkpoint but to take the best adapter.

    The Trainer restores the patience counter but not the wish to stop, and would go on.
    """
    if not settings.enabled:
        return False
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    callback = state.get("stateful_callbacks", {}).get(MetricPatience.__name__, {})
    counted = callback.get("attributes", {}).get("early_stopping_patience_counter", 0)
    return bool(counted >= settings.patience)
