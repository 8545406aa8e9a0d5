"""Recognising rows that a certificate rests on, without keeping a million ids in it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import field_validator

from finetune.application.settings import Section

KEPT = 20_000
"""Ids whose hashes a certificate holds; of more rows, those with the smallest hashes."""


class SeenIds(Section):
    """Hashes of the ids of validation and calibration rows.

    Up to :data:`KEPT` ids are all there, so that any of them is found again.  Of ``rows`` ids beyond that
    a pseudo-random sample is kept: m of them in a test file escape with a probability of about
    (1 − KEPT / rows)^m.

    Examples
    --------
    >>> remember(["a", "b"]).among(["x", "b"])
    [1]
    """

    rows: int
    hashes: str

    @field_validator("hashes")
    @classmethod
    def _eight_bytes_each(cls, hashes: str) -> str:
        if len(base64.b64decode(hashes, validate=True)) % 8:
            raise ValueError("the hashes of the ids are cut short")
        return hashes

    def among(self, ids: Sequence[str]) -> list[int]:
        """Return the positions of ids that are known to have been seen."""
        kept = np.frombuffer(base64.b64decode(self.hashes), dtype=">u8")
        return np.flatnonzero(np.isin(_hashes(ids), kept)).tolist()


def remember(ids: Sequence[str]) -> SeenIds:
    """Return what a certificate holds of these ids."""
    smallest = np.sort(_hashes(ids))[:KEPT].astype(">u8")
    return SeenIds(rows=len(ids), hashes=base64.b64encode(smallest.tobytes()).decode())


def _hashes(ids: Sequence[str]) -> npt.NDArray[np.uint64]:
    # Eight bytes: two of a million different ids share them with a probability of 3e-8.
    joined = b"".join(hashlib.sha256(name.encode()).digest()[:8] for name in ids)
    return np.frombuffer(joined, dtype=">u8").astype(np.uint64)
