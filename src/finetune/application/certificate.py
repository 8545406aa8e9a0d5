"""The certificate: what is promised, on which rows it rests, for which model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from finetune.application.certified import (
    CertifiedBatchEffect,
    CertifiedData,
    CertifiedMap,
    CertifiedModel,
    CertifiedProbabilities,
    CertifiedRisk,
    CertifiedScope,
    CertifiedSets,
    InfeasibleRisk,
)
from finetune.application.labels_file import Costs
from finetune.application.ports import ModelIdentity
from finetune.application.settings import Section
from finetune.application.statements import Unit
from finetune.domain.decisions import Guarantee
from finetune.domain.errors import IntegrityError
from finetune.domain.labels import LabelSet, digest

FILE = "calibration.json"
REMEDY = "run `finetune calibrate` again"
_PRUNE = "prediction.prune"


class Certificate(Section):
    """What ``calibration.json`` holds.

    That of a run binds thresholds to one model, adapter, prompt and label set; :meth:`check` refuses any
    other.  That of probabilities from a file binds them to the outcomes alone.  ``batch_effect`` is null
    where no model was run, ``costs`` where none were given: then the likeliest label is the action;
    ``scope`` where nothing is handed over as out of scope.
    """

    version: Literal[2] = 2
    created: str
    task: str
    model: Annotated[CertifiedModel | CertifiedProbabilities, Field(discriminator="kind")]
    label_set_hash: str
    outcomes: tuple[str, ...]
    config_hash: str
    data: CertifiedData
    map: CertifiedMap
    conformal: CertifiedSets
    selective: Annotated[CertifiedRisk | InfeasibleRisk, Field(discriminator="feasible")]
    scope: CertifiedScope | None = None
    batch_effect: CertifiedBatchEffect | None = None
    abstain_on_ambiguous_set: bool
    costs: Costs | None
    not_promised: tuple[str, ...]

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
            The model, adapter, prompt, tokeniser, precision, pruning or label set differs; the message names
            which.  Or the certificate is one of probabilities from a file, which fits no model.
        """
        if isinstance(self.model, CertifiedProbabilities):
            raise IntegrityError(
                "the certificate is one of probabilities from a file, and promises nothing of this model",
                where=FILE,
                remedy=f"{REMEDY} without --probabilities",
            )
        found = asdict(identity)
        differing = [
            name
            for name, key in (
                ("base model", "base_hash"),
                ("adapter", "adapter_hash"),
                ("prompt", "prompt_hash"),
                ("tokeniser or maximum length", "encoder_hash"),
                ("numerical precision", "precision"),
                (_PRUNE, "prune"),
            )
            if getattr(self.model, key) != found[key]
        ]
        if self.label_set_hash != labels.fingerprint() or self.outcomes != labels.outcomes:
            differing.append("label set")
        if differing:
            remedy = REMEDY
            if differing == [_PRUNE]:
                remedy = (
                    f"set it to {self.model.prune:g} (padded batches have 0 whatever it says), or {REMEDY}"
                )
            raise IntegrityError(
                f"the certificate was made for another {' and another '.join(differing)}",
                where=FILE,
                seen=identity.prune if differing == [_PRUNE] else None,
                remedy=remedy,
            )

    @property
    def unit(self) -> Unit:
        """What one row is called."""
        return "message" if isinstance(self.model, CertifiedModel) else "case"

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of the content."""
        return digest(self.document())

    @property
    def statements(self) -> tuple[str, ...]:
        """Everything that is promised, in words."""
        scope = () if self.scope is None else (self.scope.statement,)
        return (self.selective.statement, self.conformal.statement, *scope)

    @property
    def least_evidence(self) -> float:
        """Least label mass that is in scope: −inf where everything is."""
        return -math.inf if self.scope is None or self.scope.least is None else self.scope.least

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
            f"this is no certificate of version 2: {'.'.join(map(str, first['loc']))}: {first['msg']}",
            where=where,
            remedy=f"{REMEDY}, or name the file that it wrote",
        ) from error
