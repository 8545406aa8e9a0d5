"""Label probabilities: the sum of the log-probabilities of a label's tokens, closing quote included.

Greedy generation is not used: it commits to the first token.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedModel

from finetune.adapters.hf.encoder import HfEncoder
from finetune.adapters.hf.engine import Engine
from finetune.adapters.hf.padded_scoring import PaddedEngine
from finetune.adapters.hf.tree_gate import TreeChoice, choose_path
from finetune.adapters.hf.tree_scoring import TreeEngine
from finetune.application.ports import LabelScores, ProgressTask
from finetune.domain.checks import FloatArray
from finetune.domain.errors import InvalidInput


class CausalLabelScorer:
    """Scores every outcome of a label set with a causal language model.

    Parameters
    ----------
    model
        A causal LM, wrapped by peft or not; put into evaluation mode for each call.
    encoder
        Its encoder.
    batch_size
        Texts of one batch, at most.
    prune
        Largest share of a text's label mass that may be left out, in [0, 1); padded batches leave out none.
    path
        How batches run; ``None`` asks :func:`~finetune.adapters.hf.tree_gate.choose_path`.

    Attributes
    ----------
    path
        How batches run, and why.
    engine
        What runs them; the writer and validation use the same.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        encoder: HfEncoder,
        batch_size: int,
        *,
        prune: float = 0.0,
        path: TreeChoice | None = None,
    ) -> None:
        self.model = model
        self.encoder = encoder
        self.path = choose_path(model, encoder.max_length) if path is None else path
        self.engine: Engine = (
            TreeEngine(model, encoder, batch_size, prune)
            if self.path.path == "tree"
            else PaddedEngine(model, encoder, batch_size)
        )

    @property
    def outcomes(self) -> tuple[str, ...]:
        """Names of the columns of the scores."""
        return self.encoder.outcomes

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
            ``n`` rows; the log-probabilities are normalised over the outcomes in float64.

        Raises
        ------
        InvalidInput
            The model returned NaN.
        """
        encoded = [self.encoder.score_ids(text) for text in texts]
        sums, left_out = self.engine.score([ids for ids, _ in encoded], task)
        check_finite(sums, texts)
        mass = np.logaddexp.reduce(sums, axis=1, keepdims=True) if len(texts) else np.zeros((0, 1))
        removed = np.array([count for _, count in encoded], dtype=np.int64)
        return LabelScores(sums - mass, np.minimum(mass[:, 0], 0.0), removed, left_out)


def check_finite(scores: FloatArray, texts: Sequence[str]) -> None:
    """Refuse scores ``(n, K)`` of which one is no number, naming the text."""
    if np.isfinite(scores).all():
        return
    first = int(np.flatnonzero(~np.isfinite(scores).all(axis=1))[0])
    raise InvalidInput(
        "the model gave a label a probability that is not a number",
        where=f"text {first}",
        seen=texts[first],
        remedy="check the adapter and the precision (training.bf16: false)",
    )
