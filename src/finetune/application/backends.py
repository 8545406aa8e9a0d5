"""Work that goes to the backend of a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finetune.application.config import ProjectConfig
from finetune.application.ports import (
    BackendOpener,
    DecisionModel,
    MetricsLog,
    ModelExporter,
    Progress,
    PromptEncoder,
    TrainingJob,
    TrainingOutcome,
)
from finetune.domain.errors import InvalidInput
from finetune.domain.labels import LabelSet
from finetune.domain.prompts import PromptFormat


@dataclass(frozen=True)
class BackendTrainer:
    """The :class:`~finetune.application.ports.Trainer` of whatever backend a job asks for."""

    backends: BackendOpener

    def train(self, job: TrainingJob, log: MetricsLog, progress: Progress) -> TrainingOutcome:
        """Train with the backend of the job's configuration."""
        return self.backends(job.config.backend).trainer().train(job, log, progress)


@dataclass(frozen=True)
class BackendModels:
    """The :class:`~finetune.application.ports.ModelOpener` of whatever backend a configuration names."""

    backends: BackendOpener

    def open(
        self, config: ProjectConfig, labels: LabelSet, prompt: PromptFormat, adapter: Path | None
    ) -> DecisionModel:
        """Open a run with the backend of its configuration."""
        return self.backends(config.backend).models().open(config, labels, prompt, adapter)


@dataclass(frozen=True)
class BackendEncoders:
    """The :class:`~finetune.application.ports.EncoderOpener` of whatever backend a configuration names."""

    backends: BackendOpener

    def __call__(self, config: ProjectConfig, labels: LabelSet, prompt: PromptFormat) -> PromptEncoder:
        """Open the encoder of the configuration's backend."""
        return self.backends(config.backend).encoders()(config, labels, prompt)


def open_exporter(backends: BackendOpener, name: str) -> ModelExporter:
    """Return the exporter of a backend.

    Raises
    ------
    InvalidInput
        Its models cannot be exported.
    """
    offered = getattr(backends(name), "exporter", None)
    if offered is None:
        raise InvalidInput(
            f"models of the {name} backend cannot be exported",
            where="backend",
            seen=name,
            remedy="export a run of the causal backend",
        )
    found: ModelExporter = offered()
    return found
