"""What only one kind of model needs: a section of the configuration for each backend but the causal one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from finetune.application.settings import Section


class EncoderConfig(Section):
    """An encoder with a classification head (``backend: encoder``); ``minilm`` is what an extra installs."""

    model_id: str = Field("minilm", min_length=1)
    revision: str | None = None
    pooling: Literal["mean", "cls"] = "mean"
    head_start: Literal["random", "prototypes"] = "random"
    head_rate: float = Field(1.0, gt=0.0, le=100.0)
    consistency: float = Field(0.0, ge=0.0, le=100.0)


class RemoteConfig(Section):
    """Label probabilities from a running server (``backend: remote``); the key is read from a variable."""

    url: str = Field("http://127.0.0.1:8000", pattern=r"^https?://[^\s/]+(/[^\s]*)?$")
    model: str | None = None
    protocol: Literal["auto", "decisions", "systemone", "completions"] = "auto"
    api_key_variable: str = Field("FINETUNE_API_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    timeout: float = Field(60.0, gt=0.0)
    attempts: int = Field(5, ge=1, le=20)
    backoff: float = Field(0.5, ge=0.0, le=60.0)
    concurrency: int = Field(4, ge=1, le=256)
    max_chars: int = Field(20_000, ge=1)


class BaselineConfig(Section):
    """Logistic regression on hashed character n-grams (``backend: baseline``)."""

    shortest_ngram: int = Field(1, ge=1)
    longest_ngram: int = Field(4, ge=1, le=8)
    features: int = Field(1 << 16, ge=1 << 8, le=1 << 22)
    inverse_regularisation: tuple[Annotated[float, Field(gt=0.0)], ...] = Field(
        (1.0, 10.0, 100.0), min_length=1
    )

    @model_validator(mode="after")
    def _in_order(self) -> BaselineConfig:
        if self.longest_ngram < self.shortest_ngram:
            raise ValueError("longest_ngram must not be less than shortest_ngram")
        return self
