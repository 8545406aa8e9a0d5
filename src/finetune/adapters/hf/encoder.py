"""Texts to token ids, the same way in training and in serving.

Whole strings are tokenised, prompt and answer together; where the prompt ends is found by tokenising it
alone and asserting that its ids are a prefix.  Only the text field is ever shortened.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from itertools import pairwise

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from finetune.adapters.hf.loading import ResolveModel, load_tokenizer
from finetune.application.config import ProjectConfig
from finetune.application.ports import EncodedExample
from finetune.domain.errors import InvalidInput
from finetune.domain.examples import Example
from finetune.domain.labels import LabelSet
from finetune.domain.prompts import DECISION_HEAD, PromptFormat, answer_text, rationale_head, shorten_text

# Room kept free behind a prompt that is only scored, so that training and scoring shorten alike.
_ANSWER_ROOM = 16
# Any fixed day; this one is the default of Llama's templates.
_DATE = "26 Jul 2024"
_TODAY = re.compile(r"strftime_now\([^)]*\)")
_SENTINEL = "ANSWER"


class HfEncoder:
    """Encodes prompts, answers and label paths with one tokeniser.

    Parameters
    ----------
    tokenizer
        The model's tokeniser; its chat template is used where it has one.
    labels, prompt
        The label set and the instruction format.
    max_length
        Tokens that prompt and answer may take together.

    Raises
    ------
    InvalidInput
        The fixed part of the prompt does not fit, prompt and answer share a token, or two labels
        have the same tokens.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, labels: LabelSet, prompt: PromptFormat, max_length: int
    ) -> None:
        self.tokenizer = tokenizer
        self._labels = labels
        self.outcomes = labels.outcomes
        self.max_length = max_length
        self._prompt = prompt
        special = sorted(set(tokenizer.all_special_tokens) | _added_tokens(tokenizer), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, special))) if special else None
        # Some templates write today's date; a prompt must not change over night.
        template = tokenizer.chat_template
        self._template = _TODAY.sub(f"'{_DATE}'", template) if isinstance(template, str) else None
        self._merge_system = False
        self._bridge = ""
        self._merge_system = not self._template_takes_system()
        self._bridge, self.end_id = self._around_the_answer()
        self.pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.end_id
        self.label_paths = self._label_paths()
        self._room = max(len(path) for path in self.label_paths) + _ANSWER_ROOM
        fixed = len(self._ids(self.prompt_text("") + DECISION_HEAD)) + self._room
        # What may be written behind a text without pushing all of it out.
        self.spare_tokens = (max_length - fixed) // 2 + self._room
        if fixed > max_length:
            raise InvalidInput(
                f"instructions and answer take {fixed} tokens, so no text fits",
                where="training.max_length",
                seen=max_length,
                remedy="raise it, or shorten the instructions (prompt.descriptions: false, "
                "prompt.list_labels: false)",
            )

    def prompt_text(self, text: str) -> str:
        """Return the whole prompt for a text, up to where the answer begins."""
        return self._render(self._messages(self._defused(text)), generation=True) + self._bridge

    def score_ids(self, text: str) -> tuple[list[int], int]:
        """Return the ids of prompt and decision head for a text, and how many characters were left out."""
        return self._fit(text, lambda cut: self._ids(self.prompt_text(cut) + DECISION_HEAD), self._room)

    def prompt_ids(self, text: str, room: int) -> list[int]:
        """Return the ids of the prompt alone, leaving ``room`` tokens for an answer."""
        return self._fit(text, lambda cut: self._ids(self.prompt_text(cut)), room)[0]

    def rationale_ids(self, text: str, decision: str, room: int) -> list[int]:
        """Return the ids up to the opening quote of the rationale, leaving ``room`` tokens for it."""
        head = rationale_head(decision)
        return self._fit(text, lambda cut: self._ids(self.prompt_text(cut) + head), room)[0]

    def encode(self, example: Example) -> EncodedExample:
        """Encode a labelled example; the loss counts the answer and the end-of-turn token only.

        Raises
        ------
        InvalidInput
            The example has no label, or the answer alone does not fit.
        """
        if example.label is None:
            raise InvalidInput("an example without a label cannot be trained on", where=example.id)
        answer = answer_text(example.label, example.rationale or "")
        ids, removed = self._fit(
            example.text, lambda cut: [*self._ids(self.prompt_text(cut) + answer), self.end_id], 0
        )
        cut = example.text if removed == 0 else shorten_text(example.text, len(example.text) - removed)[0]
        start = len(self._ids(self.prompt_text(cut)))
        if ids[:start] != self._ids(self.prompt_text(cut)):
            raise InvalidInput(
                "prompt and answer share a token, so the loss cannot be limited to the answer",
                where=example.id,
                seen=self.tokens(ids[start - 1 : start + 2]),
                remedy="use a chat template whose generation prompt ends with a special token or a new line",
            )
        label = self._labels.index(example.label)
        return EncodedExample(tuple(ids), start, removed, start + self._head_length, label)

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Return the readable text of each token."""
        return [self.tokenizer.decode([i]) for i in ids]

    def fingerprint(self) -> str:
        """Return a SHA-256 (hex) of what decides how a prompt becomes tokens."""
        tokenizer = self.tokenizer
        core = getattr(tokenizer, "backend_tokenizer", None)
        parts = [
            core.to_str() if core is not None else sorted(tokenizer.get_vocab().items()),
            self.prompt_text("probe"),
            self.max_length,
            self.label_paths,
            self.end_id,
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _messages(self, text: str) -> list[dict[str, str]]:
        messages = self._prompt.messages(text)
        if self._merge_system and len(messages) > 1:
            joined = f"{messages[0]['content']}\n\n{messages[1]['content']}"
            return [{"role": "user", "content": joined}]
        return messages

    def _render(self, messages: list[dict[str, str]], generation: bool) -> str:
        if self.tokenizer.chat_template is None:
            body = "\n\n".join(message["content"] for message in messages)
            return f"{self.tokenizer.bos_token or ''}{body}\n"
        # enable_thinking is read by the templates of GLM-4.5 and Qwen3, and ignored by all others.
        return str(
            self.tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=generation,
                enable_thinking=False,
                date_string=_DATE,
                chat_template=self._template,
            )
        )

    def _template_takes_system(self) -> bool:
        try:
            text = self.prompt_text("probe")
        except TemplateError:
            return False
        return self._prompt.messages("probe")[0]["content"].strip() in text

    def _around_the_answer(self) -> tuple[str, int]:
        """Return what the chat template puts between prompt and answer, and the token after the answer.

        GLM's template puts nothing behind an answer; the model ends its turn by opening the next one.
        """
        tokenizer = self.tokenizer
        bridge = ""
        if tokenizer.chat_template is not None:
            prompt = self.prompt_text("probe")
            turn = {"role": "assistant", "content": _SENTINEL}
            whole = self._render([*self._messages("probe"), turn], generation=False)
            before, found, tail = whole.partition(_SENTINEL)
            if found and before.startswith(prompt) and self._is_prefix(before, DECISION_HEAD):
                bridge = before[len(prompt) :]
            ids = self._ids(tail.strip()) if found else []
            if ids and (ids[0] in tokenizer.all_special_ids or ids[0] in tokenizer.added_tokens_decoder):
                return bridge, int(ids[0])
            user = tokenizer.convert_tokens_to_ids("<|user|>")
            if isinstance(user, int) and user != tokenizer.unk_token_id:
                return bridge, user
        if tokenizer.eos_token_id is None:
            raise InvalidInput(
                "the tokeniser names no end-of-text token, so the model would never learn to stop",
                where="tokenizer_id",
                seen=tokenizer.name_or_path,
                remedy="set eos_token in tokenizer_config.json",
            )
        return bridge, int(tokenizer.eos_token_id)

    def _is_prefix(self, text: str, more: str) -> bool:
        ids = self._ids(text)
        return self._ids(text + more)[: len(ids)] == ids

    def _label_paths(self) -> list[list[int]]:
        """Return each outcome's token ids after the decision head, up to the closing quote."""
        head = self.prompt_text("probe") + DECISION_HEAD
        head_ids = self._ids(head)
        self._head_length = len(head_ids) - len(self._ids(self.prompt_text("probe")))
        paths = []
        for outcome in self.outcomes:
            answer = answer_text(outcome, "")
            joint = self._ids(self.prompt_text("probe") + answer)
            if joint[: len(head_ids)] != head_ids:
                raise InvalidInput(
                    "the label's first token begins inside the decision head, so it cannot be scored",
                    where="labels.yaml",
                    seen=outcome,
                    remedy="choose a label that starts with a letter",
                )
            closed = rationale_head(outcome)[len(DECISION_HEAD) :].partition('", "abstain": ')[0] + '"'
            rest = joint[len(head_ids) :]
            lengths = range(1, len(rest) + 1)
            length = next((n for n in lengths if self.tokenizer.decode(rest[:n]).startswith(closed)), None)
            if length is None:
                raise InvalidInput(
                    "the tokeniser does not give this label back as it was written",
                    where="labels.yaml",
                    seen=outcome,
                    remedy="choose plain letters for the label's name",
                )
            paths.append(rest[:length])
        # In sorted order a prefix stands right before the paths that continue it.
        ordered = sorted(zip(paths, self.outcomes, strict=True))
        for (path, first), (longer, second) in pairwise(ordered):
            if longer[: len(path)] == path:
                raise InvalidInput(
                    "the tokens of one label begin those of another, so they cannot be told apart",
                    where="labels.yaml",
                    seen=[first, second],
                    remedy="rename one of them",
                )
        return paths

    def _fit(self, text: str, encode: Callable[[str], list[int]], room: int) -> tuple[list[int], int]:
        """Encode, keeping as much of the text as fits beside ``room`` tokens."""
        budget = self.max_length - room
        # A token covers at least one character of almost any text; far longer texts are cut before the
        # tokeniser sees them, so that a text of a megabyte costs no more than one that fits.
        upper = min(len(text), 64 * self.max_length)
        ids = encode(shorten_text(text, upper)[0])
        if len(ids) <= budget:
            return ids, len(text) - upper
        low, high, best = 0, upper, None
        while low <= high:
            keep = (low + high) // 2
            ids = encode(shorten_text(text, keep)[0])
            if len(ids) <= budget:
                best, low = (ids, len(text) - keep), keep + 1
            else:
                high = keep - 1
        if best is None:
            raise InvalidInput(
                f"instructions and answer take {len(encode(''))} tokens, so no text fits",
                where="training.max_length",
                seen=self.max_length,
                remedy="raise it, or shorten instructions or rationale",
            )
        return best

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _defused(self, text: str) -> str:
        """Break up control tokens that a text spells out, so that a writer cannot end the turn."""
        if self._special is None:
            return text
        return self._special.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)


def _added_tokens(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    # Not only those flagged special: <think> and the tool tokens of some models are not, and steer as much.
    return {token.content for token in tokenizer.added_tokens_decoder.values() if token.content.strip()}


class EncoderOpener:
    """Opens the tokeniser of a configuration, without any weights."""

    def __init__(self, resolve: ResolveModel) -> None:
        self._resolve = resolve

    def __call__(self, config: ProjectConfig, labels: LabelSet, prompt: PromptFormat) -> HfEncoder:
        """Return the encoder that training and scoring use."""
        tokenizer = load_tokenizer(config, self._resolve)
        return HfEncoder(tokenizer, labels, prompt, config.training.max_length)
