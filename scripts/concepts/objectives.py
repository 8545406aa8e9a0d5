"""Plot of the page on training objectives: where each leads on a text that nobody can decide."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from concepts.style import SERIES, TARGET, Plot, panels
from concepts.worlds import Floats
from finetune.domain import (
    abstention_loss,
    conformal_training_loss,
    cross_entropy_loss,
    expected_cost_loss,
    focal_loss,
)
from finetune.domain.objectives import abstention_gate

POSTERIOR, START, RATE, STEPS = 0.6, 0.9, 0.5, 2000
# From the logit of the first of two labels to the mean loss over the draw of the label; the second argument
# is the logit at which a gate stays as it is.
Course = Callable[[float, float], float]


def _rows(logit: float, n: int = 2) -> Floats:
    return np.tile([-np.logaddexp(0.0, -logit), -np.logaddexp(0.0, logit)], (n, 1))


def _sigmoid(logit: float) -> float:
    return float(1 / (1 + np.exp(-logit)))


def _mean(losses: Callable[..., Floats], posterior: float) -> Course:
    weights = np.array([posterior, 1 - posterior])
    return lambda logit, _: float(weights @ losses(_rows(logit), [0, 1]))


def _frozen(posterior: float) -> Course:
    weights = np.array([posterior, 1 - posterior])
    return lambda logit, at: float(
        weights @ abstention_loss(_rows(logit), [0, 1], gate=abstention_gate(_rows(at)))
    )


def _among_its_like(size_weight: float) -> Course:
    labels = np.repeat([0, 1], [12, 8])  # the posterior (.6, .4) in both halves
    return lambda logit, _: float(
        conformal_training_loss(_rows(logit, 20), labels, size_weight=size_weight)[0]
    )


OBJECTIVES: dict[str, Callable[[float], Course]] = {
    "cross-entropy": partial(_mean, cross_entropy_loss),
    "label smoothing 0.1": partial(_mean, partial(cross_entropy_loss, label_smoothing=0.1)),
    "focal": partial(_mean, focal_loss),
    "abstention-aware": _frozen,
    "expected cost": partial(_mean, partial(expected_cost_loss, costs=1 - np.eye(2))),
}


def _slope(course: Course, logit: float) -> float:
    return (course(logit + 1e-4, logit) - course(logit - 1e-4, logit)) / 2e-4


def _descend(course: Course, start: float, steps: int = STEPS, rate: float = RATE) -> Floats:
    """Gradient descent on the logit; the probability of the first label after each step."""
    logit, seen = float(np.log(start / (1 - start))), [start]
    for _ in range(steps):
        logit -= rate * _slope(course, logit)
        seen.append(_sigmoid(logit))
    return np.array(seen)


def _rest(course: Course) -> float:
    """Find where the slope changes its sign, by halving; 1 if it falls for ever."""
    low, high = 0.0, 12.0
    if _slope(course, high) < 0:
        return 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if _slope(course, middle) > 0 else (middle, high)
    return _sigmoid(low)


def objectives() -> Plot:
    """Draw gradient descent from a sure wrong claim, and where it ends for each posterior."""
    figure, (left, right) = panels(2)
    posteriors = np.linspace(0.51, 0.99, 25)
    findings = []
    for (name, of), series in zip(OBJECTIVES.items(), SERIES, strict=True):
        line = {**series, "marker": None}
        left.plot(np.arange(1, STEPS + 1), _descend(of(POSTERIOR), START)[1:], label=name, **line)
        right.plot(posteriors, [_rest(of(p)) for p in posteriors], **line)
        ends = ", ".join(f"{p:g} to {_rest(of(p)):.3f}" for p in (0.6, 0.8, 0.9, 0.99))
        findings.append(f"{name}: posterior {ends}")
    left.axhline(POSTERIOR, **TARGET)
    left.set(xscale="log", xlabel="steps", ylabel="probability of the first label", ylim=(0.5, 1.02))
    left.legend(loc="center right", bbox_to_anchor=(1.0, 0.6))
    right.set(xlabel="posterior of the first label", ylabel="where descent ends", ylim=(0.5, 1.02))
    gate = partial(_mean, abstention_loss)
    ends = ", ".join(f"{p:g} to {_descend(gate(p), 0.6, rate=0.1)[-1]:.2f}" for p in (0.6, 0.8, 0.9, 0.99))
    findings.append(f"abstention-aware, had its gate a gradient, from a claim of 0.6: posterior {ends}")
    for size_weight in (1.0, 0.1):
        end = _descend(_among_its_like(size_weight), 0.55, rate=0.002)[-1]
        findings.append(
            f"conformal training, all rows alike, size_weight {size_weight:g}, from 0.55: "
            f"posterior 0.6 to {end:.2f}"
        )
    return Plot(figure, findings)


PLOTS = {"objectives": objectives}
