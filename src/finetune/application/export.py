"""Export: a run to plain weights, with a certificate of their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from finetune.application.backends import open_exporter
from finetune.application.calibrate import certify_model
from finetune.application.config import ProjectConfig
from finetune.application.ports import ArtifactStore, BackendOpener, Clock, ModelOpener, Progress, StoreOpener
from finetune.application.prompting import build_prompt
from finetune.application.runs import MERGED, at_merged, open_prepared, open_run
from finetune.application.training_metrics import measures_of
from finetune.domain.checks import FloatArray
from finetune.domain.errors import InvalidInput

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how far the merged weights are from base and adapter.

    Parameters
    ----------
    model
        Folder with the plain model.
    run
        Folder with its certificate, for ``finetune predict --run``.
    precision
        Of the weights.
    rows
        Calibration rows that were scored.
    adapter, merged
        Log loss, accuracy, ECE and more on these rows, before the map.
    largest_difference
        Of a probability between the two.
    statements
        What is promised of the merged weights.
    """

    model: Path
    run: Path
    precision: Precision
    rows: int
    adapter: dict[str, float]
    merged: dict[str, float]
    largest_difference: float
    statements: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "version": 1,
            "model": str(self.model),
            "run": str(self.run),
            "precision": self.precision,
            "rows": self.rows,
            "adapter": self.adapter,
            "merged": self.merged,
            "largest_difference": self.largest_difference,
            "statements": list(self.statements),
        }


@dataclass(frozen=True)
class Export:
    """Merges the adapter of a calibrated run into its base model, and certifies what comes of it.

    Parameters
    ----------
    backends, models, stores, progress, clock
        The ports it works through.
    """

    backends: BackendOpener
    models: ModelOpener
    stores: StoreOpener
    progress: Progress
    clock: Clock

    def __call__(self, config: ProjectConfig, folder: Path, precision: Precision = "fp32") -> ExportReport:
        """Write the model into a folder, and its run with a new certificate into ``runs/`` there.

        The old certificate does not hold for the merged weights, which round otherwise: they are scored on
        the same held-out rows and certified anew.  The folder appears when all of that went well.

        Parameters
        ----------
        config
            The configuration of the run.
        folder
            Must not exist.
        precision
            Of the merged weights, and of everything that is done with them.

        Raises
        ------
        InvalidInput
            The run was not calibrated or is of a kind that cannot be merged, or the folder is there already.
        InfeasibleGuarantee
            The error rate cannot be promised of the merged weights, and ``risk.on_infeasible`` is ``error``.
        IntegrityError
            The run or its data are not what training saw.
        """
        place, partial = self.stores(folder.parent), folder.with_name(f".{folder.name}.partial")
        if place.exists(folder.name):
            raise InvalidInput(
                "this is there already, and export overwrites nothing",
                where=str(folder),
                remedy="name another folder, or remove it",
            )
        exporter = open_exporter(self.backends, config.backend)
        run = open_run(config, self.stores)
        if run.store.exists(MERGED):
            raise InvalidInput(
                "this run is merged already",
                where=str(run.store.folder),
                remedy="copy its model folder, or export the run that it was made from",
            )
        certificate = run.certificate()
        prepared = open_prepared(run, self.stores)
        training = config.training.model_copy(update={"bf16": precision == "bf16"})
        settings = config.model_copy(update={"training": training})
        place.remove(partial.name)
        prompt = build_prompt(config.prompt, run.labels)
        self.progress.say(f"merging the adapter into {config.model_id} in {precision}")
        exporter.export(settings, run.labels, prompt, run.store.folder / "adapter", partial)
        model = self.models.open(at_merged(settings, partial), run.labels, prompt, None)
        self.progress.say(model.notice)
        found = certify_model(
            settings, run.labels, prepared, model, certificate.costs, self.progress, self.clock
        )
        # Named after what it was made of, not after the folder where it lay for a moment.
        named = found.certificate.model.model_copy(update={"base": config.model_id})
        found = found._replace(certificate=found.certificate.model_copy(update={"model": named}))
        before = _saved_scores(run.store)
        after, truth = found.calibration.scores.log_probabilities, found.calibration.truth
        moved = settings.model_copy(update={"artifacts": folder})
        new = self.stores(partial / "runs" / config.name)
        new.write_yaml("config.yaml", moved.model_dump(mode="json"))
        new.write_yaml("labels.yaml", run.labels_file.document())
        new.write_json(MERGED, {"version": 1, "model": "../.."})
        if run.store.exists("training_metrics.json"):
            new.write_json("training_metrics.json", run.store.read_json("training_metrics.json"))
        found.write(new)
        new.seal({"created": self.clock.now(), "prepared": run.store.read_json("manifest.json")["prepared"]})
        open_run(moved.model_copy(update={"artifacts": partial}), self.stores).finish()
        self.stores(partial).publish(folder)
        return ExportReport(
            model=folder,
            run=folder / "runs" / config.name,
            precision=precision,
            rows=len(truth),
            adapter=measures_of(config)(before, truth),
            merged=measures_of(config)(after, truth),
            largest_difference=float(np.abs(np.exp(before) - np.exp(after)).max()),
            statements=found.certificate.statements,
        )


def _saved_scores(store: ArtifactStore) -> FloatArray:
    """Return the log-probabilities that the run's own calibration wrote down."""
    store.verify("scores_calibration.jsonl")
    return np.array([row["log_probabilities"] for row in store.read_rows("scores_calibration.jsonl")])
