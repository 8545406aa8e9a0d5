"""What channel and language do to the surface of a text; never to what it says."""

from __future__ import annotations

import re

from finetune.adapters.embedded.inventory import Draws

_CONTRACTIONS = {
    "I am": "I'm", "I have been": "I've been", "it is": "it's", "It is": "It's", "can not": "can't",
    "do not": "don't", "does not": "doesn't", "will not": "won't", "he is": "he's", "she is": "she's",
    "we are": "we're", "I would": "I'd", "there is": "there's", "There is": "There's", "has not": "hasn't",
    "have not": "haven't",
}  # fmt: skip
_SMS = {
    "please": "pls", "you": "u", "your": "ur", "appointment": "appt", "because": "bc", "tomorrow": "tmrw",
    "thanks": "thx", "and": "&", "prescription": "rx", "doctor": "dr", "with": "w", "okay": "ok",
    "really": "rly", "about": "abt", "message": "msg", "minutes": "min", "weeks": "wks", "medication": "med",
}  # fmt: skip
_CONTRACT = re.compile(r"\b(" + "|".join(sorted(_CONTRACTIONS, key=len, reverse=True)) + r")\b(?! not\b)")
_ABBREVIATE = re.compile(r"\b(" + "|".join(_SMS) + r")\b")
_ARTICLE = re.compile(r"\b(the|a|an) (?=[a-z])", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z]{5,}")
# A slip in one of these could turn a statement round, so they are always spelt right.
_KEPT = frozenset({"cannot", "never", "without", "better", "worse", "nothing", "nobody", "unable", "today"})
TYPO_RATE = {"portal": 0.004, "sms": 0.025, "phone_transcript": 0.0}


def _slip(word: str, draws: Draws) -> str:
    place = 1 + int(draws.uniform() * (len(word) - 3))
    kind = int(draws.uniform() * 3)
    if kind == 0:
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    if kind == 1:
        return word[:place] + word[place + 1 :]
    return word[:place] + word[place] + word[place:]


def _typos(text: str, rate: float, draws: Draws) -> str:
    def maybe(match: re.Match[str]) -> str:
        word = match.group(0)
        if word.lower() in _KEPT or not draws.chance(rate):
            return word
        return _slip(word, draws)

    return _WORD.sub(maybe, text)


def roughen(text: str, channel: str, language: str, draws: Draws) -> str:
    """Give a clean text the surface of its channel and of its writer's language.

    Parameters
    ----------
    text
        Clean text.
    channel
        ``portal``, ``sms`` or ``phone_transcript``.
    language
        ``first`` or ``second``: whether English is the writer's first language.
    draws
        Source of randomness.

    Returns
    -------
    str
        The text with contractions, abbreviations, casing, dropped articles and typing slips.
    """
    if draws.chance(0.8 if language == "first" else 0.3):
        text = _CONTRACT.sub(lambda match: _CONTRACTIONS[match.group(1)], text)
    if language == "second":
        strength = 0.3 + 0.6 * draws.uniform()
        text = _ARTICLE.sub(lambda match: "" if draws.chance(strength) else match.group(0), text)
        if draws.chance(0.5):
            text = re.sub(r"\bfor (two|three|four|five|six|months)\b", r"since \1", text)
    if channel == "sms":
        if draws.chance(0.6):
            text = _ABBREVIATE.sub(lambda match: _SMS[match.group(1)], text)
        if draws.chance(0.55):
            text = text.lower()
        if draws.chance(0.45):
            text = text.replace("'", "")
        if draws.chance(0.5):
            text = text.rstrip(".")
    elif channel == "portal" and draws.chance(0.06):
        text = text.lower()
    rate = TYPO_RATE[channel]
    if language == "second" and channel != "phone_transcript":
        rate += 0.02
    return _typos(text, rate, draws) if rate else text
