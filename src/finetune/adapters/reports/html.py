"""The evaluation as one HTML page: no script, no outside resource, readable on a phone and on paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from finetune.adapters.reports.figures import draw_reliability, draw_risk_coverage, draw_set_sizes
from finetune.application import wording
from finetune.application.summary import VERDICTS
from finetune.domain.errors import MissingExtra

LARGEST_MATRIX = 25
"""Decisions beyond which the table of all decisions is left out of the page."""

REASONS = {
    "model_abstained": "the model itself found it undecidable or out of scope",
    "low_confidence": "not confident enough for the promised error",
    "ambiguous_set": "more than one outcome on the shortlist",
    "empty_set": "no outcome plausible enough for the shortlist",
    "expected_cost": "handing over costs less than the best answer is expected to",
    "out_of_scope": "out of scope",
    "too_long": "it did not fit and was shortened",
    "error": "it could not be read",
}


@dataclass(frozen=True)
class HtmlReport:
    """Renders the document of an evaluation.

    Examples
    --------
    >>> HtmlReport()
    HtmlReport()
    """

    def render(self, evaluation: Mapping[str, Any]) -> str:
        """Return a self-contained HTML page.

        Parameters
        ----------
        evaluation
            What :meth:`finetune.application.evaluation.EvaluationReport.document` returns.

        Returns
        -------
        str
            The page: the same text for the same document and the same versions of jinja2 and matplotlib.

        Raises
        ------
        MissingExtra
            If jinja2 or matplotlib is not installed.
        """
        try:
            import matplotlib  # noqa: F401
            from jinja2 import Environment, StrictUndefined
            from markupsafe import Markup
        except ImportError as error:
            raise MissingExtra("report", "the HTML report") from error
        environment = Environment(
            autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        filters: dict[str, Callable[..., str]] = {
            "percent": lambda share: _tight(wording.percent(share)),
            "level": lambda share: _tight(wording.level(share)),
            "tight": _tight,
            "count": wording.count,
            "decimal": wording.decimal,
            "maybe_decimal": _maybe_decimal,
        }
        environment.filters.update(filters)
        template = environment.from_string(
            files("finetune.adapters.reports").joinpath("page.html.j2").read_text(encoding="utf-8")
        )
        unit = evaluation["unit"]
        drawn = {
            "reliability": draw_reliability(evaluation["calibration"], unit),
            "risk_coverage": draw_risk_coverage(
                evaluation["risk_coverage"], evaluation["selective"]["level"], unit
            ),
            "set_sizes": draw_set_sizes(evaluation["coverage"]["sizes"], unit),
        }
        return template.render(
            d=evaluation,
            # Drawn by us from numbers alone; no text of the data is in them.
            figures={name: Markup(svg) for name, svg in drawn.items()},
            facts=_facts(evaluation),
            verdicts=VERDICTS,
            reasons=REASONS,
            largest_matrix=LARGEST_MATRIX,
        )


def _tight(text: str) -> str:
    """Keep a number and its per-cent sign on one line."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def _maybe_decimal(value: float | None) -> str:
    return wording.NOT_ESTIMABLE if value is None else wording.decimal(value)


def _facts(evaluation: Mapping[str, Any]) -> list[tuple[str, str]]:
    model, certificate = evaluation["model"], evaluation["certificate"]
    counts = certificate["counts"]
    rows = (
        f"{wording.count(counts['validation'])} for the calibration map, "
        f"{wording.count(counts['conformal'])} for the shortlists, "
        f"{wording.count(counts['selective'])} for the promised error"
    )
    return [
        *_model_facts(model),
        ("Certificate", f"sha256 {certificate['hash']}, of {certificate['created']}"),
        ("Rows behind the certificate", rows),
        *_batch_facts(certificate["batch_effect"]),
        ("Test rows", f"{wording.count(evaluation['test']['rows'])} (sha256 {evaluation['test']['sha256']})"),
        ("Calibration map", wording.describe_map(evaluation["calibration"]["map"])),
        ("Outcomes", ", ".join(evaluation["outcomes"])),
    ]


def _batch_facts(effect: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if effect is None:
        return []
    most = wording.decimal(effect["total_variation"])
    return [
        ("Effect of the batch", f"at most {most} on the probabilities of {effect['rows']} rows, by rounding")
    ]


def _model_facts(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    if model["kind"] != "run":
        return [("Model", f"not known; its probabilities were calibrated from {model['source']}")]
    return [
        ("Base model", f"{model['base']} (sha256 {model['base_hash']})"),
        ("Adapter", f"{model['adapter']} (sha256 {model['adapter_hash']})"),
        ("Prompt", f"sha256 {model['prompt_hash']}"),
        ("Tokeniser and length limit", f"sha256 {model['encoder_hash']}"),
        ("Precision", model["precision"]),
        ("Label scores", _scores(model["prune"])),
    ]


def _scores(prune: float) -> str:
    if prune == 0.0:
        return "of all outcomes to their ends"
    return f"of all outcomes but those that hold at most {wording.decimal(prune)} of the label mass together"
