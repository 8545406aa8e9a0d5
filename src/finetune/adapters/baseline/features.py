"""Texts to hashed counts of character n-grams."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import HashingVectorizer

from finetune.application.backend_settings import BaselineConfig
from finetune.domain.prompts import shorten_text


class NgramFeatures:
    """Log-damped counts of the character n-grams of each word, hashed, weighted and scaled to length 1.

    Parameters
    ----------
    config
        Lengths of the n-grams and the number of hashed features, F.
    max_chars
        Characters of a text that are read; the middle of longer ones is left out.
    weights
        Inverse document frequencies, ``(F,)``; None before :meth:`fit`.

    References
    ----------
    Weinberger, K. et al. (2009). Feature hashing for large scale multitask learning. ICML, sec. 2.
    Sparck Jones, K. (1972). A statistical interpretation of term specificity. Journal of Documentation 28.
    """

    def __init__(
        self, config: BaselineConfig, max_chars: int, weights: NDArray[np.float32] | None = None
    ) -> None:
        self.weights = weights
        self._max_chars = max_chars
        self._hashing = HashingVectorizer(
            analyzer="char_wb",
            ngram_range=(config.shortest_ngram, config.longest_ngram),
            n_features=config.features,
            alternate_sign=False,
            norm=None,
            dtype=np.float32,
        )

    def fit(self, texts: Sequence[str]) -> csr_matrix:
        """Learn the weights from training texts, and return their features, ``(n, F)`` float32."""
        counts = self._count(texts)
        found = np.bincount(counts.indices, minlength=counts.shape[1])
        self.weights = (np.log((1 + len(texts)) / (1 + found)) + 1).astype(np.float32)
        return self._weigh(counts)

    def __call__(self, texts: Sequence[str]) -> csr_matrix:
        """Return the features of any texts, ``(n, F)`` float32; call :meth:`fit` before, or give weights."""
        return self._weigh(self._count(texts))

    def removed(self, text: str) -> int:
        """Return how many characters of a text are not read."""
        return shorten_text(text, self._max_chars)[1]

    def _count(self, texts: Sequence[str]) -> csr_matrix:
        read = [shorten_text(text, self._max_chars)[0] for text in texts]
        counts: csr_matrix = self._hashing.transform(read)
        np.log1p(counts.data, out=counts.data)
        return counts

    def _weigh(self, counts: csr_matrix) -> csr_matrix:
        counts.data *= self.weights[counts.indices]
        lengths = np.sqrt(np.asarray(counts.multiply(counts).sum(axis=1)).ravel())
        rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
        # A text of nothing but spaces has no n-grams, and stays 0.
        counts.data /= np.maximum(lengths, np.finfo(np.float32).tiny)[rows]
        return counts
