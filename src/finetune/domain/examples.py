"""One row of data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from finetune.domain.errors import InvalidInput
from finetune.domain.labels import digest


def content_id(text: str, label: str | None) -> str:
    """Name a row by what it holds, for data that has no ids.

    Returns
    -------
    str
        16 hexadecimal digits, the same on every platform and for every row order.  Two rows with the
        same text and label have the same id.

    Examples
    --------
    >>> content_id("My card is gone", "card_lost") == content_id("My card is gone", "card_lost")
    True
    >>> content_id("a", None) == content_id("a", "None")
    False
    """
    return digest([text, label])[:16]


@dataclass(frozen=True)
class Example:
    """One text and what is known about it.

    Parameters
    ----------
    id
        Names the row in records and reports.
    text
        The text to decide on; not empty.  Its length is limited where tokens are counted, not here.
    label
        A label name, ``abstain``, or None if unknown; not checked against a label set here.
    rationale
        Why the label is right, if someone wrote it down.
    split
        The split that the data prescribes, if it does.
    metadata
        Everything else in the row; group attributes for the audit are here.

    Raises
    ------
    InvalidInput
        The text or the id is empty, or the label is an empty string.

    Examples
    --------
    >>> Example("7", "My card is gone", "card_lost", metadata={"region": "north"}).label
    'card_lost'
    """

    id: str
    text: str
    label: str | None
    rationale: str | None = None
    split: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not self.id:
            raise InvalidInput(
                "the id is empty", seen=self.id, remedy="leave the id column out to get content ids"
            )
        if not self.text.strip():
            raise InvalidInput("the text is empty", where=self.id, seen=self.text, remedy="drop the row")
        if self.label == "":
            raise InvalidInput(
                "the label is empty", where=self.id, seen=self.label, remedy="give a label or null"
            )
