"""Train: prepared examples to a run folder with the best adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finetune.application.config import ProjectConfig, TrainingConfig
from finetune.application.labels_file import LabelsFile
from finetune.application.objective_settings import ObjectiveConfig
from finetune.application.ports import (
    BEGUN,
    CHECKPOINTS,
    ArtifactStore,
    Clock,
    LogOpener,
    Progress,
    StoreOpener,
    Trainer,
    TrainingJob,
    TrainingOutcome,
)
from finetune.application.prepared import check_prepared, read_prepared, split_hashes
from finetune.application.prompting import build_prompt
from finetune.application.runs import OF_AN_EVALUATION, open_run
from finetune.domain.checks import FloatArray
from finetune.domain.errors import IntegrityError, InvalidInput
from finetune.domain.examples import Example
from finetune.domain.risk import cost_matrix
from finetune.domain.splits import hash_order

# Bound to an adapter that is no longer there; refused if they were kept, so not kept.
_OF_THE_LAST_ADAPTER = (
    "calibration.json",
    "scores_validation.jsonl",
    "scores_calibration.jsonl",
    *OF_AN_EVALUATION,
)
# Sections that say what is done with a trained model.
_LATER = ("conformal", "risk", "prediction")


@dataclass(frozen=True)
class TrainReport:
    """What came of training, and where it lies."""

    run: Path
    outcome: TrainingOutcome

    def document(self) -> dict[str, Any]:
        """Return ``training_metrics.json``."""
        outcome = asdict(self.outcome)
        del outcome["main_process"]
        return {"version": 1, "run": str(self.run), **outcome}


@dataclass(frozen=True)
class Train:
    """Tunes an adapter on the prepared training rows, watching the validation rows.

    Parameters
    ----------
    trainer, stores, logs, progress, clock
        The ports it works through.
    """

    trainer: Trainer
    stores: StoreOpener
    logs: LogOpener
    progress: Progress
    clock: Clock

    def __call__(
        self,
        config: ProjectConfig,
        labels: LabelsFile | None = None,
        *,
        resume: bool = False,
        folder: Path | None = None,
    ) -> TrainReport:
        """Train, or go on with an interrupted training.

        What is needed to go on lies in ``checkpoints/`` until training has ended; everything else in the
        run folder stays as it was until then.

        Parameters
        ----------
        config
            The configuration; its prepared folder must have been written for it.
        labels
            The labels file as it is now: its costs count, all else must be as it was prepared; None: the one
            that was prepared.
        resume
            Go on from the newest complete checkpoint and end exactly as an uninterrupted run would.
            Without a checkpoint training starts at the beginning; where this very training has ended,
            nothing is done.
        folder
            Where to train; None: the run folder of the configuration.

        Raises
        ------
        InvalidInput
            An interrupted training would be lost, or a resumed one has another configuration.
        IntegrityError
            The prepared data were made for another configuration, or files are damaged.
        """
        prepared = self.stores(config.prepared_folder)
        check_prepared(prepared, config, labels)
        effective = _with_costs(LabelsFile.model_validate(prepared.read_yaml("labels.yaml")), labels)
        run = self.stores(folder or config.run_folder)
        identity = _identity(config.model_dump(mode="json"), effective, split_hashes(prepared))
        if run.exists(BEGUN):
            _check_begun(run, identity, resume=resume)
        elif resume and (finished := _finished(run, identity)) is not None:
            self.progress.say("this training has already ended; nothing is left to do")
            return finished
        label_set = effective.label_set()
        outcome = self.trainer.train(
            TrainingJob(
                config=config,
                labels=label_set,
                prompt=build_prompt(config.prompt, label_set),
                train=read_prepared(prepared, "train"),
                validation=_some(
                    read_prepared(prepared, "validation"),
                    config.training.max_validation_rows,
                    config.training.seed,
                ),
                folder=run.folder,
                identity=identity,
                resume=resume,
                costs=_training_costs(config, effective),
            ),
            self.logs(run.folder),
            self.progress,
        )
        report = TrainReport(run.folder, outcome)
        if outcome.main_process:
            self._finish(config, run, prepared, effective, report)
        return report

    def _finish(
        self,
        config: ProjectConfig,
        run: ArtifactStore,
        prepared: ArtifactStore,
        labels: LabelsFile,
        report: TrainReport,
    ) -> None:
        for stale in _OF_THE_LAST_ADAPTER:
            run.remove(stale)
        run.write_yaml("config.yaml", config.model_dump(mode="json"))
        run.write_yaml("labels.yaml", labels.document())
        run.write_json("training_metrics.json", report.document())
        run.seal(
            {
                "created": self.clock.now(),
                "prepared": split_hashes(prepared),
                "seed": config.training.seed,
                "versions": dict(report.outcome.versions),
            }
        )
        open_run(config, self.stores, run.folder).finish()
        run.remove(CHECKPOINTS)


def _some(rows: Sequence[Example], most: int | None, seed: int) -> list[Example]:
    """Return at most so many rows in their order, chosen by hash: data are often sorted by label."""
    chosen = hash_order([row.text for row in rows], seed, "validation")[:most]
    return [rows[i] for i in sorted(chosen)]


def _with_costs(prepared: LabelsFile, now: LabelsFile | None) -> LabelsFile:
    """Return the labels as they were prepared with the costs of now, which may change freely."""
    if now is None:
        return prepared
    return prepared.model_copy(
        update={"costs": (now if prepared.abstain is not None else now.without_abstention()).costs}
    )


def _training_costs(config: ProjectConfig, labels: LabelsFile) -> FloatArray | None:
    """Return the costs of decisions, (K, K), where the objective looks at them."""
    if config.chosen_objective.name != "expected_cost":
        return None
    outcomes, costs = labels.label_set().outcomes, labels.costs
    matrix = cost_matrix(outcomes, default=costs.default, abstain=costs.abstain, pairs=costs.pairs)
    # Where handing over is no outcome, the model gives it no probability, whatever it costs.
    return matrix[:, : len(outcomes)]


def _identity(config: Mapping[str, Any], labels: LabelsFile, rows: object) -> dict[str, Any]:
    """Return what makes a training this one and no other."""
    part = training_part(config)
    costs = part["objective"]["name"] == "expected_cost"
    return {"config": part, "rows": rows} | ({"costs": labels.costs.model_dump(mode="json")} if costs else {})


def training_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a configuration training depends on; what comes after it may differ."""
    # Configurations of earlier versions lack the keys that came later.
    defaults = TrainingConfig().model_dump(mode="json")  # type: ignore[call-arg]
    training = {**defaults, **config.get("training", {})}
    training["early_stopping"] = {**defaults["early_stopping"], **training["early_stopping"]}
    # Where else its measures are sent changes nothing.
    del training["report_to"]
    part = {
        "backend": "causal",
        "objective": ObjectiveConfig().model_dump(mode="json"),  # type: ignore[call-arg]
        **config,
        "training": training,
    }
    others = {"baseline", "encoder", "remote"} - {part["backend"]}
    kept = {key: value for key, value in part.items() if key not in {*_LATER, *others}}
    if training["early_stopping"]["metric"] == "mean_set_size":
        # The one thing of later that then chooses the best checkpoint.
        kept["conformal"] = {"alpha": part["conformal"]["alpha"]}
    return kept


