"""A study of Optuna in a journal: a file of lines that only grows, and that any Optuna tool reads."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState
from scipy.stats.qmc import Halton

from finetune.application.ports import Direction, FinishedTrial, LogRange, Proposal, Settings, Space, Value
from finetune.domain.errors import IntegrityError, InvalidInput

JOURNAL = "journal.log"
_NAME = "sweep"
_FACTS = "facts"
# A training that failed is told as pruned: the sampler takes it for worse than any that ended, while it would
# forget a failed trial and might go there again.  FAIL is left for proposals that a kill cut short.
_STATES = {TrialState.COMPLETE, TrialState.PRUNED}
_SPREAD = 10


class OptunaStudy:
    """The :class:`~finetune.application.ports.SearchStudy` of ``journal.log`` in a folder.

    Where there are lists only, each combination comes once, in an order that the seed shuffles.  Where there
    is a range, the first ten trials are spread evenly over the space, because as many random ones may lie
    side by side; then Optuna's tree-structured Parzen estimator proposes.  Each proposal has a seed of its
    own, made of the study's seed and the number of trials told so far, so that it does not matter how often
    the process was started.  Another version of Optuna or scipy may propose other settings.

    Parameters
    ----------
    folder
        Made if it is not there.
    space, direction, seed
        As they were when the study began.

    Raises
    ------
    IntegrityError
        The journal is damaged, or is one of another direction.

    References
    ----------
    Bergstra, Bardenet, Bengio & Kegl (2011), Algorithms for hyper-parameter optimization, section 4.
    Owen (2017), A randomized Halton algorithm in R: the even spread.
    """

    def __init__(self, folder: Path, space: Space, direction: Direction, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / JOURNAL
        _cut_torn_line(path)
        self._space = space
        self._seed = seed
        # Symbolic links, which are the default lock, need rights on Windows.
        backend = JournalFileBackend(str(path), JournalFileOpenLock(str(path)))
        try:
            self._storage = JournalStorage(backend)
            self._study = optuna.create_study(
                storage=self._storage, study_name=_NAME, direction=direction, load_if_exists=True
            )
        except (ValueError, KeyError) as error:
            raise IntegrityError(
                f"the journal of the search is damaged: {error}",
                where=str(path),
                remedy="restore it, or delete the folder of the sweep to begin again",
            ) from error
        if self._study.direction.name != direction.upper():
            raise IntegrityError(
                "this search optimises in the other direction",
                where=str(path),
                seen=self._study.direction.name.lower(),
                remedy="choose another name for the sweep, or delete its folder to begin again",
            )

    def ask(self) -> Proposal:
        """Return the trial that was not told yet, or a new one where there is none.

        Raises
        ------
        InvalidInput
            All combinations of a space of lists were told.
        """
        for trial in self._study.get_trials(states=(TrialState.RUNNING,)):
            if trial.params.keys() >= self._space.keys():
                return Proposal(trial.number + 1, self._settings(trial.params))
            # Killed while it was proposed: nothing can have been trained, so nothing is lost.
            self._study.tell(trial.number, state=TrialState.FAIL)
        told = len(self.finished())
        ranges = any(isinstance(values, LogRange) for values in self._space.values())
        if ranges and told >= _SPREAD:
            sequence = np.random.SeedSequence((self._seed, told))
            self._study.sampler = optuna.samplers.TPESampler(
                n_startup_trials=_SPREAD, seed=int(sequence.generate_state(1)[0])
            )
        elif not self._study.get_trials(states=(TrialState.WAITING,)):
            self._study.enqueue_trial(dict(self._spread(told) if ranges else self._combination(told)))
        new = self._study.ask({key: _distribution(values) for key, values in self._space.items()})
        return Proposal(new.number + 1, self._settings(new.params))

    def tell(self, number: int, value: float | None, facts: Mapping[str, Any]) -> None:
        """Record what came of a trial."""
        study = self._storage.get_study_id_from_name(_NAME)
        trial = self._storage.get_trial_id_from_study_id_trial_number(study, number - 1)
        self._storage.set_trial_user_attr(trial, _FACTS, dict(facts))
        state = TrialState.PRUNED if value is None else TrialState.COMPLETE
        self._study.tell(number - 1, value, state=state)

    def finished(self) -> tuple[FinishedTrial, ...]:
        """Return the trials that were told, by number."""
        return tuple(
            FinishedTrial(
                trial.number + 1,
                self._settings(trial.params),
                trial.value if trial.state == TrialState.COMPLETE else None,
                trial.user_attrs[_FACTS],
            )
            for trial in self._study.get_trials()
            if trial.state in _STATES
        )

    def _settings(self, parameters: Mapping[str, Any]) -> Settings:
        return {
            key: _rounded(parameters[key], values) if isinstance(values, LogRange) else parameters[key]
            for key, values in self._space.items()
        }

    def _spread(self, position: int) -> Settings:
        """Return one of a sequence of points that lie evenly in the space, shuffled by the seed."""
        point = Halton(len(self._space), seed=self._seed).random(position + 1)[position]
        return {
            key: _value_at(values, float(x))
            for (key, values), x in zip(self._space.items(), point, strict=True)
        }

    def _combination(self, position: int) -> Settings:
        """Return one of all combinations, in an order that the seed shuffles."""
        lists = list(self._space.values())
        shape = [len(values) for values in lists]
        if position >= math.prod(shape):
            raise InvalidInput("every combination was tried", seen=position, remedy="search a larger space")
        order = np.random.default_rng(self._seed).permutation(math.prod(shape))
        chosen = np.unravel_index(order[position], shape)
        return {
            key: values[int(index)] for (key, values), index in zip(self._space.items(), chosen, strict=True)
        }


def _value_at(values: LogRange | tuple[Value, ...], x: float) -> Value:
    """Return the value at x in [0, 1) of a range or list."""
    if isinstance(values, LogRange):
        return _rounded(values.low * (values.high / values.low) ** x, values)
    return values[int(x * len(values))]


def _rounded(number: float, within: LogRange) -> float:
    return min(max(float(f"{number:.3g}"), within.low), within.high)


def _distribution(values: LogRange | tuple[Value, ...]) -> BaseDistribution:
    if isinstance(values, LogRange):
        return FloatDistribution(values.low, values.high, log=True)
    return CategoricalDistribution(values)


def _cut_torn_line(path: Path) -> None:
    """Take away what a kill left of a last line: the next line would be appended to it, and both be lost."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
            file.flush()
            os.fsync(file.fileno())
