"""Kinds of models: what trains them, opens them and shows their input."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from finetune.application.config import ProjectConfig
from finetune.application.ports.models import EncoderOpener, ModelOpener
from finetune.application.ports.training import Trainer
from finetune.domain.labels import LabelSet
from finetune.domain.prompts import PromptFormat


class Backend(Protocol):
    """One kind of model, chosen by ``backend`` in the configuration.

    The three belong together: what the trainer leaves in ``adapter/`` of a run the opener loads, and the
    encoder shows what both of them read.  Each is built where it is asked for, so that a command loads what
    it uses.
    """

    def trainer(self) -> Trainer:
        """Return what tunes a model of this kind."""

    def models(self) -> ModelOpener:
        """Return what loads a trained run."""

    def encoders(self) -> EncoderOpener:
        """Return what shows which input the model gets."""


class ModelExporter(Protocol):
    """Writes a tuned model as one that needs nothing of ours.  A backend may offer it as ``exporter()``."""

    def export(
        self, config: ProjectConfig, labels: LabelSet, prompt: PromptFormat, adapter: Path, folder: Path
    ) -> None:
        """Merge the adapter into its base model, in the precision of the configuration; write it."""


class BackendOpener(Protocol):
    """Finds backends by name."""

    def __call__(self, name: str) -> Backend:
        """Return a backend; raises :class:`InvalidInput` for an unknown name, or :class:`MissingExtra`."""
