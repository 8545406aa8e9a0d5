"""What is decided about one text, why it was not decided, and the record of it."""

from __future__ import annotations

import json
import math
import re
from typing import Annotated, Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, model_validator

from finetune.domain.checks import as_array, as_count, as_flags, as_labels
from finetune.domain.errors import InvalidInput
from finetune.domain.labels import ABSTAIN
from finetune.domain.probabilities import as_rows

Reason = Literal[
    "none",
    "model_abstained",
    "low_confidence",
    "ambiguous_set",
    "empty_set",
    "expected_cost",
    "out_of_scope",
    "too_long",
    "error",
]
REASONS: tuple[Reason, ...] = get_args(Reason)
"""Why a prediction is an abstention; ``none`` if it is not one."""
UNSCORED: frozenset[Reason] = frozenset({"too_long", "error"})
"""Reasons with which a record may have no probabilities, because nothing was scored."""

_Probability = Annotated[float, Field(ge=0.0, le=1.0)]
_SUM_TOLERANCE = 1e-6
# Characters that are legal in a JSON string and still end a line for some readers, or are not UTF-8.
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Guarantee(_Strict):
    """What is guaranteed about a decision, and which calibration backs it.

    Parameters
    ----------
    kind
        The method, for instance ``split_conformal``.
    alpha
        The error level, in (0, 1).
    delta
        The probability that the guarantee fails, in (0, 1); None where it holds on average.
    n_calibration
        The number of calibration rows.
    statement
        The guarantee in words.
    certificate
        The hash of the calibration file.
    """

    kind: str
    alpha: Annotated[float, Field(gt=0.0, lt=1.0)]
    delta: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    n_calibration: Annotated[int, Field(ge=0)]
    statement: str
    certificate: str | None = None


class ModelReference(_Strict):
    """Which model decided: base model, adapter, and the hash of the configuration."""

    base: str
    adapter: str | None = None
    config_hash: str | None = None


class DecisionRecord(_Strict):
    """One prediction: a line of JSONL, a row of Parquet, the body of a response.

    Parameters
    ----------
    id
        The id of the example.
    decision
        A label name, or ``abstain``.
    abstain
        True exactly if the decision is ``abstain``.
    abstain_reason
        ``none`` exactly if the decision is a label.
    confidence
        In [0, 1]; 0 where nothing was scored.
    probabilities
        Outcome to probability, summing to 1; empty only where nothing was scored (`UNSCORED`).
    label_mass
        Evidence for all outcomes together: of a language model the logarithm of the probability that its
        answer is any of them, in nats, at most 0; of an encoder the log-sum-exp of its logits.
    left_out
        Largest total variation distance between `probabilities`, before the calibration map, and those of
        outcomes that are all scored to their ends, in [0, 1]; None where that is not known.
    prediction_set
        The conformal set, a subset of the outcomes; None without one.
    expected_cost
        The expected cost of the decision; None without costs.
    rationale
        Written after the decision and of no influence on it.
    guarantee, model, version
        Where the decision comes from.

    Raises
    ------
    pydantic.ValidationError
        The fields contradict one another, or a number is not finite.

    Examples
    --------
    >>> record = DecisionRecord(
    ...     id="7", decision="card", abstain=False, abstain_reason="none", confidence=0.75,
    ...     probabilities={"card": 0.75, "lost": 0.25}, model=ModelReference(base="glm"))
    >>> DecisionRecord.from_json(record.to_json()) == record
    True
    """

    id: str
    decision: str
    abstain: StrictBool
    abstain_reason: Reason
    confidence: _Probability
    probabilities: dict[str, _Probability]
    label_mass: float | None = None
    left_out: _Probability | None = None
    prediction_set: tuple[str, ...] | None = None
    expected_cost: float | None = None
    rationale: str | None = None
    guarantee: Guarantee | None = None
    model: ModelReference
    version: Literal[1] = 1

    @model_validator(mode="after")
    def _consistent(self) -> DecisionRecord:
        if problem := self._contradiction():
            raise ValueError(f"record {self.id!r}: {problem}")
        return self

    def _contradiction(self) -> str | None:
        if self.abstain != (self.decision == ABSTAIN):
            return f"abstain is {self.abstain} and the decision is {self.decision!r}"
        if self.abstain != (self.abstain_reason != "none"):
            return f"abstain is {self.abstain} and the reason is {self.abstain_reason!r}"
        members = self.prediction_set or ()
        if len(set(members)) != len(members):
            return f"the prediction set names an outcome twice: {members}"
        if not self.probabilities:
            if self.abstain_reason not in UNSCORED:
                return f"no probabilities although the reason is {self.abstain_reason!r}"
            return None if self.confidence == 0.0 else "a confidence without probabilities"
        total = math.fsum(self.probabilities.values())
        if abs(total - 1.0) > _SUM_TOLERANCE:
            return f"the probabilities sum to {total!r}, not 1"
        unknown = set(members) - self.probabilities.keys()
        if unknown:
            return f"the prediction set holds {sorted(unknown)}, which have no probability"
        if not self.abstain and self.decision not in self.probabilities:
            return f"the decision {self.decision!r} has no probability"
        return None

    def to_json(self) -> str:
        """Return the record as one line of JSON, encodable as UTF-8, without line breaks of any kind."""
        line = json.dumps(self.model_dump(), ensure_ascii=False, allow_nan=False)
        return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", line)

    @classmethod
    def from_json(cls, line: str, where: str | None = None) -> DecisionRecord:
        """Read a record; `where` is the file and line for the error message.

        Raises
        ------
        InvalidInput
            The line is no valid record.
        """
        try:
            return cls.model_validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"])
            raise InvalidInput(
                f"not a decision record: {key + ': ' if key else ''}{first['msg']}",
                where=where,
                seen=line,
                remedy="write the records with this version of the package",
            ) from error


