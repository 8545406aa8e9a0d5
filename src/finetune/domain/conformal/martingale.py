"""Exchangeability martingales: an alarm for drift that is false with a stated probability, ever."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from finetune.domain.checks import (
    Count,
    FloatArray,
    as_choice,
    as_level,
    as_vector,
    read_record,
    reject_first,
)
from finetune.domain.conformal.betting import power_mixture_log_wealth, simple_jumper_path
from finetune.domain.errors import InvalidInput

BETTINGS = ("simple_jumper", "power_mixture")


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    kind: Literal["exchangeability_martingale"]
    version: Literal[1]
    betting: str
    delta: float
    jump: float
    n: Count
    log_wealth: float
    max_log_wealth: float
    alarm_at: int | None
    log_sum: float
    weights: Annotated[list[float], Field(min_length=3, max_length=3)]


class ExchangeabilityMartingale:
    """Bets against the p-values of a stream being uniform; the wealth is the evidence for drift.

    The wealth starts at 1.  While the stream is exchangeable, the probability that it *ever* reaches
    1 / delta is at most delta, however often one looks and whenever one stops (Ville's inequality).

    Parameters
    ----------
    betting
        ``"simple_jumper"``: bets 1 + e (p - 1/2), e moving among -1, 0 and 1; finds p-values that become
        too small or too large, and drift that begins late.  ``"power_mixture"``: e p^(e - 1), averaged over
        all e in (0, 1); finds p-values that are too small.
    delta
        Probability of a false alarm, in (0, 1).
    jump
        Rate at which the jumper moves, in (0, 1); 0.01 in the paper.

    Raises
    ------
    InvalidInput
        If an option is not as above.

    Notes
    -----
    Valid for p-values that are independent and uniform while nothing drifts: those of
    :class:`~finetune.domain.conformal.p_values.OnlinePValues`.  The power mixture falls in p, so it also
    holds for p-values that, given the earlier ones, are uniform or greater.  P-values against a fixed
    calibration set are neither: with them false alarms can be far more frequent than delta.

    Not promised: that a drift is found.  One that leaves the law of the scores as it is cannot be; one
    that was there from the first score on is no drift.  An alarm says that the stream is not exchangeable,
    not what changed.  Choose the betting before looking at the stream.

    References
    ----------
    Vovk, Nouretdinov, Gammerman (2003). Testing exchangeability on-line. ICML, sec. 4.
    Vovk, Petej, Nouretdinov, Ahlberg, Carlsson, Gammerman (2021). Retrain or not retrain: conformal test
    martingales for change-point detection. COPA, algorithm 1.
    Ville, J. (1939). Étude critique de la notion de collectif.

    Examples
    --------
    >>> martingale = ExchangeabilityMartingale(delta=0.01)
    >>> martingale.alarm
    False
    >>> path = martingale.update_many([0.01] * 30)
    >>> martingale.alarm, martingale.alarm_at, bool(martingale.wealth > 100)
    (True, 15, True)
    """

    def __init__(self, betting: str = "simple_jumper", *, delta: float = 0.01, jump: float = 0.01) -> None:
        self._betting = as_choice(betting, BETTINGS, name="betting")
        self._delta = as_level(delta, name="delta")
        self._jump = as_level(jump, name="jump")
        self._n = 0
        self._log_wealth = 0.0
        self._max_log_wealth = 0.0
        self._alarm_at: int | None = None
        self._log_sum = 0.0
        self._weights = (1 / 3, 1 / 3, 1 / 3)

    def update(self, p: float) -> float:
        """Bet on the next p-value, in (0, 1], and return the log of the wealth."""
        return float(self.update_many([p])[0])

    def update_many(self, p_values: npt.ArrayLike) -> FloatArray:
        """Bet on the next p-values, in their order.

        Parameters
        ----------
        p_values
            Shape (m,), in (0, 1].  0 is refused: smoothed p-values are never 0.

        Returns
        -------
        FloatArray
            Shape (m,): the log of the wealth after each.

        Raises
        ------
        InvalidInput
            If a p-value is not in (0, 1]; no bet is made then.
        """
        p = as_vector(p_values, name="p_values", low=0.0, high=1.0)
        reject_first(
            p == 0.0,
            p,
            name="p_values",
            what="the p-value is 0",
            remedy="draw the u of smoothed p-values from (0, 1], as 1 - rng.random()",
        )
        if self.betting == "simple_jumper":
            path, self._weights = simple_jumper_path(p, self._log_wealth, self._weights, self.jump)
        else:
            # One running sum over all calls, so that a stream gives the same however it is cut.
            sums = np.cumsum(np.concatenate([[self._log_sum], -np.log(p)]))[1:]
            self._log_sum = float(sums[-1])
            path = power_mixture_log_wealth(self._n + 1 + np.arange(len(p)), sums)
        reached = path >= self.log_threshold
        if self._alarm_at is None and reached.any():
            self._alarm_at = self._n + int(reached.argmax()) + 1
        self._n += len(p)
        self._log_wealth = float(path[-1])
        self._max_log_wealth = max(self._max_log_wealth, float(path.max()))
        return path

    @property
    def betting(self) -> str:
        """How it bets."""
        return self._betting

    @property
    def delta(self) -> float:
        """Probability of a false alarm, at most."""
        return self._delta

    @property
    def jump(self) -> float:
        """Rate at which the jumper moves."""
        return self._jump

    @property
    def n(self) -> int:
        """Number of p-values seen."""
        return self._n

    @property
    def log_wealth(self) -> float:
        """Natural logarithm of the wealth."""
        return self._log_wealth

    @property
    def wealth(self) -> float:
        """Wealth; +inf where it is beyond floating point."""
        return math.exp(self._log_wealth) if self._log_wealth < 709.0 else math.inf

    @property
    def max_log_wealth(self) -> float:
        """Greatest log of the wealth so far, at least 0."""
        return self._max_log_wealth

    @property
    def log_threshold(self) -> float:
        """Log of 1 / delta."""
        return -math.log(self.delta)

    @property
    def alarm(self) -> bool:
        """Whether the wealth has ever reached 1 / delta."""
        return self._alarm_at is not None

    @property
    def alarm_at(self) -> int | None:
        """How many p-values had been seen when it first did, or None."""
        return self._alarm_at

    @property
    def p_value(self) -> float:
        """P-value of exchangeability that is valid at any time: 1 / greatest wealth."""
        return math.exp(-self._max_log_wealth)

    @property
    def statement(self) -> str:
        """The guarantee, and what was seen, in words."""
        seen = (
            f"An alarm was raised after {self._alarm_at} of the {self._n} cases seen"
            if self.alarm
            else f"No alarm was raised in the {self._n} cases seen, which does not prove that nothing changed"
        )
        return (
            f"As long as the cases come from one source in no particular order, the probability that this "
            f"watch ever raises an alarm is at most {self.delta:.6g}, however long it runs and however often "
            f"it is looked at. {seen}. An alarm says that the cases have changed, not in which way."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready record of the whole state."""
        return {
            "kind": "exchangeability_martingale",
            "version": 1,
            "betting": self.betting,
            "delta": self.delta,
            "jump": self.jump,
            "n": self._n,
            "log_wealth": self._log_wealth,
            "max_log_wealth": self._max_log_wealth,
            "alarm_at": self._alarm_at,
            "log_sum": self._log_sum,
            "weights": list(self._weights),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ExchangeabilityMartingale:
        """Go on from what :meth:`to_dict` wrote."""
        record = read_record(_Record, data)
        martingale = cls(record.betting, delta=record.delta, jump=record.jump)
        reached = record.max_log_wealth >= martingale.log_threshold
        if (
            reached != (record.alarm_at is not None)
            or (record.alarm_at is not None and not 1 <= record.alarm_at <= record.n)
            or record.max_log_wealth < max(record.log_wealth, 0.0)
            or record.log_sum < 0.0
            or min(record.weights) < 0.0
            or abs(sum(record.weights) - 1.0) > 1e-9
        ):
            raise InvalidInput(
                "the record contradicts itself", seen=dict(data), remedy="start again with the next case"
            )
        martingale._n = record.n
        martingale._log_wealth = record.log_wealth
        martingale._max_log_wealth = record.max_log_wealth
        martingale._alarm_at = record.alarm_at
        martingale._log_sum = record.log_sum
        down, stay, up = record.weights
        martingale._weights = (down, stay, up)
        return martingale
