"""Objectives in torch: values and gradients of the domain, and where they lead on data of known posterior."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from finetune.adapters.embedded.inventory import Draws, inventory
from finetune.adapters.embedded.situation import OUTCOMES, draw_facts, posterior
from finetune.adapters.hf import objectives as in_torch
from finetune.application.config import ProjectConfig
from finetune.application.ports import TrainingJob
from finetune.domain import objectives as reference
from finetune.domain.errors import InvalidInput
from finetune.domain.labels import Label, LabelSet
from finetune.domain.prompts import default_prompt

Losses = Callable[..., Any]
COSTS = np.array([[0.0, 4.0, 1.0, 0.3], [2.0, 0.0, 1.0, 0.3], [30.0, 3.0, 0.0, 0.3], [1.0, 1.0, 1.0, 0.0]])
RELATIVE = torch.from_numpy(reference.relative_costs(COSTS, 4))


class Pair(NamedTuple):
    """The same objective in torch and in the domain."""

    torch: Losses
    numpy: Losses


def pair(name: str, **options: Any) -> Pair:
    return Pair(partial(getattr(in_torch, name), **options), partial(getattr(reference, name), **options))


PAIRS = {
    "cross_entropy": pair("cross_entropy_loss"),
    "smoothed": pair("cross_entropy_loss", label_smoothing=0.15),
    "focal": pair("focal_loss"),
    "focal_below_one": pair("focal_loss", gamma=0.5),
    "focal_zero": pair("focal_loss", gamma=0.0),
    "abstention": pair("abstention_loss"),
    "abstention_other": pair(
        "abstention_loss", confidence_threshold=0.5, abstention_penalty=0.9, uncertainty_weight=0.5
    ),
    "expected_cost": Pair(
        partial(in_torch.expected_cost_loss, costs=RELATIVE),
        partial(reference.expected_cost_loss, costs=COSTS),
    ),
    "conformal": pair("conformal_training_loss"),
    "conformal_other": pair(
        "conformal_training_loss", alpha=0.3, temperature=0.5, size_weight=0.2, target_size=0.5
    ),
}
everyone = pytest.mark.parametrize("both", PAIRS.values(), ids=PAIRS)


def random_rows(seed: int, n: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return spread * rng.normal(size=(n, 4)), rng.integers(4, size=n)


@everyone
@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0, 60.0])
@pytest.mark.parametrize("n", [1, 2, 3, 50])
def test_values_are_those_of_the_domain(both, n, spread):
    logits, y = random_rows(n, n, spread)
    rows = log_softmax(logits, axis=1)
    found = both.torch(torch.from_numpy(rows), torch.from_numpy(y))
    assert (found.shape, found.dtype) == ((n,), torch.float64)
    np.testing.assert_allclose(found.numpy(), both.numpy(rows, y), rtol=1e-6, atol=1e-6)


@everyone
@pytest.mark.parametrize("n", [1, 2, 3, 40])
def test_single_precision_comes_close(both, n):
    logits, y = random_rows(n, n, 3.0)
    rows = log_softmax(logits, axis=1)
    found = both.torch(torch.from_numpy(rows).float(), torch.from_numpy(y))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), both.numpy(rows, y), rtol=1e-3, atol=1e-4)


def gradient(losses: Losses, logits: np.ndarray, y: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """Of the sum of the losses with respect to the logits."""
    leaf = torch.tensor(logits, dtype=dtype, requires_grad=True)
    losses(torch.log_softmax(leaf, dim=1), torch.from_numpy(y)).sum().backward()
    assert leaf.grad is not None
    return leaf.grad


@everyone
@pytest.mark.parametrize("n", [1, 2, 30])
def test_gradients_are_the_differences_of_the_domains_values(both, n):
    logits, y = random_rows(n + 10, n, 0.2)
    losses = both.numpy
    if losses.func is reference.abstention_loss:
        threshold = losses.keywords.get("confidence_threshold", 0.7)
        # What the gradient takes for a constant stays what it was.
        losses = partial(
            losses,
            gate=reference.abstention_gate(log_softmax(logits, axis=1), confidence_threshold=threshold),
        )
    step = 1e-5
    differences = np.zeros_like(logits)
    for place in np.ndindex(*logits.shape):
        up, down = logits.copy(), logits.copy()
        up[place] += step
        down[place] -= step
        differences[place] = (
            losses(log_softmax(up, axis=1), y).sum() - losses(log_softmax(down, axis=1), y).sum()
        ) / (2 * step)
    found = gradient(both.torch, logits, y, torch.float64).numpy()
    np.testing.assert_allclose(found, differences, rtol=1e-5, atol=1e-6 * n)
    assert np.abs(found).max() > 1e-4


@everyone
def test_torch_finds_its_gradients_right_but_that_of_the_gate(both):
    logits, y = random_rows(5, 6, 0.5)
    leaf = torch.tensor(logits, dtype=torch.float64, requires_grad=True)

    def losses(z: torch.Tensor) -> torch.Tensor:
        return both.torch(torch.log_softmax(z, dim=1), torch.from_numpy(y))

    right = torch.autograd.gradcheck(losses, (leaf,), raise_exception=False)
    # That of the abstention-aware loss is meant to be another: the gate is a constant for it.
    assert right == (both.torch.func is not in_torch.abstention_loss)


SATURATED = [
    [[200.0, 0.0, 0.0, 0.0], [0.0, 200.0, 0.0, 0.0]],
    [[3e38, -3e38, 0.0, 0.0], [-3e38, 3e38, 0.0, 0.0]],
    [[0.0, -np.inf, -np.inf, -np.inf], [-np.inf, 0.0, 0.0, -np.inf]],
    [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, -np.inf]],
]


@everyone
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logits", SATURATED)
@pytest.mark.parametrize("y", [[0, 0], [1, 1], [3, 2]])
def test_saturated_rows_have_finite_losses_and_gradients(both, dtype, logits, y):
    labels = np.array(y)
    rows = torch.log_softmax(torch.tensor(logits, dtype=dtype), dim=1)
    losses = both.torch(rows, torch.from_numpy(labels))
    assert torch.isfinite(losses).all()
    np.testing.assert_allclose(losses.numpy(), both.numpy(rows.numpy(), labels), rtol=1e-3, atol=1e-4)
    assert torch.isfinite(gradient(both.torch, np.array(logits), labels, dtype)).all()


def test_the_gradient_of_a_row_that_is_sure_and_wrong_stays_where_it_should():
    logits, y = np.array([[12.0, 0.0, 0.0, 0.0]] * 2), np.array([1, 1])
    size = {name: gradient(both.torch, logits, y, torch.float32).abs().max() for name, both in PAIRS.items()}
    assert min(size["cross_entropy"], size["smoothed"], size["focal"], size["abstention"]) > 0.8
    assert size["expected_cost"] < 1e-3


# From the configuration.


def job_for(costs: np.ndarray | None = None, **sections: Any) -> TrainingJob:
    config = ProjectConfig.model_validate(
        {"model_id": "m", "backend": "encoder", "data": {"files": ["a.csv"]}, **sections}
    )
    labels = LabelSet("Sort", tuple(Label(name) for name in "abcd"))
    return TrainingJob(
        config, labels, default_prompt(labels), (), (), Path("run"), {}, resume=False, costs=costs
    )


@pytest.mark.parametrize(
    ("sections", "name", "weight"),
    [
        ({}, "cross_entropy", 1.0),
        ({"objective": {"label_smoothing": 0.15}}, "smoothed", 1.0),
        ({"objective": {"name": "focal", "gamma": 0.5}}, "focal_below_one", 1.0),
        ({"objective": {"name": "abstention", "weight": 0.25}}, "abstention", 0.25),
        (
            {
                "abstention_loss": {
                    "enabled": True,
                    "confidence_threshold": 0.5,
                    "abstention_penalty": 0.9,
                    "uncertainty_weight": 0.5,
                }
            },
            "abstention_other",
            1.0,
        ),
        ({"objective": {"name": "expected_cost"}}, "expected_cost", 0.5),
        ({"objective": {"name": "conformal"}, "backend": "causal"}, "conformal", 0.5),
        (
            {
                "objective": {
                    "name": "conformal",
                    "conformal": {"alpha": 0.3, "temperature": 0.5, "size_weight": 0.2, "target_size": 0.5},
                }
            },
            "conformal_other",
            0.5,
        ),
        ({"backend": "causal"}, "cross_entropy", 0.5),
        ({"backend": "causal", "objective": {"weight": 0.0}}, "cross_entropy", 0.0),
    ],
)
def test_a_job_gets_what_its_configuration_asks_for(sections, name, weight):
    found = in_torch.choose_objective(job_for(COSTS, **sections))
    logits, y = random_rows(3, 12, 1.0)
    rows = log_softmax(logits, axis=1)
    losses = found.losses(torch.from_numpy(rows).float(), torch.from_numpy(y))
    np.testing.assert_allclose(losses.numpy(), PAIRS[name].numpy(rows, y), rtol=1e-4, atol=1e-5)
    assert found.weight == weight


@pytest.mark.parametrize("costs", [None, np.zeros((4, 4))])
def test_without_costs_there_is_no_expected_cost(costs):
    with pytest.raises(InvalidInput, match="costs"):
        in_torch.choose_objective(job_for(costs, objective={"name": "expected_cost"}))


# What becomes of undecidable messages of the demo, whose posterior is known.


class Undecidable(NamedTuple):
    """Messages of the demo that nobody can decide, by concern and label.

    Parameters
    ----------
    concern, label, share
        Pairs that were drawn, and what share of the rows of its concern a pair has.
    posterior, counts
        Of each concern the known posterior, (P, K), and its rows, (P,).
    """

    concern: torch.Tensor
    label: torch.Tensor
    share: torch.Tensor
    posterior: np.ndarray
    counts: np.ndarray


@pytest.fixture(scope="module")
def undecidable() -> Undecidable:
    """All undecidable messages among 100,000, as the demo draws facts and labels."""
    draws = Draws(20240607)
    drawn: Counter[tuple[str, int]] = Counter()
    known: dict[str, list[float]] = {}
    for _ in range(100_000):
        facts = draw_facts(draws)
        concern = inventory().concerns[facts["concern"]]
        if concern.kind == "unclear":
            truth = posterior(facts)
            known[concern.name] = [truth[name] for name in OUTCOMES]
            drawn[concern.name, OUTCOMES.index(draws.weighted(truth))] += 1
    names = sorted(known)
    counts = {name: sum(drawn[name, label] for label in range(len(OUTCOMES))) for name in names}
    pairs = sorted(drawn)
    return Undecidable(
        torch.tensor([names.index(name) for name, _ in pairs]),
        torch.tensor([label for _, label in pairs]),
        torch.tensor([drawn[pair] / counts[pair[0]] for pair in pairs], dtype=torch.float64),
        np.array([known[name] for name in names]),
        np.array([counts[name] for name in names]),
    )


def fit(rows: Undecidable, losses: Losses) -> np.ndarray:
    """Descend from the uniform distribution, all rows in each step; return P(label | concern), (P, K)."""
    logits = torch.zeros(rows.posterior.shape, dtype=torch.float64, requires_grad=True)
    for _ in range(3000):
        log_p = torch.log_softmax(logits, dim=1)[rows.concern]
        (found,) = torch.autograd.grad((losses(log_p, rows.label) * rows.share).sum(), logits)
        with torch.no_grad():
            logits -= 2.0 * found
    return torch.softmax(logits.detach(), dim=1).numpy()


def farthest_beyond_chance(rows: Undecidable, p: np.ndarray) -> float:
    """By how much a probability is farther from the posterior than the draw of the labels explains.

    A share of n draws is within 4 standard deviations of what it estimates, and one draw, but for one time in
    ten thousand; there are 60 of them.
    """
    n = rows.counts[:, None]
    chance = 4 * np.sqrt(rows.posterior * (1 - rows.posterior) / n) + 1 / n
    return float((np.abs(p - rows.posterior) - chance).max())


def moved_by_entropy(p: np.ndarray, weight: float = 0.1) -> np.ndarray:
    """How far the entropy term keeps the resting point from the posterior, as the analysis has it."""
    gate = reference.abstention_gate(np.log(p))[:, None]
    entropy = -(p * np.log(p)).sum(axis=1, keepdims=True)
    return weight * gate * p * (np.log(p) + entropy) / np.log(p.shape[1])


def with_a_gate_that_learns(log_p: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The abstention-aware loss with a gradient through its gate: what it must not be."""
    p = log_p.exp()
    gate = torch.sigmoid((0.7 - p.amax(dim=1)) / 0.05)
    uncertainty = -(p * log_p).sum(dim=1) / np.log(log_p.shape[1])
    right = log_p.gather(1, labels[:, None]).squeeze(1)
    return (1 - gate + 0.3 * gate) * (-right - 0.1 * gate * uncertainty)


