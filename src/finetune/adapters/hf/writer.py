"""Rationales, written after the decision was made."""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, StoppingCriteria, StoppingCriteriaList

from finetune.adapters.hf.encoder import HfEncoder
from finetune.adapters.hf.scorer import left_pad
from finetune.application.ports import ProgressTask


class _StringClosed(StoppingCriteria):
    """Ends each row once its JSON string is closed."""

    def __init__(self, encoder: HfEncoder, start: int) -> None:
        self._encoder = encoder
        self._start = start
        self._done: torch.Tensor | None = None

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: object) -> torch.Tensor:
        if self._done is None:
            self._done = torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
        for i in torch.nonzero(~self._done).flatten().tolist():
            text = self._encoder.tokenizer.decode(input_ids[i, self._start :])
            self._done[i] = closed_length(text) is not None
        return self._done


def closed_length(text: str) -> int | None:
    r"""Return where the first unescaped quote stands, or ``None``.

    Examples
    --------
    >>> closed_length(r'said \"no\" twice", "more')
    17
    """
    escaped = False
    for i, character in enumerate(text):
        if character == '"' and not escaped:
            return i
        escaped = character == "\\" and not escaped
    return None


def read_string(text: str) -> str:
    r"""Read the inside of a JSON string that may be cut off or badly escaped; never fails.

    Examples
    --------
    >>> read_string(r'a \"b\" c", "x": 1')
    'a "b" c'
    >>> read_string("cut off \\")
    'cut off'
    """
    end = closed_length(text)
    inside = text if end is None else text[:end]
    # A cut inside an escape leaves a part of it; dropping up to six characters always mends that.
    for drop in range(min(6, len(inside)) + 1):
        try:
            read = str(json.loads(f'"{inside[: len(inside) - drop]}"', strict=False))
        except json.JSONDecodeError:
            continue
        # Half a surrogate pair is a string to Python and no text to anyone else.
        return read.encode("utf-8", "replace").decode("utf-8").strip()
    return inside.replace("\\", "").strip()


class CausalRationaleWriter:
    """Lets the model fill in the rationale of an answer whose decision is already written.

    Parameters
    ----------
    model, encoder
        The model and its encoder.
    batch_size
        Prompts per forward.
    max_new_tokens
        Cap on a rationale's length.
    """

    def __init__(
        self, model: PreTrainedModel, encoder: HfEncoder, batch_size: int, max_new_tokens: int
    ) -> None:
        self._model = model
        self._encoder = encoder
        self._batch_size = batch_size
        self._max_new_tokens = max_new_tokens

    def write(
        self, texts: Sequence[str], decisions: Sequence[str], task: ProgressTask | None = None
    ) -> list[str]:
        """Return one rationale per text; greedy, capped, closed by us."""
        # Where prompts nearly fill the window the cap gives way, not the text.
        cap = min(self._max_new_tokens, self._encoder.spare_tokens)
        written: list[str] = []
        self._model.eval()
        for start in range(0, len(texts), self._batch_size):
            part = slice(start, start + self._batch_size)
            rows = [
                self._encoder.rationale_ids(text, decision, cap)
                for text, decision in zip(texts[part], decisions[part], strict=True)
            ]
            answers = generate(self._model, self._encoder, rows, cap, stop_at_quote=True)
            written.extend(read_string(text) for text in answers)
            if task is not None:
                task.advance(len(rows))
        return written


def generate(
    model: PreTrainedModel,
    encoder: HfEncoder,
    rows: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    stop_at_quote: bool,
) -> list[str]:
    """Continue prompts greedily and return the new text of each, without control tokens."""
    batch = left_pad(rows, encoder.pad_id, model.device)
    width = batch["input_ids"].shape[1]
    stopping = StoppingCriteriaList([_StringClosed(encoder, width)] if stop_at_quote else [])
    ends = {encoder.end_id, *_ids(model.generation_config.eos_token_id)}
    with torch.inference_mode():
        ids = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=max_new_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            eos_token_id=sorted(ends),
            pad_token_id=encoder.pad_id,
            stopping_criteria=stopping,
        )
    answers = []
    for row in ids[:, width:].tolist():
        length = next((n for n, token in enumerate(row) if token in ends), len(row))
        answers.append(encoder.tokenizer.decode(row[:length], skip_special_tokens=True))
    return answers


def _ids(value: int | list[int] | None) -> list[int]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
