"""What is measured while training: label scores on validation rows, and whether free answers parse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch.distributed as dist

from finetune.adapters.hf.encoder import HfEncoder
from finetune.adapters.hf.scorer import CausalLabelScorer
from finetune.application.ports import LabelScorer
from finetune.application.training_metrics import Measures, measure_validation
from finetune.domain.checks import FloatArray
from finetune.domain.examples import Example
from finetune.domain.labels import LabelSet
from finetune.domain.parsing import parse_answer


class ValidationMetrics:
    """Measures a model on fixed validation rows.

    Only the label scores are kept, never vocabulary logits.  With several processes each scores its share.

    Parameters
    ----------
    scorer, encoder, labels
        The scorer of the model in training, its encoder and label set.
    rows
        Labelled examples.
    json_samples
        How many answers are generated freely to see whether they are valid JSON; 0 measures nothing.
    measures
        What is measured of label probabilities.
    """

    def __init__(
        self,
        scorer: CausalLabelScorer,
        encoder: HfEncoder,
        labels: LabelSet,
        rows: Sequence[Example],
        json_samples: int,
        measures: Measures = measure_validation,
    ) -> None:
        self._scorer = scorer
        self._encoder = encoder
        self._labels = labels
        self._rows = rows
        self._samples = rows[:json_samples]
        self._truth = np.array([labels.index(str(row.label)) for row in rows])
        self._measures = measures
        # Room for the longest label, the skeleton, and a rationale of one or two sentences.
        wanted = max(len(path) for path in encoder.label_paths) + 80
        self._answer_room = min(wanted, encoder.spare_tokens)

    def __call__(self) -> Mapping[str, float]:
        """Return what is measured of label probabilities, and json_validity where it is sampled."""
        engine = self._scorer.engine
        # The weights are others than the last time.
        engine.forget()
        with engine.session():
            return self._measure()

    def _measure(self) -> dict[str, float]:
        metrics = self._measures(score_shared(self._scorer, self._rows), self._truth)
        if self._samples:
            metrics["json_validity"] = self._json_validity()
        return metrics

    def _json_validity(self) -> float:
        room = self._answer_room
        prompts = [self._encoder.prompt_ids(row.text, room) for row in self._samples]
        answers = self._scorer.engine.write(prompts, room, stop_at_quote=False)
        return float(np.mean([parse_answer(answer, self._labels).valid for answer in answers]))


def score_shared(scorer: LabelScorer, rows: Sequence[Example]) -> FloatArray:
    """Return the log-probabilities of all rows, of which each of several processes scores its share."""
    texts = [row.text for row in rows]
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return scorer.score(texts).log_probabilities
    rank, world = dist.get_rank(), dist.get_world_size()
    mine = scorer.score(texts[rank::world]).log_probabilities
    parts: list[FloatArray | None] = [None] * world
    dist.all_gather_object(parts, mine)
    merged = np.empty((len(rows), mine.shape[1]))
    for i, part in enumerate(parts):
        merged[i::world] = part
    return merged
