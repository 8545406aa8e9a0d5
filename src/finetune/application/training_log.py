"""Which events of a run's log are those of its training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

BEGINNINGS = ("started", "resumed")
"""Events with which a process begins to train: anew, or from a checkpoint."""


def last_training(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what was done again.

    Parameters
    ----------
    events
        Of ``metrics.jsonl``, in their order.

    Returns
    -------
    list
        From the last ``started`` on.  Where a training went on from a step, what its killed process had
        written of later steps is not there, so that but for ``resumed`` the events are those of an
        uninterrupted training.

    Examples
    --------
    >>> steps = [("started", 0), ("training", 1), ("training", 2), ("resumed", 1), ("training", 2)]
    >>> [tuple(event.values()) for event in last_training({"event": e, "step": s} for e, s in steps)]
    [('started', 0), ('training', 1), ('resumed', 1), ('training', 2)]
    """
    kept: list[dict[str, Any]] = []
    for event in events:
        if event["event"] == "started":
            kept = []
        elif event["event"] == "resumed":
            kept = [earlier for earlier in kept if earlier.get("step", 0) <= event["step"]]
        kept.append(dict(event))
    return kept
