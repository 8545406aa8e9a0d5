"""The training objectives of :mod:`finetune.domain.objectives` in torch, with the same formulas and names.

What they promise, their gradients and their sources stand there.  Labels of probability 0 have finite losses
and gradients, as there.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch.nn.functional import relu

from finetune.application.ports import TrainingJob
from finetune.domain.errors import InvalidInput
from finetune.domain.objectives import GATE_WIDTH, LOG_OFFSET, LOWEST, relative_costs, threshold_rank


class Objective(Protocol):
    """A loss for each row from its label log-probabilities."""

    def __call__(self, log_probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the losses of the rows of one forward.

        Parameters
        ----------
        log_probabilities
            ``(n, K)`` with n >= 1, normalised.
        labels
            ``(n,)``, on the same device.

        Returns
        -------
        torch.Tensor
            ``(n,)``, in the precision of the log-probabilities.
        """


class WeightedObjective(NamedTuple):
    """An objective, and its share of the loss of a step; 0: it need not be computed."""

    weight: float
    losses: Objective


def choose_objective(job: TrainingJob) -> WeightedObjective:
    """Return the objective that the configuration of a job asks for.

    Raises
    ------
    InvalidInput
        It needs costs, and the job has none or all of them are 0.
    """
    config = job.config
    chosen = config.chosen_objective
    options = config.objective
    losses: Objective
    match chosen.name:
        case "cross_entropy":
            losses = partial(cross_entropy_loss, label_smoothing=options.label_smoothing)
        case "focal":
            losses = partial(focal_loss, gamma=options.gamma)
        case "abstention":
            losses = partial(abstention_loss, **config.abstention_loss.model_dump(exclude={"enabled"}))
        case "expected_cost":
            if job.costs is None:
                raise InvalidInput(
                    "the objective expected_cost needs costs", where="objective.name", remedy="pass job.costs"
                )
            costs = relative_costs(job.costs, len(job.labels.outcomes))
            losses = partial(expected_cost_loss, costs=torch.from_numpy(costs))
        case "conformal":
            losses = partial(conformal_training_loss, **options.conformal.model_dump())
    return WeightedObjective(chosen.share(len(job.labels.outcomes)), losses)


def cross_entropy_loss(
    log_probabilities: torch.Tensor, labels: torch.Tensor, *, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Cross-entropy with label smoothing."""
    log_p = log_probabilities.clamp(min=LOWEST)
    return -(1.0 - label_smoothing) * _of_label(log_p, labels) - label_smoothing * log_p.mean(dim=1)


def focal_loss(log_probabilities: torch.Tensor, labels: torch.Tensor, *, gamma: float = 2.0) -> torch.Tensor:
    """Focal loss."""
    right = _of_label(log_probabilities.clamp(min=LOWEST), labels)
    # Powers of 0 have no derivative for gamma < 1; of the smallest number they have a finite one.
    wrong = (-torch.expm1(right)).clamp(min=torch.finfo(right.dtype).tiny)
    return -(wrong**gamma) * right


def abstention_loss(
    log_probabilities: torch.Tensor,
    labels: torch.Tensor,
    *,
    confidence_threshold: float = 0.7,
    abstention_penalty: float = 0.3,
    uncertainty_weight: float = 0.1,
) -> torch.Tensor:
    """Abstention-aware loss; its gate has no gradient."""
    log_p = log_probabilities.clamp(min=LOWEST)
    p = log_p.exp()
    gate = torch.sigmoid((confidence_threshold - p.detach().amax(dim=1)) / GATE_WIDTH)
    uncertainty = -(p * log_p).sum(dim=1) / math.log(log_p.shape[1])
    share = 1.0 - gate + gate * abstention_penalty
    return share * (-_of_label(log_p, labels) - uncertainty_weight * gate * uncertainty)


def expected_cost_loss(
    log_probabilities: torch.Tensor, labels: torch.Tensor, *, costs: torch.Tensor
) -> torch.Tensor:
    """Cost of a decision drawn from p; ``costs``, ``(K, K)``, are those that `relative_costs` returns."""
    return (costs.to(log_probabilities)[labels] * log_probabilities.exp()).sum(dim=1)


def conformal_training_loss(
    log_probabilities: torch.Tensor,
    labels: torch.Tensor,
    *,
    alpha: float = 0.1,
    temperature: float = 0.1,
    size_weight: float = 1.0,
    target_size: float = 1.0,
) -> torch.Tensor:
    """Conformal training: the same number for all rows of a forward."""
    log_p = log_probabilities.clamp(min=LOWEST)
    calibrating = _of_label(log_p, labels)[::2].sort().values
    threshold = calibrating[threshold_rank(len(calibrating), alpha) - 1]
    measured = slice(1, None, 2) if len(labels) > 1 else slice(None)
    distance = (log_p[measured] - threshold) / temperature
    missed = torch.sigmoid(-_of_label(distance, labels[measured]))
    too_large = relu(torch.sigmoid(distance).sum(dim=1) - target_size)
    loss = torch.log((missed + size_weight * too_large).mean() + LOG_OFFSET)
    return loss.expand(len(labels))


def _of_label(rows: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return rows.gather(1, labels[:, None]).squeeze(1)
