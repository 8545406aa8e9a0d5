"""Rationales, written after the decision was made."""

from __future__ import annotations

from collections.abc import Sequence

from finetune.adapters.hf.closing import read_string
from finetune.adapters.hf.encoder import HfEncoder
from finetune.adapters.hf.engine import Engine
from finetune.application.ports import ProgressTask


class CausalRationaleWriter:
    """Lets the model fill in the rationale of an answer whose decision is already written.

    Parameters
    ----------
    engine
        That of the scorer, so that both use the same instructions in memory.
    encoder
        The encoder of its model.
    max_new_tokens
        Cap on a rationale's length.
    """

    def __init__(self, engine: Engine, encoder: HfEncoder, max_new_tokens: int) -> None:
        self._engine = engine
        self._encoder = encoder
        self._max_new_tokens = max_new_tokens

    def write(
        self, texts: Sequence[str], decisions: Sequence[str], task: ProgressTask | None = None
    ) -> list[str]:
        """Return one rationale per text; greedy, capped, closed by us."""
        # Where prompts nearly fill the window the cap gives way, not the text.
        cap = min(self._max_new_tokens, self._encoder.spare_tokens)
        prompts = [
            self._encoder.rationale_ids(text, decision, cap)
            for text, decision in zip(texts, decisions, strict=True)
        ]
        written = self._engine.write(prompts, cap, stop_at_quote=True, task=task)
        return [read_string(text) for text in written]
