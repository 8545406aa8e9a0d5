"""Which measures of the validation rows can choose the best checkpoint, and when they are not taken."""

from __future__ import annotations

from typing import Literal

Metric = Literal[
    "log_loss",
    "brier",
    "ece",
    "mce",
    "accuracy",
    "selective_risk",
    "mean_set_size",
    "json_validity",
]
"""Coverage and the abstention rate are not among them: neither more nor less of them is better."""

_HIGHER = ("accuracy", "json_validity")


def greater_is_better(metric: Metric) -> bool:
    """Return whether more of it is better.

    Examples
    --------
    >>> greater_is_better("accuracy"), greater_is_better("ece")
    (True, False)
    """
    return metric in _HIGHER


def why_not_measured(metric: Metric, backend: str, json_samples: int) -> str | None:
    """Return why no evaluation will have the metric; None where they will.

    Parameters
    ----------
    metric
        Its name.
    backend
        As the configuration names it.
    json_samples
        Answers that are generated freely at each evaluation.

    Examples
    --------
    >>> why_not_measured("json_validity", "causal", 0)
    'json_validity is not measured: training.json_samples is 0'
    """
    if metric != "json_validity":
        return None
    if backend in ("encoder", "baseline", "remote"):
        return f"json_validity is not measured: {backend} writes no answers in training"
    return None if json_samples else "json_validity is not measured: training.json_samples is 0"