def abstention_reasons(
    *,
    probabilities: npt.ArrayLike,
    prediction_sets: npt.ArrayLike | None,
    actions: npt.ArrayLike,
    confident: npt.ArrayLike,
    abstain_index: int | None,
    abstain_on_ambiguous_set: bool = False,
) -> list[Reason]:
    """Say for each row whether it is an abstention, and for which reason.

    The first reason that applies is given:

    1. ``model_abstained``: the prediction set holds abstention, or abstention is the action and no outcome
       is more probable;
    2. ``expected_cost``: the action is abstention although another outcome is more probable;
    3. ``empty_set``: no outcome is plausible at the level of the prediction sets;
    4. ``ambiguous_set``: several are, and that was asked to count;
    5. ``low_confidence``: the row is below the threshold of the risk control;
    6. ``none``: the action is the decision.

    Parameters
    ----------
    probabilities
        Shape (n, K), n >= 1, K >= 2, rows summing to 1.
    prediction_sets
        Boolean, shape (n, K); None without conformal sets.
    actions
        Integer, shape (n,): the outcome of least expected cost.  Where abstention is no outcome, the value
        K stands for it.
    confident
        Boolean, shape (n,).
    abstain_index
        The column of abstention; None where it is no outcome.
    abstain_on_ambiguous_set
        Whether a set of more than one outcome is an abstention.

    Returns
    -------
    list[Reason]
        One reason a row.

    Raises
    ------
    InvalidInput
        Shapes or types do not fit, a probability is not one, or an action is out of range.

    Examples
    --------
    >>> abstention_reasons(probabilities=[[0.9, 0.1], [0.6, 0.4], [0.6, 0.4]], prediction_sets=None,
    ...                    actions=[0, 2, 0], confident=[True, True, False], abstain_index=None)
    ['none', 'expected_cost', 'low_confidence']
    """
    p = as_rows(probabilities)
    n, K = p.shape
    if abstain_index is not None and as_count(abstain_index, name="abstain_index", minimum=0) >= K:
        raise InvalidInput("abstain_index is no column", seen=abstain_index, remedy=f"use 0 to {K - 1}")
    n_actions = K + 1 if abstain_index is None else K
    action = as_labels(actions, n_rows=n, n_labels=n_actions, name="actions")
    certain = as_flags(confident, n_rows=n, name="confident")
    sets = None if prediction_sets is None else as_array(prediction_sets, "prediction_sets")
    if sets is not None and (sets.dtype.kind != "b" or sets.shape != p.shape):
        raise InvalidInput(
            "prediction_sets must be bool and of the shape of the probabilities",
            seen=(sets.dtype.name, sets.shape),
            remedy="pass what ConformalPredictor.predict returned",
        )
    if sets is None and abstain_on_ambiguous_set:
        raise InvalidInput("no set can be ambiguous without sets", remedy="pass prediction_sets")

    none = np.zeros(n, dtype=bool)
    size = np.ones(n, dtype=int) if sets is None else sets.sum(axis=1)
    if abstain_index is None:
        by_model, abstains = none, action == K
    else:
        abstains = action == abstain_index
        in_set = none if sets is None else sets[:, abstain_index]
        by_model = in_set | (abstains & (p[:, abstain_index] >= p.max(axis=1)))
    ranked: dict[Reason, npt.NDArray[np.bool_]] = {
        "model_abstained": by_model,
        "expected_cost": abstains,
        "empty_set": size == 0,
        "ambiguous_set": (size > 1) & abstain_on_ambiguous_set,
        "low_confidence": ~certain,
        "none": ~none,
    }
    reasons = tuple(ranked)
    return [reasons[position] for position in np.stack(list(ranked.values())).argmax(axis=0)]
