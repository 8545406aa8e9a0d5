"""The certificate of a calibrated run: what is promised, on which rows it rests, for which model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from finetune.application.config import Probability, Section
from finetune.application.labels_file import Costs
from finetune.application.ports import ModelIdentity
from finetune.application.statements import NOT_PROMISED
from finetune.domain.decisions import Guarantee
from finetune.domain.errors import IntegrityError
from finetune.domain.labels import LabelSet, digest

FILE = "calibration.json"
REMEDY = "run `finetune calibrate` again"

Count = Annotated[int, Field(ge=0)]


class CertifiedModel(Section):
    """What was loaded: names for people, SHA-256 (hex) for machines."""

    base: str
    base_hash: str
    adapter: str
    adapter_hash: str
    prompt_hash: str
    encoder_hash: str
    precision: str


class CertifiedData(Section):
    """The rows that were used: hashes of the files, counts, and the seed that halved the calibration rows."""

    validation_hash: str
    calibration_hash: str
    validation_rows: Count
    conformal_rows: Count
    selective_rows: Count
    seed: int


class CertifiedTemperature(Section):
    """The temperature; log losses are in nats on the ``n`` validation rows, null where ``n`` is 0."""

    value: float = Field(gt=0.0)
    n: Count
    log_loss_before: float | None
    log_loss_after: float | None
    note: str | None = None


class CertifiedSets(Section):
    """Prediction sets: ``threshold`` null means that every set holds every outcome."""

    method: str
    alpha: Probability
    n: Count
    rank: Count
    threshold: float | None
    expected_coverage: float
    coverage_low: float
    coverage_high: float
    covers_everything: bool
    statement: str


class CertifiedRisk(Section):
    """Error among answered: ``threshold`` is in log-odds, null where every eligible row is answered."""

    feasible: Literal[True] = True
    level: Probability
    delta: Probability
    n: Count
    threshold: float | None
    confidence: float | None = Field(ge=0.0, le=1.0)
    answered: Count
    errors: Count
    upper_bound: float = Field(ge=0.0, le=1.0)
    statement: str


class InfeasibleRisk(Section):
    """Why no error can be promised with these rows; under it everything is handed over."""

    feasible: Literal[False] = False
    level: Probability
    delta: Probability
    n: Count
    reason: str
    needed: Count | None
    statement: str


class Certificate(Section):
    """What ``calibration.json`` holds.

    It binds thresholds to one model, adapter, prompt and label set; :meth:`check` refuses any other.
    """

    version: Literal[1] = 1
    created: str
    task: str
    model: CertifiedModel
    label_set_hash: str
    outcomes: tuple[str, ...]
    config_hash: str
    data: CertifiedData
    temperature: CertifiedTemperature
    conformal: CertifiedSets
    selective: Annotated[CertifiedRisk | InfeasibleRisk, Field(discriminator="feasible")]
    abstain_on_ambiguous_set: bool
    costs: Costs
    not_promised: tuple[str, ...] = NOT_PROMISED

    def check(self, identity: ModelIdentity, labels: LabelSet) -> None:
        """Refuse anything but what was certified.

        Parameters
        ----------
        identity
            What was loaded.
        labels
            The label set in use.

        Raises
        ------
        IntegrityError
            The model, adapter, prompt, tokeniser, precision or label set differs; the message names which.
        """
        found = asdict(identity)
        differing = [
            name
            for name, key in (
                ("base model", "base_hash"),
                ("adapter", "adapter_hash"),
                ("prompt", "prompt_hash"),
                ("tokeniser or maximum length", "encoder_hash"),
                ("numerical precision", "precision"),
            )
            if getattr(self.model, key) != found[key]
        ]
        if self.label_set_hash != labels.fingerprint() or self.outcomes != labels.outcomes:
            differing.append("label set")
        if differing:
            raise IntegrityError(
                f"the certificate was made for another {' and another '.join(differing)}",
                where=FILE,
                remedy=REMEDY,
            )

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of the content."""
        return digest(self.document())

    @property
    def statements(self) -> tuple[str, ...]:
        """Everything that is promised, in words."""
        return (self.selective.statement, self.conformal.statement)

    @property
    def risk_threshold(self) -> float:
        """Least log-odds that is answered: −inf answers every eligible row, +inf none."""
        if isinstance(self.selective, InfeasibleRisk):
            return math.inf
        return -math.inf if self.selective.threshold is None else self.selective.threshold

    def guarantee(self, *, answered: bool) -> Guarantee:
        """Return what stands behind one decision: the bound of an answer, or the set of an abstention."""
        if answered and isinstance(self.selective, CertifiedRisk):
            risk = self.selective
            return Guarantee(
                kind="selective_risk",
                alpha=risk.level,
                delta=risk.delta,
                n_calibration=risk.n,
                statement=risk.statement,
                certificate=self.hash,
            )
        return Guarantee(
            kind="split_conformal",
            alpha=self.conformal.alpha,
            n_calibration=self.conformal.n,
            statement=self.conformal.statement,
            certificate=self.hash,
        )

    def document(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return self.model_dump(mode="json")


def read_certificate(document: Mapping[str, Any], where: str) -> Certificate:
    """Read a certificate; :class:`IntegrityError` where it is damaged or of another version."""
    try:
        return Certificate.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise IntegrityError(
            f"this is no certificate of version 1: {'.'.join(map(str, first['loc']))}: {first['msg']}",
            where=where,
            remedy=REMEDY,
        ) from error
