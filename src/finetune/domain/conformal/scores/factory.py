"""From the name of a method and its options to its score."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import FloatArray, as_choice, as_count, as_vector, is_number
from finetune.domain.conformal.scores.base import Score
from finetune.domain.conformal.scores.cumulative import Aps, Raps
from finetune.domain.conformal.scores.lac import Lac
from finetune.domain.conformal.scores.margin import Margin
from finetune.domain.conformal.scores.ranked import Saps, TopK
from finetune.domain.errors import InvalidInput
from finetune.domain.probabilities import checked_rows
from finetune.domain.row_reader import INPUTS

_SCORES: dict[str, type[Score]] = {score.method: score for score in (Lac, Aps, Raps, Saps, Margin, TopK)}
METHODS = tuple(_SCORES)


def make_score(
    method: str, *, inputs: str = "probabilities", options: Mapping[str, object] | None = None
) -> Score:
    """Build a score.

    Parameters
    ----------
    method
        ``"lac"``, ``"aps"``, ``"raps"``, ``"saps"``, ``"margin"`` or ``"topk"``.
    inputs
        ``"probabilities"``, ``"log_probabilities"`` or ``"logits"``.
    options
        Of ``"raps"``: ``penalty`` and ``k_reg``; of ``"saps"``: ``weight``.  Those left out have the values
        that the classes document.

    Returns
    -------
    Score
        For rows on this scale.

    Raises
    ------
    InvalidInput
        If a name is not known, the method does not take an option, or its value is not valid.

    Examples
    --------
    >>> make_score("raps", options={"penalty": 0.1})
    Raps(inputs='probabilities', penalty=0.1, k_reg=1)
    """
    kind = _SCORES[as_choice(method, METHODS, name="method")]
    known = [field.name for field in fields(kind) if field.name != "inputs"]
    given = dict(options or {})
    for name in given:
        if name not in known:
            raise InvalidInput(
                f"the method {method!r} has no option {name!r}",
                seen=given[name],
                remedy="its options are " + ", ".join(known) if known else "it takes none",
            )
    checked = {name: _as_option(name, value) for name, value in given.items()}
    return kind(as_choice(inputs, INPUTS, name="inputs"), **checked)


def conformal_scores(
    rows: npt.ArrayLike,
    method: str = "lac",
    *,
    inputs: str = "probabilities",
    u: npt.ArrayLike | None = None,
    **options: float,
) -> FloatArray:
    """Score every label of every row, for methods of your own.

    Parameters
    ----------
    rows
        Shape (n, K).
    method, inputs, options
        As in :func:`make_score`.
    u
        Shape (n,), in [0, 1): one uniform number a row; None for the deterministic form.

    Returns
    -------
    FloatArray
        Shape (n, K): greater is stranger.

    Raises
    ------
    InvalidInput
        If the input is not as above.

    Examples
    --------
    >>> conformal_scores([[0.5, 0.3, 0.2]], "topk")
    array([[1., 2., 3.]])
    """
    score = make_score(method, inputs=inputs, options=options)
    checked = checked_rows(rows, inputs=inputs, name="rows")
    if u is None:
        return score.matrix(checked)
    draws = as_vector(u, name="u", low=0.0, high=math.nextafter(1.0, 0.0))
    if not score.randomisable or len(draws) != len(checked):
        raise InvalidInput(
            "u goes with a method that has a randomised form, one number for each row",
            seen=(method, len(draws)),
            remedy=f"pass {len(checked)} numbers to such a method, or leave u out",
        )
    return score.matrix(checked, draws)


def _as_option(name: str, value: Any) -> float:
    if name == "k_reg":
        # JSON does not tell 1 from 1.0.
        whole = isinstance(value, (float, np.floating)) and float(value).is_integer()
        return as_count(int(value) if whole else value, name=name, minimum=0)
    if not (is_number(value) and 0.0 <= value < math.inf):
        raise InvalidInput(f"{name} must be a number of at least 0", seen=value, remedy="pass such a number")
    return float(value)
