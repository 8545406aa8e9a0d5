"""A trained run and its held-out rows, as calibration, evaluation and prediction open them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finetune.application import certificate as certificates
from finetune.application.certificate import Certificate, read_certificate
from finetune.application.config import ProjectConfig
from finetune.application.labels_file import LabelsFile
from finetune.application.model_card import render_model_card
from finetune.application.ports import (
    ArtifactStore,
    DecisionModel,
    ModelOpener,
    Progress,
    StoreOpener,
)
from finetune.application.prepared import check_prepared, read_prepared, split_hashes
from finetune.application.prompting import build_prompt
from finetune.application.scored_rows import ScoredRows
from finetune.domain.checks import FloatArray
from finetune.domain.errors import IntegrityError, InvalidInput
from finetune.domain.examples import Example
from finetune.domain.labels import LabelSet

OF_AN_EVALUATION = ("evaluation.json", "report.html", "scores_test.jsonl")
"""What ``evaluate`` writes; it says nothing about another certificate."""

MERGED = "merged.json"
"""Of an exported run: where the model is into which the adapter was merged."""


def at_merged(config: ProjectConfig, folder: Path) -> ProjectConfig:
    """Return a configuration whose base model is one with a merged adapter."""
    return config.model_copy(update={"model_id": str(folder), "revision": None, "tokenizer_id": None})


@dataclass(frozen=True)
class Run:
    """A run folder whose adapter and labels are as training left them."""

    config: ProjectConfig
    store: ArtifactStore
    labels_file: LabelsFile
    labels: LabelSet

    def open_model(self, models: ModelOpener, *, base: bool = False) -> DecisionModel:
        """Load the tuned model, or the base model alone.

        Raises
        ------
        InvalidInput
            The base model of merged weights is asked for, which is not there.
        """
        prompt = build_prompt(self.config.prompt, self.labels)
        if not self.store.exists(MERGED):
            adapter = None if base else self.store.folder / "adapter"
            return models.open(self.config, self.labels, prompt, adapter)
        if base:
            raise InvalidInput(
                "the adapter is merged into the weights, so there is no base model to compare with",
                where=str(self.store.folder),
                remedy="leave out --base, or evaluate the run that was exported",
            )
        folder = (self.store.folder / str(self.store.read_json(MERGED)["model"])).resolve()
        return models.open(at_merged(self.config, folder), self.labels, prompt, None)

    def certificate(self) -> Certificate:
        """Read the certificate; :class:`InvalidInput` where the run was never calibrated."""
        where = str(self.store.folder / certificates.FILE)
        if not self.store.exists(certificates.FILE):
            raise InvalidInput(
                "the run has no certificate, so nothing can be promised of its decisions",
                where=where,
                remedy="run `finetune calibrate` first",
            )
        self.store.verify(certificates.FILE)
        return read_certificate(self.store.read_json(certificates.FILE), where)

    def finish(self) -> None:
        """Write the model card anew and seal the folder, keeping the facts that training put there."""
        documents = {
            name: self.store.read_json(name) if self.store.exists(name) else None
            for name in ("training_metrics.json", certificates.FILE, "evaluation.json")
        }
        self.store.write_text(
            "README.md",
            render_model_card(
                self.config,
                self.labels_file,
                training=documents["training_metrics.json"],
                certificate=documents[certificates.FILE],
                evaluation=documents["evaluation.json"],
            ),
        )
        facts = self.store.read_json("manifest.json")
        facts.pop("files", None)
        self.store.seal(facts)


def open_run(config: ProjectConfig, stores: StoreOpener, folder: Path | None = None) -> Run:
    """Open the run folder of a configuration, or one that lies elsewhere.

    Raises
    ------
    InvalidInput
        The run was not trained.
    IntegrityError
        Its adapter or labels are not what training wrote.
    """
    store = stores(folder or config.run_folder)
    weights = MERGED if store.exists(MERGED) else "adapter"
    if not store.exists(weights):
        raise InvalidInput(
            "the run has no adapter", where=str(store.folder), remedy="run `finetune train` first"
        )
    store.verify(weights, "labels.yaml")
    labels_file = LabelsFile.model_validate(store.read_yaml("labels.yaml"))
    return Run(config, store, labels_file, labels_file.label_set())


def open_prepared(run: Run, stores: StoreOpener) -> ArtifactStore:
    """Open the prepared rows that the run was trained on, and no others.

    Raises
    ------
    IntegrityError
        The rows were prepared anew since: held-out rows of now may be training rows of then.
    """
    prepared = stores(run.config.prepared_folder)
    check_prepared(prepared, run.config)
    trained_on = run.store.read_json("manifest.json").get("prepared")
    if trained_on != split_hashes(prepared):
        raise IntegrityError(
            "the prepared rows are not those that the run was trained on, so that held-out rows may have "
            "been training rows",
            where=str(prepared.folder),
            remedy="train again on the new data, or prepare the data as they were",
        )
    return prepared


def score_split(
    prepared: ArtifactStore, split: str, labels: LabelSet, model: DecisionModel, progress: Progress
) -> ScoredRows:
    """Score every row of a prepared split.

    Raises
    ------
    IntegrityError
        The scorer's outcomes are not those of the label set, or a score is not a finite number.
    """
    if model.scorer.outcomes != labels.outcomes:
        raise IntegrityError(
            "the model scores other outcomes than the label set has",
            seen=model.scorer.outcomes,
            remedy="open the model with the labels of the run",
        )
    examples = read_prepared(prepared, split)
    with progress.task(f"scoring the {split} rows", len(examples)) as task:
        scores = model.scorer.score([example.text for example in examples], task)
    if not np.isfinite(scores.log_probabilities).all():
        row = int(np.flatnonzero(~np.isfinite(scores.log_probabilities).all(axis=1))[0])
        raise IntegrityError(
            "the model gave a row a score that is not a finite number",
            where=f"{split}:{examples[row].id}",
            seen=scores.log_probabilities[row].tolist(),
            remedy="check the adapter and the precision",
        )
    truth = np.array([labels.index(example.label or "") for example in examples], dtype=np.int64)
    ids = [example.id for example in examples]
    return ScoredRows(ids, truth, scores, known_posterior(examples, labels.outcomes))


def known_posterior(examples: Sequence[Example], outcomes: Sequence[str]) -> FloatArray | None:
    """Return the true probabilities that generated rows carry as ``posterior``, shape (n, K).

    None unless every row has a mapping that gives each outcome a number and sums to 1.
    """
    if not examples:
        return None
    rows = []
    for example in examples:
        known = example.metadata.get("posterior")
        if not isinstance(known, Mapping) or not set(outcomes) <= known.keys():
            return None
        rows.append([known[name] for name in outcomes])
    try:
        posterior = np.array(rows, dtype=np.float64)
    except (TypeError, ValueError):
        return None  # a column of this name that holds something else
    sound = np.isfinite(posterior).all() and (posterior >= 0.0).all()
    return posterior if sound and np.allclose(posterior.sum(axis=1), 1.0, atol=1e-6) else None