def _finished(run: ArtifactStore, identity: Mapping[str, Any]) -> TrainReport | None:
    """Return the report of this very training, if it has ended."""
    if not run.exists("training_metrics.json") or not run.exists("manifest.json"):
        return None
    ended = _identity(
        run.read_yaml("config.yaml"),
        LabelsFile.model_validate(run.read_yaml("labels.yaml")),
        run.read_json("manifest.json").get("prepared"),
    )
    if ended != identity:
        return None
    document = run.read_json("training_metrics.json")
    outcome = {key: value for key, value in document.items() if key not in ("version", "run")}
    return TrainReport(run.folder, TrainingOutcome(**outcome))


def _check_begun(run: ArtifactStore, identity: Mapping[str, Any], *, resume: bool) -> None:
    """Check that an interrupted training is to be gone on with, and can be."""
    where = str(run.folder / CHECKPOINTS)
    otherwise = "choose another name (--set name=...), or delete this folder to begin again"
    if not resume:
        raise InvalidInput(
            "an interrupted training is here, and would be lost",
            where=where,
            remedy=f"go on with --resume, {otherwise}",
        )
    begun = run.read_json(BEGUN).get("identity", {})
    if begun.get("rows") != identity["rows"]:
        raise IntegrityError(
            "the rows were prepared anew since this training began: it may have learnt rows now held out",
            where=where,
            remedy=f"prepare the data as they were, {otherwise}",
        )
    before, now = training_part(begun.get("config", {})), identity["config"]
    changed = [key for key in now if before.get(key) != now[key]]
    if changed:
        raise InvalidInput(
            f"the interrupted training was configured differently: {', '.join(changed)}",
            where=where,
            seen={key: now[key] for key in changed},
            remedy=f"set the values back, {otherwise}",
        )
    if begun.get("costs") != identity.get("costs"):
        raise InvalidInput(
            "the interrupted training minimises the expected cost, and the costs have changed since it began",
            where=where,
            seen=identity["costs"],
            remedy=f"set them back in the labels file, {otherwise}",
        )
