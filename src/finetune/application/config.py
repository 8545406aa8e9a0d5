"""What ``configs/llm_lora.yaml`` may say: pydantic models, frozen, unknown keys forbidden.

Paths are relative to the working directory, which is the root of the user's project.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from finetune.application.backend_settings import BaselineConfig, EncoderConfig, RemoteConfig
from finetune.application.metric_choice import Metric, why_not_measured
from finetune.application.objective_settings import (
    AbstentionLoss,
    ChosenObjective,
    ObjectiveConfig,
    resolve_objective,
)
from finetune.application.settings import CalibrationConfig, ConformalConfig, RiskConfig, Section

SplitName = Literal["train", "validation", "calibration", "test"]

# Model names that people's notes carry, and what they most likely meant.
MISSPELT_MODELS = {
    # Some notes call this one GLM-4.5-Air, which is another model.
    "zhipu-ai/glm-4-9b-chat": ("zai-org/glm-4-9b-chat-hf", "zai-org/GLM-4-9B-0414"),
    "zhipuai/glm-4-9b-chat": ("zai-org/glm-4-9b-chat-hf", "zai-org/GLM-4-9B-0414"),
    "zhipu-ai/glm-4.5-air": ("zai-org/GLM-4.5-Air",),
    "zhipuai/glm-4.5-air": ("zai-org/GLM-4.5-Air",),
    "thudm/glm-4-9b-chat": ("zai-org/glm-4-9b-chat-hf",),
    "thudm/glm-4-9b-chat-hf": ("zai-org/glm-4-9b-chat-hf",),
    "thudm/glm-4-9b-0414": ("zai-org/GLM-4-9B-0414",),
    "qwen/qwen-2.5-7b": ("Qwen/Qwen2.5-7B",),
    "qwen/qwen-2.5-7b-instruct": ("Qwen/Qwen2.5-7B-Instruct",),
}


class Columns(Section):
    """Which column of the input holds what; every other column is kept as metadata."""

    id: str | None = "id"
    text: str = "text"
    label: str = "label"
    rationale: str | None = "rationale"
    split: str | None = "split"


class DataFile(Section):
    """One input file; ``split`` pins all of its rows to one split."""

    path: Path
    split: SplitName | None = None


def _as_data_file(value: object) -> object:
    return {"path": value} if isinstance(value, str | Path) else value


class SplitFractions(Section):
    """Shares of the rows that no file or column pins to a split; they sum to 1."""

    train: float = Field(0.6, ge=0.0, le=1.0)
    validation: float = Field(0.1, ge=0.0, le=1.0)
    calibration: float = Field(0.2, ge=0.0, le=1.0)
    test: float = Field(0.1, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _sum_to_one(self) -> SplitFractions:
        total = self.train + self.validation + self.calibration + self.test
        if abs(total - 1.0) > 1e-9:
            raise ValueError(f"the four shares must sum to 1; they sum to {total:g}")
        return self


class DataConfig(Section):
    """Where the labelled texts come from and how they are divided."""

    files: tuple[Annotated[DataFile, BeforeValidator(_as_data_file)], ...] = Field(min_length=1)
    columns: Columns = Columns()
    on_bad_row: Literal["error", "skip"] = "error"
    max_text_chars: int = Field(50_000, ge=1)
    split: SplitFractions = SplitFractions()  # type: ignore[call-arg]
    near_duplicate_threshold: float | None = Field(0.85, gt=0.0, le=1.0)
    seed: int = Field(0, ge=0)


class PromptConfig(Section):
    """The instruction; ``null`` means the text built from the label set."""

    system: str | None = None
    template: str = "{text}"
    list_labels: bool = True
    descriptions: bool = True


class LoraConfig(Section):
    """Low-rank adaptation (Hu et al. 2021): W + alpha/r · BA."""

    r: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0.0)
    dropout: float = Field(0.1, ge=0.0, lt=1.0)


class EarlyStopping(Section):
    """Stop when the metric has not improved by ``min_delta`` for ``patience`` evaluations.

    The metric chooses the best checkpoint, stopping or not.
    """

    enabled: bool = True
    metric: Metric = "log_loss"
    patience: int = Field(3, ge=1)
    min_delta: float = Field(0.0, ge=0.0)


class TrainingConfig(Section):
    """How the adapter is trained."""

    learning_rate: float = Field(2e-4, gt=0.0)
    per_device_batch_size: int = Field(4, ge=1)
    gradient_accumulation_steps: int = Field(4, ge=1)
    token_tree: bool | Literal["auto"] = "auto"
    tree_tokens: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    epochs: float = Field(3.0, gt=0.0)
    max_steps: int | None = Field(None, ge=1)
    max_length: int = Field(2048, ge=16)
    warmup: float = Field(0.03, ge=0.0, lt=1.0)
    lr_scheduler: Literal[
        "cosine",
        "cosine_with_restarts",
        "linear",
        "polynomial",
        "inverse_sqrt",
        "constant",
        "constant_with_warmup",
        "reduce_lr_on_plateau",
    ] = "cosine"
    weight_decay: float = Field(0.0, ge=0.0)
    max_grad_norm: float = Field(1.0, gt=0.0)
    class_weights: Literal["none", "balanced"] | dict[str, Annotated[float, Field(ge=0.0)]] = "none"
    sampling: Literal["shuffled", "balanced"] = "shuffled"
    bf16: bool | Literal["auto"] = "auto"
    gradient_checkpointing: bool = False
    early_stopping: EarlyStopping = EarlyStopping()  # type: ignore[call-arg]
    evaluations_per_epoch: int = Field(2, ge=1)
    max_validation_rows: int | None = Field(None, ge=1)
    json_samples: int = Field(16, ge=0)
    logging_steps: int = Field(10, ge=1)
    save_total_limit: int = Field(2, ge=1)
    report_to: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = ()
    seed: int = Field(42, ge=0)

    @model_validator(mode="after")
    def _balanced_once(self) -> TrainingConfig:
        if self.class_weights == "balanced" and self.sampling == "balanced":
            raise ValueError(
                "class_weights and sampling both balance the labels, so rare ones would count twice over; "
                "choose one"
            )
        return self


class CalibrationMonitoring(Section):
    """Lower the learning rate where the calibration error rises over the best so far, and not by chance.

    What is measured does not depend on it.
    """

    enabled: bool = False
    adjustment_threshold: float = Field(0.05, gt=0.0, le=1.0)
    lr_reduction_factor: float = Field(0.8, gt=0.0, le=1.0)


class PredictionConfig(Section):
    """How labels are scored and rationales written."""

    batch_size: int = Field(16, ge=1)
    prune: float = Field(1e-6, ge=0.0, le=0.01)
    rationale: bool = False
    max_rationale_tokens: int = Field(64, ge=1)


class ProjectConfig(Section):
    """One run, from raw rows to decisions."""

    version: Literal[1] = 1
    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    backend: str = Field("causal", pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,49}$")
    model_id: str = ""
    revision: str | None = None
    tokenizer_id: str | None = None
    trust_remote_code: bool = False
    target_modules: Literal["auto"] | tuple[str, ...] = "auto"
    labels: Path = Path("configs/labels.yaml")
    artifacts: Path = Path("artifacts")
    data: DataConfig
    prompt: PromptConfig = PromptConfig()
    lora: LoraConfig = LoraConfig()  # type: ignore[call-arg]
    training: TrainingConfig = TrainingConfig()  # type: ignore[call-arg]
    objective: ObjectiveConfig = ObjectiveConfig()  # type: ignore[call-arg]
    abstention_loss: AbstentionLoss = AbstentionLoss()  # type: ignore[call-arg]
    calibration_monitoring: CalibrationMonitoring = CalibrationMonitoring()  # type: ignore[call-arg]
    calibration: CalibrationConfig = CalibrationConfig()
    conformal: ConformalConfig = ConformalConfig()  # type: ignore[call-arg]
    risk: RiskConfig = RiskConfig()
    prediction: PredictionConfig = PredictionConfig()  # type: ignore[call-arg]
    encoder: EncoderConfig = EncoderConfig()  # type: ignore[call-arg]
    remote: RemoteConfig = RemoteConfig()  # type: ignore[call-arg]
    baseline: BaselineConfig = BaselineConfig()  # type: ignore[call-arg]

    @model_validator(mode="after")
    def _known_model(self) -> ProjectConfig:
        if self.backend == "causal" and not self.model_id:
            raise ValueError("model_id is missing: the base model that the causal backend tunes")
        right = MISSPELT_MODELS.get(self.model_id.lower())
        if right is not None and self.model_id not in right:
            raise ValueError(
                f"model_id {self.model_id!r} is an old or misspelt name; the model is {' or '.join(right)}"
            )
        return self

    @model_validator(mode="after")
    def _objective_is_one(self) -> ProjectConfig:
        resolve_objective(self.backend, self.objective, self.abstention_loss)
        return self

    @model_validator(mode="after")
    def _metric_is_measured(self) -> ProjectConfig:
        training = self.training
        problem = why_not_measured(training.early_stopping.metric, self.backend, training.json_samples)
        if problem is not None:
            raise ValueError(f"training.early_stopping.metric: {problem}")
        return self

    @property
    def chosen_objective(self) -> ChosenObjective:
        """The objective that training minimises, and its share of the loss."""
        return resolve_objective(self.backend, self.objective, self.abstention_loss)

    @property
    def prepared_folder(self) -> Path:
        """Where ``prepare`` writes the instruction data."""
        return self.artifacts / "data" / self.name

    @property
    def run_folder(self) -> Path:
        """Where ``train`` and everything after it write."""
        return self.artifacts / "runs" / self.name


def is_hub_id(model_id: str) -> bool:
    """Whether a model id has the shape ``owner/name`` of a hub id.

    Examples
    --------
    >>> is_hub_id("Qwen/Qwen2.5-7B"), is_hub_id("./models/mine")
    (True, False)
    """
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", model_id) is not None
