"""The parts of a certificate: what they rest on, and what each of them says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from finetune.application.labels_file import AbstainEntry, LabelEntry
from finetune.application.ports import Inputs
from finetune.application.seen_ids import SeenIds
from finetune.application.settings import Probability, Section

Count = Annotated[int, Field(ge=0)]


class CertifiedModel(Section):
    """What was loaded: names for people, SHA-256 (hex) for machines.

    ``prune`` is the largest share of a text's label mass that its scores leave out; certificates without it
    are of scores that left out nothing.
    """

    kind: Literal["run"] = "run"
    base: str
    base_hash: str
    adapter: str
    adapter_hash: str
    prompt_hash: str
    encoder_hash: str
    precision: str
    prune: float = Field(0.0, ge=0.0, lt=1.0)


class CertifiedBatchEffect(Section):
    """How far scores of a row moved, by rounding, when it was scored alone and not among others.

    ``log_probability`` is the largest difference of an outcome's log-probability in nats, among outcomes of
    at least 0.1 %; ``total_variation`` that of the probabilities of a row.  Both before the map.
    """

    rows: Count
    log_probability: float = Field(ge=0.0)
    total_variation: float = Field(ge=0.0, le=1.0)


class CertifiedProbabilities(Section):
    """Probabilities of a model that was never loaded: nothing but the columns ties a certificate to it.

    ``inputs``, ``label`` and ``id`` say how the files of calibration rows were read; those that come later
    are read in the same way unless something else is asked for.  ``decimals`` says to how many the
    calibration rows are rounded, null where they count as exact: it decides what a 0 is read as.
    """

    kind: Literal["probabilities"] = "probabilities"
    source: str
    inputs: Inputs
    decimals: Count | None
    label: str
    id: str
    labels: tuple[LabelEntry, ...]
    abstain: AbstainEntry | None


class CertifiedData(Section):
    """The rows that were used: hashes of the files, counts, and the seed of their division.

    Where the validation rows are a part of the calibration file both hashes are equal.  ``ids`` is null for
    the rows of a run, whose splits are disjoint by the manifest, and for files without ids.
    """

    validation_hash: str
    calibration_hash: str
    validation_rows: Count
    conformal_rows: Count
    selective_rows: Count
    seed: int
    ids: SeenIds | None = None


class MapCandidate(Section):
    """A map that stood for choice, with its cross-validated log loss; null where it has none."""

    kind: str
    log_loss: float | None
    failure: str | None


class CertifiedMap(Section):
    """The map from the model's probabilities to calibrated ones.

    ``parameters`` is the record of the fitted map.  Log losses are in nats on the ``n`` validation rows;
    null where there are none, or where a right outcome had the probability 0.  ``candidates`` is empty
    unless the map was chosen by cross-validation.
    """

    kind: str
    parameters: Mapping[str, Any]
    n: Count
    log_loss_before: float | None
    log_loss_after: float | None
    note: str | None = None
    candidates: tuple[MapCandidate, ...] = ()


class CertifiedSets(Section):
    """Prediction sets: ``threshold`` null means that every set holds every outcome."""

    method: str
    options: Mapping[str, float]
    alpha: Probability
    n: Count
    rank: Count
    threshold: float | None
    expected_coverage: float
    coverage_low: float
    coverage_high: float
    covers_everything: bool
    statement: str


class CertifiedScope(Section):
    """Messages that are handed over as being about no label: those with less evidence than ``least``.

    Evidence is the ``label_mass`` of a row's scores, and ``least`` the calibration score of that ``rank``;
    null where there are too few rows to hand over any.
    """

    share: Probability
    n: Count
    rank: Count
    least: float | None
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
