"""A cut of the learning rate, with every scheduler of transformers."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, get_args

import pytest
import torch
from transformers import get_scheduler
from transformers.trainer_utils import SchedulerType

from finetune.adapters.hf.monitor import scale_rates
from finetune.application.config import TrainingConfig

STEPS, CUT = 24, 9
# What transformers does not know itself; the configuration offers only those that need nothing.
NEEDED: dict[str, dict[str, Any]] = {
    "cosine_with_min_lr": {"min_lr_rate": 0.1},
    "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1, "warmup_lr_rate": 0.01},
    "warmup_stable_decay": {"num_decay_steps": 6},
    # Its bounds are far above the usual rates of adapters.
    "greedy": {"min_lr": 1e-4, "max_lr": 0.5},
}
OFFERED = get_args(TrainingConfig.model_fields["lr_scheduler"].annotation)
SCHEDULERS = [kind.value for kind in SchedulerType]
ARGUMENTS = {
    name: {
        **NEEDED.get(name, {}),
        # So that they do something in so few steps.
        **({"patience": 2} if name in ("greedy", "reduce_lr_on_plateau") else {}),
    }
    for name in SCHEDULERS
}


class Course:
    """Two groups of weights, as those with and without decay, and a scheduler."""

    def __init__(self, name: str, arguments: dict[str, Any]) -> None:
        self.weights = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
        groups = [
            {"params": [weight], "lr": rate} for weight, rate in zip(self.weights, (0.1, 0.02), strict=True)
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=0.1)
        self.scheduler = get_scheduler(name, self.optimizer, 3, STEPS, arguments)
        self._waits = name in ("greedy", "reduce_lr_on_plateau")

    def rates(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def step(self, number: int) -> None:
        for weight in self.weights:
            weight.grad = torch.ones(1)
        self.optimizer.step()
        # The loss falls for ten steps, and then no more.
        self.scheduler.step(*([max(1.0 - number / 10, 0.0)] if self._waits else []))

    def reopened(self, name: str, arguments: dict[str, Any]) -> Course:
        """Return what comes of a checkpoint."""
        other = Course(name, arguments)
        other.optimizer.load_state_dict(deepcopy(self.optimizer.state_dict()))
        other.scheduler.load_state_dict(deepcopy(self.scheduler.state_dict()))
        return other


@pytest.mark.parametrize("checkpoint", [None, CUT, CUT + 4], ids=["unbroken", "at the cut", "after it"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_all_rates_after_a_cut_are_those_without_it_times_the_factor(name, checkpoint):
    plain, steered = (Course(name, ARGUMENTS[name]) for _ in range(2))
    seen = set()
    for number in range(STEPS):
        for course in (plain, steered):
            course.step(number)
        if number == CUT:
            scale_rates(steered.optimizer, steered.scheduler, 0.8)
        if number == checkpoint:
            steered = steered.reopened(name, ARGUMENTS[name])
        factor = 0.8 if number >= CUT else 1.0
        assert steered.rates() == pytest.approx([factor * rate for rate in plain.rates()], rel=1e-9)
        assert list(steered.scheduler.get_last_lr()) == pytest.approx(steered.rates())
        seen.add(plain.rates()[0])
    assert len(seen) > 1 or name == "constant", "the course is one"


def test_the_configuration_offers_all_that_need_nothing_else():
    assert set(OFFERED) == set(SCHEDULERS) - NEEDED.keys()
    for name in OFFERED:
        Course(name, {}).step(0)
    for name in NEEDED.keys() - {"greedy"}:
        with pytest.raises((TypeError, ValueError)):
            Course(name, {}).step(0)


def test_a_greedy_scheduler_cannot_lower_the_rate_of_an_adapter_by_itself():
    """Why it is not offered: nothing that it is told here makes the rate fall below its floor of 0.001."""
    weight = torch.nn.Parameter(torch.ones(1))
    scheduler = get_scheduler("greedy", torch.optim.AdamW([weight], lr=2e-4))
    for _ in range(50):
        scheduler.step(1.0)
    assert scheduler.get_last_lr() >= [2e-4]