def test_undecidable_messages_get_their_known_posterior(undecidable):
    p = fit(undecidable, partial(in_torch.abstention_loss, uncertainty_weight=0.0))
    assert farthest_beyond_chance(undecidable, p) <= 0.0
    assert p.max() < 0.75


def test_the_entropy_term_keeps_them_from_it_by_as_much_as_the_analysis_says(undecidable):
    p = fit(undecidable, in_torch.abstention_loss)
    moved = moved_by_entropy(p)
    assert farthest_beyond_chance(undecidable, p + moved) <= 0.0
    assert np.abs(moved).max() < 0.025
    assert p.max() < 0.75


def test_a_gate_that_learns_leads_away_from_it(undecidable):
    p = fit(undecidable, with_a_gate_that_learns)
    assert farthest_beyond_chance(undecidable, p) > 0.05
    assert farthest_beyond_chance(undecidable, p + moved_by_entropy(p)) > 0.05


def test_expected_cost_leads_to_one_label(undecidable):
    costs = torch.from_numpy(1.0 - np.eye(len(OUTCOMES)))
    p = fit(undecidable, partial(in_torch.expected_cost_loss, costs=costs))
    assert farthest_beyond_chance(undecidable, p) > 0.2
    assert (p.max(axis=1) > 0.95).all()
