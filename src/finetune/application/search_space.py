"""What a sweep may search, and the settings of a trial as what ``--set`` takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from finetune.application.config import ProjectConfig
from finetune.application.ports import LogRange, Settings, Space, Value
from finetune.application.prepared import preparation_facts
from finetune.application.train import training_part
from finetune.domain.errors import InvalidInput

Configure = Callable[[Sequence[str]], ProjectConfig]
"""Returns the project's configuration with some keys changed, each as ``key=value``."""

LEARNING_RATE = "training.learning_rate"
RANK = "lora.r"
OBJECTIVE = "objective.name"
_ALPHA = "lora.alpha"
_FACTOR = 5.0
# Everything that the baseline reads of a configuration and that prepared rows do not depend on.
_READ_BY_BASELINE = ("baseline.", "training.class_weights", "training.sampling")
# Trials are compared on the same rows, and lie in the folder of their sweep.
_SHARED = ("version", "name", "artifacts", "labels", "data", "prompt", "training.max_validation_rows")


def default_space(config: ProjectConfig) -> Space:
    """Return what is searched where nothing is named: the learning rate, to five times as much and as little.

    Examples
    --------
    >>> default_space(ProjectConfig(model_id="m", data={"files": ["a.csv"]}))
    {'training.learning_rate': LogRange(low=4e-05, high=0.001)}
    """
    rate = config.training.learning_rate
    return {LEARNING_RATE: LogRange(rounded(rate / _FACTOR), rounded(rate * _FACTOR))}


def rounded(number: float) -> float:
    """Return a number with three significant digits."""
    return float(f"{number:.3g}")


def count_combinations(space: Space) -> int | None:
    """Return how many settings there are; None where a range has too many to count.

    Examples
    --------
    >>> count_combinations({"lora.r": (8, 16), "objective.name": ("focal", "cross_entropy")})
    4
    """
    sizes = [len(values) for values in space.values() if not isinstance(values, LogRange)]
    return math.prod(sizes) if len(sizes) == len(space) else None


def as_overrides(settings: Settings, config: ProjectConfig) -> tuple[str, ...]:
    """Return the settings of a trial as ``key=value``; with a rank goes the alpha that keeps their ratio.

    Parameters
    ----------
    settings
        Values by key.
    config
        The configuration they change.

    Examples
    --------
    >>> config = ProjectConfig(model_id="m", data={"files": ["a.csv"]}, lora={"r": 16, "alpha": 32})
    >>> as_overrides({"training.learning_rate": 5e-05, "lora.r": 8}, config)
    ('training.learning_rate=5e-05', 'lora.r=8', 'lora.alpha=16')
    """
    settings = dict(settings)
    rank = settings.get(RANK)
    if isinstance(rank, int) and _ALPHA not in settings:
        alpha = config.lora.alpha * rank / config.lora.r
        settings[_ALPHA] = int(alpha) if alpha.is_integer() else alpha
    return tuple(f"{key}={as_text(value)}" for key, value in settings.items())


def as_text(value: Value) -> str:
    """Return a value as it stands in YAML.

    Examples
    --------
    >>> [as_text(value) for value in (True, None, 0.5, "focal")]
    ['true', 'null', '0.5', 'focal']
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def describe(settings: Settings) -> str:
    """Return settings for people.

    Examples
    --------
    >>> describe({"training.learning_rate": 0.0002, "lora.r": 8, "objective.name": "expected_cost"})
    'learning rate 0.0002, r 8, objective expected_cost'
    """
    return ", ".join(f"{short_name(key)} {as_text(value)}" for key, value in settings.items())


def short_name(key: str) -> str:
    """Return the name of a key in a table.

    Examples
    --------
    >>> short_name("training.learning_rate"), short_name("objective.name")
    ('learning rate', 'objective')
    """
    return key.removesuffix(".name").rpartition(".")[2].replace("_", " ")


def check_space(space: Space, configure: Configure) -> None:
    """Check that each value of each key is one that a training with this backend reads.

    Parameters
    ----------
    space
        What is to be searched.
    configure
        Gives the configuration with a value of it.

    Raises
    ------
    InvalidInput
        A value is not valid for its key, a list has fewer than two values, the key has no effect on training,
        or with it the trials could not be compared.
    """
    config = configure(())
    if config.backend == "remote":
        raise InvalidInput(
            "a model behind a server is not trained here, so there is nothing to search",
            where="backend",
            seen=config.backend,
            remedy="choose another backend",
        )
    before = training_part(config.model_dump(mode="json"))
    for key, values in space.items():
        _check_comparable(key, config)
        _check_values(key, values)
        changed = [configure(as_overrides({key: value}, config)) for value in values]
        if any(preparation_facts(other) != preparation_facts(config) for other in changed):
            raise InvalidInput(
                "with another value of this key the rows are prepared anew, so that the trials could not be "
                "compared",
                where=key,
                remedy="change it for all trials (--set), and prepare the data for it",
            )
        if key == OBJECTIVE and any(
            other.chosen_objective.name != value for other, value in zip(changed, values, strict=True)
        ):
            raise InvalidInput(
                "abstention_loss.enabled chooses the objective, whatever its name",
                where=key,
                seen=list(values),
                remedy="search the objective with --set abstention_loss.enabled=false",
            )
        if all(training_part(other.model_dump(mode="json")) == before for other in changed):
            raise _without_effect(key, config)


def _check_comparable(key: str, config: ProjectConfig) -> None:
    if any(key == shared or key.startswith(f"{shared}.") for shared in _SHARED):
        raise InvalidInput(
            "all trials of a sweep have the same rows, which this key changes",
            where=key,
            remedy=f"change it for all trials: --set {key}=...",
        )
    if key == "training.seed":
        raise InvalidInput(
            "the best of several seeds is the luckiest one, and says nothing of the settings",
            where=key,
            remedy="leave the seed out of the search",
        )
    if config.backend == "baseline" and not key.startswith(_READ_BY_BASELINE):
        raise _without_effect(key, config)


def _check_values(key: str, values: LogRange | tuple[Value, ...]) -> None:
    if isinstance(values, LogRange):
        if not 0.0 < values.low < values.high < math.inf:
            raise InvalidInput(
                "a range must lead from a number above 0 to a larger one",
                where=key,
                seen=f"{values.low:g}:{values.high:g}",
                remedy="write it as LOW:HIGH, for example 5e-5:1e-3",
            )
    elif len(set(map(as_text, values))) < max(2, len(values)):
        raise InvalidInput(
            "a search needs at least two different values, each of them once",
            where=key,
            seen=list(values),
            remedy=f"give more, or change the key for all trials: --set {key}=...",
        )


def _without_effect(key: str, config: ProjectConfig) -> InvalidInput:
    remedy = "leave it out of the search"
    if config.backend == "baseline":
        remedy += "; the baseline has others, e.g. --vary baseline.longest_ngram=3,4,5"
    return InvalidInput(
        f"this key has no effect on training with the {config.backend} backend", where=key, remedy=remedy
    )
