"""What an evaluation says, in sentences, each with a verdict on what was promised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

from finetune.application.wording import count, decimal, describe_estimate, level, percent, plural

Verdict = Literal["held", "doubtful", "broken", "info"]

VERDICTS: Mapping[str, str] = {
    "held": "Promise held here",
    "doubtful": "With caution",
    "broken": "Promise not held here",
}
"""The verdicts in words, so that nothing depends on seeing colours."""


class Sentence(TypedDict):
    """One finding; ``verdict`` is ``info`` where nothing was promised."""

    topic: str
    verdict: Verdict
    text: str


def summarise(document: Mapping[str, Any]) -> list[Sentence]:
    """Return the findings of an evaluation document, the most important first."""
    findings = [_answers(document), _sets(document), _calibration(document)]
    optional = (
        _cost(document),
        _accuracy(document),
        _against(document),
        _left_out(document),
        _known(document),
    )
    return findings + [finding for finding in optional if finding]


def _answers(document: Mapping[str, Any]) -> Sentence:
    part, n, unit = document["selective"], document["test"]["rows"], document["unit"]
    answered, limit = part["answered"], part["level"]
    text = f"Of {plural(n, f'test {unit}')} it answered {count(answered)}"
    text += f" and handed {count(n - answered)} to a person." if answered < n else "."
    if not part["feasible"]:
        return {"topic": "answers", "verdict": "info", "text": f"{text} {part['statement']}"}
    if answered == 0:
        return {
            "topic": "answers",
            "verdict": "info",
            "text": f"{text} So nothing is known about its errors.",
        }
    error = part["error"]
    text += f" {describe_estimate(error)} of those answers were wrong; promised: at most {level(limit)}."
    if error["low"] > limit:
        text += f" That is more than chance explains: do not rely on the promise for {unit}s like these."
        return {"topic": "answers", "verdict": "broken", "text": text}
    if error["value"] > limit:
        text += " The share is above the promise, but not by more than chance explains."
        return {"topic": "answers", "verdict": "doubtful", "text": text}
    if error["high"] > limit:
        text += f" With {plural(answered, 'answer')} the interval still reaches above the promise."
    return {"topic": "answers", "verdict": "held", "text": text}


def _sets(document: Mapping[str, Any]) -> Sentence:
    part, unit = document["coverage"], document["unit"]
    observed, band = part["observed"], part["band"]
    if part["covers_everything"]:
        return {"topic": "sets", "verdict": "info", "text": part["statement"]}
    text = (
        f"The shortlist held the right outcome for {describe_estimate(observed)} of the {unit}s; promised: "
        f"{level(part['promised'])} on average over all {unit}s.{_two_kinds(part, unit)} It holds "
        f"{part['mean_size']['value']:.1f} of {len(document['outcomes'])} outcomes on average."
    )
    expected = (
        f" With as many calibration and test rows, {level(band['probability'])} of all draws give between "
        f"{percent(band['low'])} and {percent(band['high'])}"
    )
    if part["inside"]:
        return {"topic": "sets", "verdict": "held", "text": text + expected + "."}
    if observed["value"] < band["low"]:
        text += expected + ": the test rows differ from the calibration rows."
        return {"topic": "sets", "verdict": "broken", "text": text}
    if part["method"] == "topk":
        text += expected + ", or more: `topk` has whole numbers of outcomes alone to choose from."
        return {"topic": "sets", "verdict": "held", "text": text}
    text += expected + ": more is covered than chance explains, so the rows differ or scores are equal."
    return {"topic": "sets", "verdict": "doubtful", "text": text}


def _two_kinds(coverage: Mapping[str, Any], unit: str) -> str:
    answered, handed_over = coverage["answered"]["value"], coverage["handed_over"]["value"]
    if answered is None or handed_over is None:
        return ""
    return (
        f" Among the answered {unit}s it did for {percent(answered)}, among those handed over for "
        f"{percent(handed_over)}."
    )


def _calibration(document: Mapping[str, Any]) -> Sentence:
    ece, unit = document["calibration"]["after"]["ece"], document["unit"]
    text = (
        f"Claimed confidence and observed accuracy lie {_points(ece['value'])} percentage points apart on "
        f"average; a perfectly calibrated model would show {_points(ece['null_low'])} to "
        f"{_points(ece['null_high'])} with as many {unit}s."
    )
    if ece["value"] <= ece["null_high"]:
        text += f" So its confidence can be taken at its word, as far as these {unit}s can tell."
        return {"topic": "calibration", "verdict": "info", "text": text}
    text += " So its confidence is not to be taken at its word; the promises above do not depend on it."
    return {"topic": "calibration", "verdict": "doubtful", "text": text}


def _points(share: float) -> str:
    return f"{100 * share:.1f}"


def _cost(document: Mapping[str, Any]) -> Sentence | None:
    part = document["cost"]
    if part is None:
        return None
    text = (
        f"With your cost table a {document['unit']} costs {decimal(part['rule']['value'])} on average. To "
        f"answer everything would cost {decimal(part['always_answer']['value'])}, to hand over everything "
        f"{decimal(part['always_abstain']['value'])}."
    )
    return {"topic": "cost", "verdict": "info", "text": text}


def _accuracy(document: Mapping[str, Any]) -> Sentence:
    right = describe_estimate(document["accuracy"])
    text = f"If it had to decide every {document['unit']}, {right} would be right."
    if document["base"]:
        text += f" Without the adapter it would be {describe_estimate(document['base']['accuracy'])}."
    return {"topic": "accuracy", "verdict": "info", "text": text}


def _against(document: Mapping[str, Any]) -> Sentence | None:
    other = document.get("against")
    if not other:
        return None
    gap = other["difference"]
    sure = "more" if gap["low"] > 0 else "fewer" if gap["high"] < 0 else None
    right = describe_estimate(other["accuracy"])
    text = f"The run {other['run']} has {right} of the same {document['unit']}s right. "
    if sure is None:
        text += "That one of the two is better cannot be told from these rows"
    else:
        text += f"This one has {_points(abs(gap['value']))} percentage points {sure}"
    text += (
        f" (difference {_points(gap['value'])}, {level(gap['confidence'])} interval {_points(gap['low'])} to "
        f"{_points(gap['high'])} points). The other answered {describe_estimate(other['answered'])}."
    )
    return {"topic": "against", "verdict": "info", "text": text}


def _left_out(document: Mapping[str, Any]) -> Sentence | None:
    most = document["test"]["left_out"]
    if most == 0.0:
        return None
    text = (
        "The least likely outcomes were not scored to their ends, which moved the model's probability of no "
        f"outcome by more than {decimal(most)}."
    )
    return {"topic": "left_out", "verdict": "info", "text": text}


def _known(document: Mapping[str, Any]) -> Sentence | None:
    known = document["known_posterior"]
    if not known:
        return None
    text = (
        f"These are generated data with known probabilities: the best possible accuracy is "
        f"{percent(known['bayes_accuracy']['value'])}, of which it reaches "
        f"{describe_estimate(known['share_reached'])}."
    )
    return {"topic": "known_posterior", "verdict": "info", "text": text}
