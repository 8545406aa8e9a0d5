"""A trained run in memory, over a model whose posterior is known."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from tests.fake_models import FakeModels, draw_rows
from tests.fakes import FakeClock, FakeProgress, MemoryStore, MemoryStores

from finetune.application.calibrate import Calibrate
from finetune.application.certificate import Certificate
from finetune.application.config import ProjectConfig
from finetune.application.evaluate import Evaluate
from finetune.application.evaluation import EvaluationReport
from finetune.application.labels_file import LabelsFile
from finetune.application.prepared import preparation_facts, split_hashes

SIZES = {"train": 3, "validation": 400, "calibration": 1200, "test": 1000}


class PlainReport:
    """Renders nothing but the first sentence."""

    def render(self, evaluation: Any) -> str:
        return str(evaluation["summary"][0]["text"])


@dataclass
class World:
    """A prepared and trained project; every use case works on the same memory."""

    config: ProjectConfig
    labels: LabelsFile
    models: FakeModels
    stores: MemoryStores = field(default_factory=MemoryStores)
    progress: FakeProgress = field(default_factory=FakeProgress)
    report: Any = field(default_factory=PlainReport)

    @property
    def run(self) -> MemoryStore:
        return self.stores(self.config.run_folder)

    @property
    def prepared(self) -> MemoryStore:
        return self.stores(self.config.prepared_folder)

    def calibrate(self, **kwargs: Any) -> Certificate:
        return Calibrate(self.models, self.stores, self.progress, FakeClock())(self.config, **kwargs)

    def evaluate(self, **kwargs: Any) -> EvaluationReport:
        case = Evaluate(self.models, self.stores, self.report, self.progress, FakeClock())
        return case(self.config, **kwargs)

    def with_config(self, **sections: Any) -> World:
        document = self.config.model_dump(mode="json")
        for name, values in sections.items():
            document[name] |= values
        return replace(self, config=ProjectConfig.model_validate(document))

    def rewrite(self, split: str, rows: list[dict[str, Any]]) -> None:
        """Replace the rows of a split as if they had been there when the run was trained."""
        self.prepared.write_examples(f"{split}.jsonl", rows)
        _seal(self)


def make_world(
    seed: int = 0,
    *,
    abstention: bool = True,
    sharpness: float = 2.0,
    sizes: dict[str, int] | None = None,
    names: tuple[str, ...] = ("billing", "card", "card_lost"),
    **sections: Any,
) -> World:
    """Return a world whose labels follow the known posterior; the model is too sure by ``sharpness``."""
    labels = LabelsFile.model_validate(
        {
            "task": "Sort the mail",
            "labels": [{"name": name} for name in names],
            "abstain": {"description": "not decidable"} if abstention else None,
            "costs": {"abstain": 0.3, "pairs": {names[0]: {names[1]: 2.0}}},
        }
    )
    document = {"model_id": "owner/base", "name": "first", "data": {"files": ["a.csv"]}, **sections}
    world = World(ProjectConfig.model_validate(document), labels, FakeModels(sharpness=sharpness))
    rng = np.random.default_rng(seed)
    for split, n in {**SIZES, **(sizes or {})}.items():
        rows = draw_rows(labels.label_set().outcomes, n, rng, prefix=f"{split}{seed}")
        world.prepared.write_examples(f"{split}.jsonl", rows)
    for store in (world.prepared, world.run):
        store.write_yaml("labels.yaml", labels.document())
    world.run.write_text("adapter/adapter_model.safetensors", "weights")
    _seal(world)
    return world


def _seal(world: World) -> None:
    world.prepared.seal({"made_for": preparation_facts(world.config)})
    world.run.seal({"seed": 1, "prepared": split_hashes(world.prepared)})
