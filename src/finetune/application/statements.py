"""What a certificate promises, in words that need no statistics to read."""

from __future__ import annotations

from typing import Literal

from finetune.application.wording import level, percent, plural

Unit = Literal["message", "case"]
"""What one row is called: a message to a run of ours, a case for a model that we know nothing of."""

_RIGHT_LABELS_AND_ONE_TRY = (
    (
        "Right labels: the promises are about agreeing with the labels of the calibration rows. Where those "
        "are wrong, so are the promises."
    ),
    (
        "Repeated attempts: whoever calibrates again and again on the same rows until the result pleases, or "
        "picks the best of several certificates, loses the promises."
    ),
)
NOT_PROMISED = (
    (
        "Single cases: the promises are averages over all messages. They do not hold for each label, for "
        "each group of people or for one message."
    ),
    (
        "Other messages: another source, another time, another language or an attack. The promises hold for "
        "messages that come in as the calibration rows did."
    ),
    *_RIGHT_LABELS_AND_ONE_TRY,
    (
        "Repeated texts: texts that are nearly equal count once, however often they come in, because "
        "`prepare` keeps one of them. Where one text makes up a large part of the traffic, the share of "
        "wrong answers can differ."
    ),
)
"""What a certificate of a run says that it does not promise."""

NOT_PROMISED_OF_PROBABILITIES = (
    (
        "Single cases: the promises are averages over all cases. They do not hold for each label, for each "
        "group of people or for one case."
    ),
    (
        "Other cases: another source, another time or an attack. The promises hold for cases that come in as "
        "the calibration rows did."
    ),
    (
        "Other models: the model was never seen, only what it says. Probabilities of another model, or of "
        "this one after a change, cannot be told apart from those that were calibrated."
    ),
    (
        "Rows that the model was trained on: where it has seen the calibration rows, it was sure of them for "
        "a reason that new cases do not share, and the promises do not hold."
    ),
    *_RIGHT_LABELS_AND_ONE_TRY,
)
"""What a certificate of probabilities of any model says that it does not promise."""


def state_risk(limit: float, delta: float, n: int, answered: int, errors: int, unit: Unit = "message") -> str:
    """Say what the bound on the error among what is answered promises.

    Parameters
    ----------
    limit, delta
        Largest error rate, and the probability that the bound fails; in (0, 1).
    n, answered, errors
        Calibration rows behind the bound, how many of them the rule answers, and how many wrongly.
    unit
        What one row is called.

    Examples
    --------
    >>> print(state_risk(0.1, 0.05, 500, 400, 20))
    Of the messages that are answered, in the long run at most 10 % are answered wrongly. The rule was set on
    500 calibration rows, of which it answers 400, 20 of them wrongly. A draw of calibration rows that makes
    this promise false comes up with a probability of at most 5 %. All this presumes that new messages come
    from the same source as those rows.
    """
    return (
        f"Of the {unit}s that are answered, in the long run at most {level(limit)} are answered wrongly. "
        f"The rule was set on {plural(n, 'calibration row')}, of which it answers {answered:,}, {errors:,} "
        f"of them wrongly. A draw of calibration rows that makes this promise false comes up with a "
        f"probability of at most {level(delta)}. All this presumes that new {unit}s come from the same "
        f"source as those rows."
    )


def state_infeasible(limit: float, delta: float, n: int, needed: int | None, unit: Unit = "message") -> str:
    """Say that no error bound can be promised, and that everything is handed over.

    Examples
    --------
    >>> print(state_infeasible(0.1, 0.1, 2, 22))
    No error rate is promised, so every message is handed to a person: 2 calibration rows cannot show that at
    most 10 % of the answers are wrong with a probability of at most 10 % to be misled. At least 22 rows are
    needed, all of them answered rightly.
    """
    text = (
        f"No error rate is promised, so every {unit} is handed to a person: "
        f"{plural(n, 'calibration row')} cannot show that at most {level(limit)} of the answers are wrong "
        f"with a probability of at most {level(delta)} to be misled."
    )
    if needed is not None and needed > n:
        text += f" At least {plural(needed, 'row is', 'rows are')} needed, all of them answered rightly."
    return text


def state_scope(share: float, n: int, rank: int, unit: Unit = "message") -> str:
    """Say what handing over for want of evidence promises.

    Parameters
    ----------
    share
        Largest share of what is in scope that is handed over, in (0, 1).
    n, rank
        Calibration rows, and the rank of the limit among their evidence; 0 hands nothing over.
    unit
        What one row is called.

    Examples
    --------
    >>> print(state_scope(0.05, 199, 10))
    A message is handed over as out of scope where the model finds less evidence for all labels together than
    in all but 9 of 199 calibration rows. That happens to at most 5 % of the messages that come from the same
    source as those rows. How many others it catches is not promised.
    """
    if not rank:
        return (
            f"No {unit} is handed over as out of scope: {plural(n, 'calibration row')} are too few to do so "
            f"to at most {level(share)} of the {unit}s that are in scope."
        )
    return (
        f"A {unit} is handed over as out of scope where the model finds less evidence for all labels "
        f"together than in all but {rank - 1:,} of {plural(n, 'calibration row')}. That happens to at most "
        f"{level(share)} of the {unit}s that come from the same source as those rows. How many others it "
        f"catches is not promised."
    )


def state_sets(
    alpha: float,
    n: int,
    rank: int,
    low: float,
    high: float,
    *,
    method: str = "lac",
    everything: bool,
    unit: Unit = "message",
) -> str:
    """Say what the prediction sets promise.

    Parameters
    ----------
    alpha
        Miscoverage in (0, 1).
    n, rank
        Calibration rows behind the threshold, and its rank among their scores; above ``n`` there is none.
    low, high
        95 % interval of the coverage that one draw of calibration rows gives.
    method
        How the sets are made.
    everything
        Whether every set holds every outcome.
    unit
        What one row is called.

    Examples
    --------
    >>> print(state_sets(0.1, 99, 90, 0.834, 0.951, everything=False))
    The shortlist of a message holds the right outcome with a probability of at least 90 %, on average over
    all messages, answered or handed over, and over draws of 99 calibration rows. Among the handed-over
    messages alone the share is usually lower. For one such draw the share over all messages lies between
    83.4 % and 95.1 % with 95 % probability, or above where scores are equal. All this presumes that new
    messages come from the same source as those rows.
    """
    text = (
        f"The shortlist of a {unit} holds the right outcome with a probability of at least "
        f"{level(1 - alpha)}, on average over all {unit}s, answered or handed over, and over draws of "
        f"{plural(n, 'calibration row')}. "
    )
    if everything:
        why = _why_everything(n, rank, method)
        return text + f"{why}, so every shortlist holds every outcome and tells nothing."
    return text + (
        f"Among the handed-over {unit}s alone the share is usually lower. For one such draw the share over "
        f"all {unit}s lies between {percent(low)} and {percent(high)} with 95 % probability, or above where "
        f"scores are equal. All this presumes that new {unit}s come from the same source as those rows."
    )


def _why_everything(n: int, rank: int, method: str) -> str:
    if rank > n:
        return f"With {plural(n, 'row')} no threshold can promise this"
    if method == "aps":  # its score of the least likely outcome is infinite
        return (
            "In too many of these rows the right outcome is the one that the model holds least likely: "
            "then `aps` has no threshold that can promise this (`conformal.method: lac` has)"
        )
    return "In too many of these rows the model rules the right outcome out, so no threshold can promise this"
