"""Train: prepared examples to a run folder with the best adapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finetune.application.config import ProjectConfig
from finetune.application.labels_file import LabelsFile
from finetune.application.ports import (
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
from finetune.application.runs import open_run
from finetune.domain.errors import InvalidInput

# Bound to an adapter that is no longer there; refused if they were kept, so not kept.
_OF_THE_LAST_ADAPTER = (
    "calibration.json",
    "evaluation.json",
    "report.html",
    "scores_validation.jsonl",
    "scores_calibration.jsonl",
)


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
        self, config: ProjectConfig, labels: LabelsFile | None = None, *, resume: bool = False
    ) -> TrainReport:
        """Train, or go on with an interrupted training.

        What is needed to go on lies in ``checkpoints/`` until training has ended; everything else in the
        run folder stays as it was until then.

        Parameters
        ----------
        config
            The configuration; its prepared folder must have been written for it.
        labels
            The labels file as it is now, to see that it has not changed since; None: not looked at.
        resume
            Go on from the newest complete checkpoint and end exactly as an uninterrupted run would.
            Without a checkpoint training starts at the beginning; a finished training is left as it is.

        Raises
        ------
        InvalidInput
            An interrupted training would be lost, or a resumed one has another configuration.
        IntegrityError
            The prepared data were made for another configuration, or files are damaged.
        """
        prepared = self.stores(config.prepared_folder)
        check_prepared(prepared, config, labels)
        effective = LabelsFile.model_validate(prepared.read_yaml("labels.yaml"))
        run = self.stores(config.run_folder)
        resolved = config.model_dump(mode="json")
        if resume:
            finished = _finished(run, resolved)
            if finished is not None:
                self.progress.say("this training has already ended; nothing is left to do")
                return finished
        elif run.exists(CHECKPOINTS):
            raise InvalidInput(
                "an interrupted training is in this run folder, and would be lost",
                where=str(run.folder),
                remedy="go on with --resume, choose another name (--set name=...), or delete the folder's "
                f"{CHECKPOINTS}",
            )
        label_set = effective.label_set()
        outcome = self.trainer.train(
            TrainingJob(
                config=config,
                labels=label_set,
                prompt=build_prompt(config.prompt, label_set),
                train=read_prepared(prepared, "train"),
                validation=read_prepared(prepared, "validation")[: config.training.max_validation_rows],
                folder=run.folder,
                resume=resume,
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
        open_run(config, self.stores).finish()
        run.remove(CHECKPOINTS)


def _finished(run: ArtifactStore, resolved: Mapping[str, Any]) -> TrainReport | None:
    """Return the report of a training that has ended, after checking that it is the one asked for."""
    if run.exists(f"{CHECKPOINTS}/config.json"):
        _same_training(run.read_json(f"{CHECKPOINTS}/config.json"), resolved)
        return None
    if run.exists(CHECKPOINTS) or not run.exists("training_metrics.json"):
        return None
    _same_training(run.read_yaml("config.yaml"), resolved)
    document = run.read_json("training_metrics.json")
    outcome = {key: value for key, value in document.items() if key not in ("version", "run")}
    return TrainReport(run.folder, TrainingOutcome(**outcome))


def _same_training(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that a resumed run is configured as it was begun; what comes after training may differ."""
    later = {"conformal", "risk", "prediction"}
    changed = [key for key in now if key not in later and before.get(key) != now[key]]
    if changed:
        raise InvalidInput(
            f"the interrupted run was configured differently: {', '.join(changed)}",
            where="--resume",
            seen={key: now[key] for key in changed},
            remedy="set the values back, or train without --resume",
        )
