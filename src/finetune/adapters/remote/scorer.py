"""Scores of a model behind a server."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from finetune.adapters.remote.client import NotOffered
from finetune.adapters.remote.protocols import Evidence, Protocol
from finetune.application.backend_settings import RemoteConfig
from finetune.application.ports import LabelScores, ProgressTask
from finetune.domain.errors import Unavailable
from finetune.domain.prompts import shorten_text


class RemoteScorer:
    """Asks a server about each text, several at a time; the scores come in the order of the texts.

    Parameters
    ----------
    protocol
        How the server is asked.
    outcomes
        K names.
    config
        ``concurrency`` and ``max_chars``.
    """

    def __init__(self, protocol: Protocol, outcomes: tuple[str, ...], config: RemoteConfig) -> None:
        self._protocol = protocol
        self._outcomes = outcomes
        self._config = config

    @property
    def outcomes(self) -> tuple[str, ...]:
        """Names of the columns of the scores."""
        return self._outcomes

    def score(self, texts: Sequence[str], task: ProgressTask | None = None) -> LabelScores:
        """Score every outcome for every text.

        Raises
        ------
        Unavailable
            A text got no usable answer after all attempts; nothing of the others is lost, for whoever calls
            has written what came before.
        """
        cut = [shorten_text(text, self._config.max_chars) for text in texts]
        found: list[Evidence] = []
        with ThreadPoolExecutor(self._config.concurrency) as pool:
            futures = [pool.submit(self._ask, text) for text, _ in cut]
            try:
                for future in futures:
                    found.append(future.result())
                    if task is not None:
                        task.advance()
            finally:
                for future in futures:
                    future.cancel()
        rows = np.zeros((len(texts), len(self._outcomes)))
        for row, evidence in enumerate(found):
            rows[row] = evidence.log_probabilities
        return LabelScores(
            rows,
            np.array([evidence.label_mass for evidence in found], dtype=np.float64),
            np.array([removed for _, removed in cut], dtype=np.int64),
            np.zeros(len(texts)),
        )

    def _ask(self, text: str) -> Evidence:
        try:
            return self._protocol.ask(text)
        except NotOffered as error:
            raise Unavailable(
                f"the server refuses a text: {error}",
                where="remote",
                seen=text,
                remedy="take the text out of the input, or lower remote.max_chars if it is too long",
            ) from error
