"""Files of probabilities in memory, drawn from a posterior that is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.fakes import FakeClock, FakeProbabilities, FakeProgress, MemorySinks, MemoryStores
from tests.unit.application.world import PlainReport

from finetune.application.calibrate_probabilities import CalibrateProbabilities
from finetune.application.certificate import Certificate
from finetune.application.evaluate_probabilities import EvaluateProbabilities
from finetune.application.evaluation import EvaluationReport
from finetune.application.labels_file import LabelsFile
from finetune.application.ports import ProbabilityFile
from finetune.application.predict import PredictReport
from finetune.application.predict_probabilities import PredictProbabilities
from finetune.application.settings import GuaranteeConfig

NAMES = ("emergency", "routine", "refill")
CERTIFICATE, EVALUATION = Path("out/calibration.json"), Path("out/evaluation.json")
DECISIONS = Path("out/decisions.jsonl")


@dataclass
class ProbabilityWorld:
    """Every use case works on the same memory; the model is twice as sure as it should be."""

    seed: int = 0
    names: tuple[str, ...] = NAMES
    source: FakeProbabilities = field(default_factory=FakeProbabilities)
    stores: MemoryStores = field(default_factory=MemoryStores)
    sinks: MemorySinks = field(default_factory=MemorySinks)
    progress: FakeProgress = field(default_factory=FakeProgress)
    report: Any = field(default_factory=PlainReport)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def draw(self, n: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return what the model claims, shape (n, K), and columns of the truth."""
        logits = self.rng.normal(0.0, 2.0, (n, len(self.names)))
        p = softmax(logits)
        truth = (p.cumsum(axis=1) > self.rng.random((n, 1))).argmax(axis=1)
        return softmax(2.0 * logits), truth

    def add(self, name: str, n: int, **changes: Any) -> Path:
        """Store a file of n rows; ``changes`` replace columns or, where None, take them away."""
        claimed, truth = self.draw(n)
        table: dict[str, Any] = {
            "id": [f"{name}-{i}" for i in range(n)],
            "label": [self.names[column] for column in truth],
            **dict(zip(self.names, claimed.T.tolist(), strict=True)),
        }
        return self.put(name, {key: item for key, item in (table | changes).items() if item is not None})

    def put(self, name: str, table: dict[str, Any]) -> Path:
        """Store a file of these columns."""
        path = Path("in") / name
        self.source.tables[str(path)] = table
        self.stores.files[str(path)] = repr(table)
        return path

    def calibrate(
        self,
        path: Path,
        *,
        validation: Path | None = None,
        labels: LabelsFile | None = None,
        output: Path = CERTIFICATE,
        file: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Certificate:
        use_case = CalibrateProbabilities(self.source, self.stores, self.progress, FakeClock())
        config = GuaranteeConfig.model_validate({"risk": {"level": 0.2}, **settings})
        asked = ProbabilityFile(path, **(file or {}))
        return use_case(config, asked, output, validation=validation, labels=labels)

    def evaluate(self, path: Path, **options: Any) -> EvaluationReport:
        use_case = EvaluateProbabilities(self.source, self.stores, self.report, self.progress, FakeClock())
        return use_case(CERTIFICATE, path, options.pop("output", EVALUATION), **options)

    def predict(self, path: Path, output: Path = DECISIONS, **options: Any) -> PredictReport:
        use_case = PredictProbabilities(self.source, self.stores, self.sinks, self.progress)
        return use_case(CERTIFICATE, path, output, **options)


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    p: NDArray[np.float64] = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)
