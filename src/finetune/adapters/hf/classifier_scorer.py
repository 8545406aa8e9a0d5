"""Scores of an encoder with a classification head."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from finetune.adapters.hf.classifier_model import TextEncoder
from finetune.adapters.hf.scorer import check_finite
from finetune.application.ports import LabelScores, ProgressTask

NOTICE = "Batches are rows of similar length: an encoder reads each text as a whole."


class ClassifierScorer:
    """One forward for each batch of texts of similar length.

    Parameters
    ----------
    model
        A :class:`~finetune.adapters.hf.classifier_model.PooledClassifier`, wrapped by peft or not; put into
        evaluation mode for each call.
    encoder
        Its tokeniser.
    outcomes
        Names of the classes.
    batch_size
        Texts of one batch.
    """

    def __init__(
        self, model: nn.Module, encoder: TextEncoder, outcomes: tuple[str, ...], batch_size: int
    ) -> None:
        self.model = model
        self.encoder = encoder
        self._outcomes = outcomes
        self._batch_size = batch_size

    @property
    def outcomes(self) -> tuple[str, ...]:
        """Names of the columns of the scores."""
        return self._outcomes

    def score(self, texts: Sequence[str], task: ProgressTask | None = None) -> LabelScores:
        """Score every outcome for every text.

        Parameters
        ----------
        texts
            ``n`` texts; those that do not fit are shortened and counted.
        task
            Advanced by one for each text.

        Returns
        -------
        LabelScores
            The label mass is the log-sum-exp of the logits, any real number: evidence for all labels
            together, low for texts unlike those of training (Liu, W. et al. 2020, "Energy-based
            Out-of-distribution Detection", NeurIPS, eq. 4).

        Raises
        ------
        InvalidInput
            The model returned NaN.
        """
        encoded = [self.encoder.ids(text) for text in texts]
        logits = np.zeros((len(texts), len(self._outcomes)))
        order = sorted(range(len(texts)), key=lambda i: len(encoded[i][0]))
        device = next(self.model.parameters()).device
        training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                for start in range(0, len(order), self._batch_size):
                    rows = order[start : start + self._batch_size]
                    batch = self.encoder.pad([encoded[i][0] for i in rows], device)
                    logits[rows] = self.model(**batch._asdict()).cpu().double().numpy()
                    if task is not None:
                        task.advance(len(rows))
        finally:
            self.model.train(training)
        check_finite(logits, texts)
        mass = np.logaddexp.reduce(logits, axis=1) if len(texts) else np.zeros(0)
        removed = np.array([count for _, count in encoded], dtype=np.int64)
        return LabelScores(logits - mass[:, None], mass, removed, np.zeros(len(texts)))
