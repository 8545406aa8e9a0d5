"""The input of models that read a text as it stands, without a prompt and without tokens of their own."""

from __future__ import annotations

from collections.abc import Sequence

from finetune.application.ports import EncodedExample
from finetune.domain.examples import Example
from finetune.domain.prompts import shorten_text


class CharacterEncoder:
    """Shows the characters of a text, shortened as the model reads it; the loss counts none, but the label.

    Parameters
    ----------
    max_chars
        Characters that are read; the middle of longer texts is left out.
    """

    def __init__(self, max_chars: int) -> None:
        self._max_chars = max_chars

    def encode(self, example: Example) -> EncodedExample:
        """Return the code points of the text."""
        text, removed = shorten_text(example.text, self._max_chars)
        return EncodedExample(tuple(map(ord, text)), len(text), removed)

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Return the characters."""
        return [chr(code) for code in ids]
