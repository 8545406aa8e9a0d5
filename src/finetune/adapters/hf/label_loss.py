"""What an objective makes of the probabilities of the labels, wherever their logits come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from finetune.adapters.hf.objectives import Objective
from finetune.application.ports import EncodedExample
from finetune.domain.checks import IntArray
from finetune.domain.errors import InvalidInput
from finetune.domain.token_tree import TokenTree


class Loss(NamedTuple):
    """Sums over the rows of a forward, float32 scalars.

    Parameters
    ----------
    answers
        Of the cross-entropies of the answer tokens.
    labels
        Of the objective, once a row; None where there is none.
    """

    answers: torch.Tensor
    labels: torch.Tensor | None = None


class Stems(NamedTuple):
    """Beginnings of labels that a padded forward runs: enough of them to see each token of each label.

    Parameters
    ----------
    ids
        S token sequences, which may be empty.
    stem, place
        In which of them the probability of each token of each label is read, and how many places before its
        end, ``(K, L)``; 0 where a label has no more tokens.
    """

    ids: tuple[tuple[int, ...], ...]
    stem: IntArray
    place: IntArray


@dataclass(frozen=True)
class LabelLoss:
    """An objective over the closed set of labels, each a token path behind the prompt.

    The score of a label is the log-probability of its path; their softmax is what the objective sees.

    Parameters
    ----------
    paths
        K token sequences, of which none begins another.
    objective
        See :mod:`finetune.adapters.hf.objectives`.
    """

    paths: Sequence[Sequence[int]]
    objective: Objective

    @cached_property
    def tokens(self) -> IntArray:
        """The paths, ``(K, L)``, -1 behind their ends."""
        table = np.full((len(self.paths), max(map(len, self.paths))), -1, dtype=np.int64)
        for row, path in zip(table, self.paths, strict=True):
            row[: len(path)] = path
        return table

    @cached_property
    def added(self) -> int:
        """The most nodes that the labels of a row add to its tree."""
        tree = TokenTree()
        for path in self.paths:
            tree.add(path)
        return len(tree) - min(map(len, self.paths))

    @cached_property
    def stems(self) -> Stems:
        """What a padded forward runs."""
        beginnings = sorted({tuple(path[:-1]) for path in self.paths})
        # In sorted order a beginning stands right before the sequences that continue it.
        ids = tuple(
            one for one, other in pairwise([*beginnings, None]) if other is None or other[: len(one)] != one
        )
        stem, place = np.zeros((2, *self.tokens.shape), dtype=np.int64)
        for k, path in enumerate(self.paths):
            chosen = next(i for i, one in enumerate(ids) if one[: len(path) - 1] == tuple(path[:-1]))
            stem[k] = chosen
            place[k, : len(path)] = len(ids[chosen]) - np.arange(len(path))
        return Stems(ids, stem, place)

    def truth(self, rows: Sequence[EncodedExample]) -> IntArray:
        """Return the labels of rows, ``(B,)``, having looked whether their tokens are those that are scored.

        Raises
        ------
        InvalidInput
            A text has its label in other tokens than the probe has.
        """
        for row in rows:
            path = tuple(self.paths[row.label])
            if row.ids[row.label_start : row.label_start + len(path)] != path:
                raise InvalidInput(
                    "the label of a row has other tokens than the label that is scored",
                    where="objective",
                    seen=list(row.ids[row.label_start : row.label_start + len(path)]),
                    remedy="set objective.name to cross_entropy and objective.weight to 0: this tokeniser "
                    "writes a label in more than one way",
                )
        return np.array([row.label for row in rows], dtype=np.int64)

    def total(self, scores: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Return the sum of the objective over rows.

        Parameters
        ----------
        scores
            ``(B, K)``: log-probabilities of the paths.
        labels, weights
            ``(B,)`` each.
        """
        losses = self.objective(torch.log_softmax(scores, dim=-1), labels)
        return (losses * weights).sum()


def path_scores(edges: torch.Tensor, places: IntArray) -> torch.Tensor:
    """Return the sums of log-probabilities along paths.

    Parameters
    ----------
    edges
        ``(E,)``: log-probabilities of tokens.
    places
        Which of them lie on each path, of any shape, the tokens of a path in the last dimension; -1 for none.
    """
    # The place -1 is that of the zero behind all others.
    padded = torch.cat([edges, edges.new_zeros(1)])
    return padded[torch.from_numpy(places).to(edges.device)].sum(dim=-1)
