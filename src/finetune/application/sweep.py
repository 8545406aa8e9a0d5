"""Sweep: trainings with different settings, and which of them does best on the validation rows."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast, get_args

from finetune.application.config import ProjectConfig
from finetune.application.labels_file import LabelsFile
from finetune.application.metric_choice import Metric, greater_is_better, why_not_measured
from finetune.application.ports import (
    ArtifactStore,
    Direction,
    Progress,
    Proposal,
    SearchStudy,
    Space,
    StoreOpener,
    StudyOpener,
)
from finetune.application.prepared import check_prepared, split_hashes
from finetune.application.search_space import (
    OBJECTIVE,
    Configure,
    as_overrides,
    check_space,
    count_combinations,
    default_space,
    describe,
    short_name,
)
from finetune.application.sweep_results import (
    SweepReport,
    failed_facts,
    finished_facts,
    space_document,
    trial_folder,
)
from finetune.application.train import Train, training_part
from finetune.application.wording import decimal
from finetune.domain.errors import FinetuneError, IntegrityError, InvalidInput, MissingExtra, Unavailable

FILE = "sweep.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LOG = "metrics.jsonl"
# What makes a folder of a trial a run that can be used; the rest is small, and says how it went.
_OF_A_RUN = ("adapter", "checkpoints", "manifest.json", "labels.yaml", "README.md")
# Whatever the settings are, these come again.
_OF_ALL_TRIALS = (IntegrityError, MissingExtra, Unavailable)


@dataclass(frozen=True)
class SweepRequest:
    """What to search.

    Parameters
    ----------
    configure
        Gives the configuration with more overrides.
    space
        Empty: the learning rate around that of the configuration.
    trials
        So many in all, those of an interrupted sweep among them.
    metric
        What the best trial is the best in; None: what chooses the best checkpoint of each training.
    name
        Of the folder; None: the name of the configuration.
    keep_all
        Keep every adapter, and not only the best one.
    options
        Options of the command line that name the configuration, to be repeated by the next command.
    """

    configure: Configure
    space: Space
    trials: int = 20
    metric: str | None = None
    name: str | None = None
    keep_all: bool = False
    options: str = ""


@dataclass(frozen=True)
class Sweep:
    """Trains once for each proposal, on the prepared rows of one configuration.

    Parameters
    ----------
    train
        What a trial is.
    studies, stores, progress
        The ports it works through.
    """

    train: Train
    studies: StudyOpener
    stores: StoreOpener
    progress: Progress

    def __call__(
        self, request: SweepRequest, labels: LabelsFile | None = None, *, resume: bool = False
    ) -> SweepReport:
        """Search, or go on with an interrupted search.

        Parameters
        ----------
        request
            What to search.
        labels
            The labels file as it is now, as for :class:`~finetune.application.train.Train`.
        resume
            Go on: trials that have ended are kept, the interrupted one goes on from its checkpoint.

        Raises
        ------
        InvalidInput
            The space or the metric cannot be searched, a sweep would be lost, or the one here is another.
        FinetuneError
            What would stop every trial: prepared data or a package are missing, a model cannot be loaded.
            A training that fails once it has begun is recorded, and the sweep goes on.
        """
        config = request.configure(())
        report = self._plan(request, config, labels)
        store = self.stores(report.folder)
        if store.exists("trials"):
            _check_begun(store, report.identity, resume=resume)
        else:
            store.remove("study")
        study = self.studies(report.folder / "study", report.space, report.direction, config.training.seed)
        report = self._write(store, report, study, keep_all=request.keep_all)
        most = count_combinations(report.space)
        wanted = request.trials if most is None else min(request.trials, most)
        if wanted < request.trials:
            self.progress.say(f"there are {most} combinations, each is tried once")
        with self.progress.task("sweep", max(wanted - len(report.trials), 0)) as task:
            while len(report.trials) < wanted:
                proposal = study.ask()
                self.progress.say(f"trial {proposal.number} of {wanted}: {describe(proposal.settings)}")
                value, facts = self._try(proposal, request, report, labels)
                study.tell(proposal.number, value, facts)
                report = self._write(store, report, study, keep_all=request.keep_all)
                task.advance()
                if report.best is not None:
                    found = f"{short_name(report.metric)} {decimal(report.best.value or 0.0)}"
                    task.describe(f"best {found} (trial {report.best.number})")
        return report

    def _plan(self, request: SweepRequest, config: ProjectConfig, labels: LabelsFile | None) -> SweepReport:
        """Check everything that can be checked before the first training."""
        space = request.space or default_space(config)
        check_space(space, request.configure)
        metric = request.metric or config.training.early_stopping.metric
        direction = _direction(metric, config)
        prepared = self.stores(config.prepared_folder)
        check_prepared(prepared, config, labels)
        rows = sum(1 for _ in prepared.read_rows("validation.jsonl"))
        name = config.name if request.name is None else request.name
        if not _NAME.fullmatch(name):
            raise InvalidInput(
                "a sweep's name is made of letters, digits, points, hyphens and underscores, at most 100",
                where="--name",
                seen=name,
                remedy="choose another one",
            )
        return SweepReport(
            name=name,
            folder=config.artifacts / "sweeps" / name,
            config=config,
            options=request.options,
            space=space,
            metric=metric,
            direction=direction,
            validation_rows=min(rows, config.training.max_validation_rows or rows),
            identity={
                **training_part(config.model_dump(mode="json")),
                "rows": split_hashes(prepared),
                "costs": _costs(space, config, labels),
                "space": space_document(space),
                "metric": metric,
            },
        )

    def _try(
        self, proposal: Proposal, request: SweepRequest, report: SweepReport, labels: LabelsFile | None
    ) -> tuple[float | None, dict[str, Any]]:
        """Train with the proposed settings; return the metric and the facts."""
        try:
            config = request.configure(as_overrides(proposal.settings, report.config))
        except InvalidInput as error:
            # Each value by itself is valid, so it is these that do not go together.
            return self._fail(proposal, error)
        run = self.stores(report.folder / trial_folder(proposal.number))
        before = _logged(run)
        try:
            outcome = self.train(config, labels, resume=True, folder=run.folder).outcome
        except FinetuneError as error:
            # Where nothing was logged the training has not begun: a model that cannot be loaded, for example.
            if isinstance(error, _OF_ALL_TRIALS) or _logged(run) == before:
                raise
            return self._fail(proposal, error)
        value = outcome.best.get(report.metric, math.nan)
        if not math.isfinite(value):
            # The selective risk of a model that answers nothing, for example.
            return self._fail(proposal, InvalidInput(f"{report.metric} could not be estimated"))
        return value, finished_facts(outcome.best, outcome.best_step, outcome.seconds)

    def _fail(self, proposal: Proposal, error: FinetuneError) -> tuple[None, dict[str, Any]]:
        # What to do about it is said to who trains by hand; a sweep goes on.
        reason = str(FinetuneError(error.what, where=error.where, seen=error.seen))
        self.progress.say(f"trial {proposal.number} failed: {reason}")
        return None, failed_facts(reason)

    def _write(
        self, store: ArtifactStore, report: SweepReport, study: SearchStudy, *, keep_all: bool
    ) -> SweepReport:
        """Write what is known so far, and take away the adapters that are not the best."""
        report = replace(report, trials=study.finished())
        store.write_json(FILE, report.document())
        store.write_text("sweep.md", report.markdown())
        for trial in report.trials:
            if trial != report.best and not keep_all:
                run = self.stores(report.run_of(trial))
                for name in _OF_A_RUN:
                    run.remove(name)
        return report


def _direction(metric: str, config: ProjectConfig) -> Direction:
    if metric not in get_args(Metric):
        raise InvalidInput(
            "trials cannot be compared by this",
            where="--metric",
            seen=metric,
            remedy=f"choose one of {', '.join(get_args(Metric))}",
        )
    known = cast(Metric, metric)
    problem = why_not_measured(known, config.backend, config.training.json_samples)
    if problem is not None:
        raise InvalidInput(problem, where="--metric", remedy="choose another one")
    return "maximize" if greater_is_better(known) else "minimize"


def _costs(space: Space, config: ProjectConfig, labels: LabelsFile | None) -> dict[str, Any] | None:
    """Return the costs where a training looks at them; they may change freely where none does."""
    objectives = space.get(OBJECTIVE, (config.chosen_objective.name,))
    if labels is None or "expected_cost" not in objectives:
        return None
    return labels.costs.model_dump(mode="json")


def _logged(run: ArtifactStore) -> str | None:
    return run.sha256(_LOG) if run.exists(_LOG) else None


def _check_begun(store: ArtifactStore, identity: Mapping[str, Any], *, resume: bool) -> None:
    """Check that a sweep that has trials is to be gone on with, and can be."""
    where = str(store.folder)
    otherwise = "choose another --name, or delete this folder to begin again"
    if not resume:
        raise InvalidInput(
            "a sweep is here, and would be lost", where=where, remedy=f"go on with --resume, {otherwise}"
        )
    begun = store.read_json(FILE)["identity"]
    changed = [key for key in identity if begun.get(key) != identity[key]]
    if changed:
        raise InvalidInput(
            f"the sweep began with another {' and another '.join(changed)}",
            where=where,
            seen={key: identity[key] for key in changed},
            remedy=f"set the values back, {otherwise}",
        )
