"""The instruction format: what the model is told, and the JSON that it answers."""

from __future__ import annotations

import json
from dataclasses import dataclass

from finetune.domain.errors import InvalidInput
from finetune.domain.labels import ABSTAIN, LabelSet, digest

DECISION_HEAD = '{"decision": "'
"""How every answer starts; label scores are read off right after it."""

_SLOT = "{text}"


@dataclass(frozen=True)
class PromptFormat:
    """Instructions for one task.

    Parameters
    ----------
    system
        The system message; none is sent if it is empty.
    template
        The user message, with ``{text}`` exactly once.  No other brace has a meaning in it.

    Raises
    ------
    InvalidInput
        The template does not hold ``{text}`` exactly once.

    Examples
    --------
    >>> PromptFormat("Sort the mail.", "Mail: {text}").messages("{hello}")[1]
    {'role': 'user', 'content': 'Mail: {hello}'}
    """

    system: str
    template: str

    def __post_init__(self) -> None:
        if self.template.count(_SLOT) != 1:
            raise InvalidInput(
                f"the template must hold {_SLOT} exactly once",
                where="template",
                seen=self.template,
                remedy=f"put {_SLOT} where the text to decide on belongs",
            )

    def messages(self, text: str) -> list[dict[str, str]]:
        """Return the chat messages for one text, in the form that chat templates take."""
        # str.format would trip over braces in the template, and this replaces nothing inside the text.
        user = {"role": "user", "content": self.template.replace(_SLOT, text)}
        return [{"role": "system", "content": self.system}, user] if self.system else [user]

    def fingerprint(self) -> str:
        """Return a SHA-256 that changes with the instructions and with the answer format."""
        return digest([self.system, self.template, answer_text("d", "r")])


def default_prompt(label_set: LabelSet, list_labels: bool = True, descriptions: bool = True) -> PromptFormat:
    """Write the instructions for a label set.

    Parameters
    ----------
    label_set
        The task, its labels and whether abstention is an outcome.
    list_labels
        Name every label.  A tuned model knows hundreds of labels without a list, at a fraction of the tokens.
    descriptions
        Say what each listed label means.

    Returns
    -------
    PromptFormat
        Everything constant is in the system message, so that all prompts of a task share it as a prefix.

    Examples
    --------
    >>> from finetune.domain.labels import Label
    >>> print(default_prompt(LabelSet("Cards", (Label("card", "Any question"), Label("lost")))).system)
    Cards
    Labels:
    - card: Any question
    - lost
    Answer: {"decision": "<label>", "abstain": false, "rationale": "<why>"}
    """
    abstention = label_set.abstention
    lines = [_one_line(label_set.task)] if label_set.task.strip() else []
    if list_labels:
        lines.append("Labels:")
        lines += [_entry(label.name, label.description if descriptions else "") for label in label_set.labels]
    if abstention is not None:
        lines.append(_entry(ABSTAIN, (descriptions and abstention.description) or "undecidable"))
    flag = "false" if abstention is None else "true|false"
    lines.append(f'Answer: {DECISION_HEAD}<label>", "abstain": {flag}, "rationale": "<why>"}}')
    return PromptFormat("\n".join(lines), _SLOT)


def answer_text(decision: str, rationale: str) -> str:
    r"""Write the answer for a decision.

    Parameters
    ----------
    decision
        A label name, or ``abstain``.
    rationale
        Free text; may be empty.

    Returns
    -------
    str
        A JSON object; characters outside ASCII stay as they are.

    Examples
    --------
    >>> print(answer_text("card", 'says "card"'))
    {"decision": "card", "abstain": false, "rationale": "says \"card\""}
    """
    return f'{rationale_head(decision)}{_escaped(rationale)}"}}'


def rationale_head(decision: str) -> str:
    """Return the answer up to and including the opening quote of the rationale.

    Examples
    --------
    >>> rationale_head("abstain")
    '{"decision": "abstain", "abstain": true, "rationale": "'
    """
    flag = "true" if decision == ABSTAIN else "false"
    return f'{DECISION_HEAD}{_escaped(decision)}", "abstain": {flag}, "rationale": "'


def shorten_text(
    text: str, keep_chars: int, marker: str = " […{removed} characters left out…] "
) -> tuple[str, int]:
    """Cut the middle out of a text that is too long.

    Parameters
    ----------
    text
        The text.
    keep_chars
        How many of its characters to keep: three quarters at the beginning, a quarter at the end.
    marker
        What stands for the rest; ``{removed}`` becomes the number of characters left out.  Where the
        marker is longer than what it stands for, a single ``…`` is used instead.

    Returns
    -------
    tuple[str, int]
        The text, never longer than it was, and how many characters were left out.

    Raises
    ------
    InvalidInput
        `keep_chars` is negative.

    Notes
    -----
    The number of tokens is not guaranteed to fall with every step of `keep_chars`.

    Examples
    --------
    >>> shorten_text("a" * 60 + "b" * 40, 8)
    ('aaaaaa […92 characters left out…] bb', 92)
    """
    if keep_chars < 0:
        raise InvalidInput(
            "the number of characters to keep is negative", seen=keep_chars, remedy="use 0 or more"
        )
    removed = len(text) - keep_chars
    if removed <= 0:
        return text, 0
    gap = marker.replace("{removed}", f"{removed:,}")
    tail = keep_chars // 4
    return text[: keep_chars - tail] + (gap if len(gap) <= removed else "…") + text[
        len(text) - tail :
    ], removed


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _entry(name: str, description: str) -> str:
    return f"- {name}: {_one_line(description)}" if description.strip() else f"- {name}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
