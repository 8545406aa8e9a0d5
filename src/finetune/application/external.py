"""Certificates of probabilities that come from files: opening them, and what may be held against them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from finetune.application import certificate as certificates
from finetune.application.certificate import Certificate, read_certificate
from finetune.application.certified import CertifiedProbabilities
from finetune.application.labels_file import LabelsFile
from finetune.application.ports import (
    Inputs,
    ProbabilityFile,
    ProbabilityRows,
    Progress,
    StoreOpener,
)
from finetune.application.probability_rows import Scored, score_rows, zero_of
from finetune.domain.errors import IntegrityError, InvalidInput, LeakageDetected
from finetune.domain.labels import LabelSet


class Reading(NamedTuple):
    """How a file is to be read where it differs from the file that was calibrated; None: as that one."""

    label: str | None = None
    id: str | None = None
    inputs: Inputs | None = None


AS_CALIBRATED = Reading()


class External(NamedTuple):
    """A certificate of probabilities, and what it says of the files that belong to it."""

    certificate: Certificate
    model: CertifiedProbabilities
    labels: LabelSet

    def file(self, path: Path, reading: Reading, *, labelled: bool) -> ProbabilityFile:
        """Say how to read another file of the same model."""
        return ProbabilityFile(
            path=path,
            outcomes=self.certificate.outcomes,
            label=(reading.label or self.model.label) if labelled else None,
            id=reading.id or self.model.id,
            inputs=inputs_for(path, reading.inputs, self.model.inputs),
        )


def open_external(path: Path, stores: StoreOpener) -> External:
    """Read a certificate of probabilities.

    Raises
    ------
    InvalidInput
        There is no such file, or it belongs to a run.
    IntegrityError
        It is damaged or contradicts itself.
    """
    store = stores(path.parent)
    if not store.exists(path.name):
        raise InvalidInput(
            "there is no such certificate",
            where=str(path),
            remedy="run `finetune calibrate --probabilities FILE` first, or name its output",
        )
    certificate = read_certificate(store.read_json(path.name), str(path))
    model = certificate.model
    if not isinstance(model, CertifiedProbabilities):
        raise InvalidInput(
            "this certificate is one of a trained run",
            where=str(path),
            remedy="leave --probabilities away and name the run with --run",
        )
    try:
        labels = LabelsFile(task=certificate.task, labels=model.labels, abstain=model.abstain).label_set()
    except InvalidInput as error:
        raise _contradiction(path) from error
    if labels.fingerprint() != certificate.label_set_hash or labels.outcomes != certificate.outcomes:
        raise _contradiction(path)
    return External(certificate, model, labels)


def _contradiction(path: Path) -> IntegrityError:
    return IntegrityError(
        "the certificate contradicts itself: its labels are not those that it was made for",
        where=str(path),
        remedy=certificates.REMEDY,
    )


def inputs_for(path: Path, asked: Inputs | None, before: Inputs) -> Inputs | None:
    """Return what the numbers of a file are: as asked, else as before; an archive says it itself."""
    return asked or (None if path.suffix.lower() == ".npz" else before)


def file_hash(path: Path, stores: StoreOpener) -> str:
    """Return the SHA-256 (hex) of a file; empty where there is none, which its reader reports."""
    store = stores(path.parent)
    return store.sha256(path.name) if store.exists(path.name) else ""


def score_file(
    rows: ProbabilityRows, outcomes: tuple[str, ...], decimals: int | None, progress: Progress
) -> Scored:
    """Check the rows of a file, and say so where they were changed for want of decimals."""
    scored = score_rows(rows, outcomes, decimals)
    if scored.changed:
        zero = "" if decimals is None else f", and 0 is read as {zero_of(decimals):g}"
        progress.say(f"{rows.path}: the numbers are rounded; each row is scaled to sum to 1{zero}")
    return scored


def refuse_seen(seen: Sequence[int], ids: Sequence[str], rows: ProbabilityRows, used: str) -> None:
    """Raise :class:`LeakageDetected` where rows, named by their positions, were used before."""
    if not seen:
        return
    more = f"; so were {len(seen) - 1:,} more of this file" if len(seen) > 1 else ""
    raise LeakageDetected(
        f"the row was used {used}{more}",
        where=rows.place(seen[0]),
        seen=ids[seen[0]],
        remedy="take such rows out; where ids only count the rows of each file, leave their column out",
    )
