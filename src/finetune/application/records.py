"""From rulings to decision records, whoever asked for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from finetune.application.certificate import Certificate
from finetune.application.certified import CertifiedModel
from finetune.application.decision_rule import Rulings
from finetune.domain.checks import FloatArray
from finetune.domain.decisions import DecisionRecord, ModelReference

NOT_OURS = "probabilities from a file"
"""What stands for the base model where no model was loaded."""


def build_records(
    certificate: Certificate,
    ids: Sequence[str],
    rulings: Rulings,
    *,
    label_mass: FloatArray | None = None,
    left_out: FloatArray | None = None,
    rationales: Sequence[str | None] | None = None,
) -> list[DecisionRecord]:
    """Return one record per row.

    Parameters
    ----------
    certificate
        Whose rule ruled.
    ids
        n names.
    rulings
        Of the same n rows.
    label_mass, left_out
        Shape (n,): see :class:`finetune.application.ports.LabelScores`; None where they are not known.
    rationales
        n texts or None.
    """
    outcomes = certificate.outcomes
    guarantees = {answered: certificate.guarantee(answered=answered) for answered in (True, False)}
    model = reference(certificate)
    probabilities = np.exp(rulings.log_probabilities)
    costs = rulings.expected_cost
    return [
        DecisionRecord(
            id=name,
            decision=rulings.decisions[i],
            abstain=rulings.reasons[i] != "none",
            abstain_reason=rulings.reasons[i],
            confidence=float(rulings.confidence[i]),
            probabilities=dict(zip(outcomes, probabilities[i].tolist(), strict=True)),
            label_mass=None if label_mass is None else float(label_mass[i]),
            left_out=None if left_out is None else float(left_out[i]),
            prediction_set=tuple(
                outcome for outcome, held in zip(outcomes, rulings.sets[i], strict=True) if held
            ),
            expected_cost=None if costs is None else float(costs[i]),
            rationale=None if rationales is None else rationales[i],
            guarantee=guarantees[rulings.reasons[i] == "none"],
            model=model,
        )
        for i, name in enumerate(ids)
    ]


def reference(certificate: Certificate) -> ModelReference:
    """Return which model a record comes from."""
    model = certificate.model
    if isinstance(model, CertifiedModel):
        return ModelReference(
            base=model.base, adapter=model.adapter or None, config_hash=certificate.config_hash
        )
    return ModelReference(base=NOT_OURS, config_hash=certificate.config_hash)
