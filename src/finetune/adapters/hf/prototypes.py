"""Where the head of an encoder begins: at the mean vectors of the labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import normalize

from finetune.adapters.hf.classifier_model import ClassifiedText, PooledClassifier, TextEncoder
from finetune.domain.calibration import fit_temperature
from finetune.domain.checks import FloatArray, IntArray

# More rows of a label move its mean by less than the training does.
_ROWS = 100
# Where no label has two rows to judge by.
_SCALE = 10.0


def begin_at_prototypes(
    model: PooledClassifier, encoder: TextEncoder, rows: Sequence[ClassifiedText], batch_size: int
) -> None:
    """Set the head to the classifier by the nearest mean, on the scale that fits the training rows best.

    A vector has the length 1 there, as sentence encoders are trained to be compared; the head itself sees
    vectors as they are, so that their mean length stands in for each one's own.  A label without rows begins
    at the mean of all.

    Parameters
    ----------
    model
        On its device, before it is adapted; left in evaluation mode.
    encoder, rows
        Its tokeniser, and the training rows, of which the first 100 of each label are looked at.
    batch_size
        Rows of one forward.

    References
    ----------
    Snell, J., Swersky, K., Zemel, R. (2017). Prototypical networks for few-shot learning. NeurIPS, eq. 8
    (squared distances to means as a linear layer).
    """
    labels = np.array([row.label for row in rows], dtype=np.int64)
    chosen = np.concatenate([np.flatnonzero(labels == k)[:_ROWS] for k in np.unique(labels)])
    chosen = chosen[np.argsort([len(rows[i].ids) for i in chosen], kind="stable")]
    device = model.head.weight.device
    model.eval()
    with torch.inference_mode():
        vectors = torch.cat(
            [
                model.pool(**encoder.pad([rows[i].ids for i in part], device)._asdict())
                for part in (chosen[i : i + batch_size] for i in range(0, len(chosen), batch_size))
            ]
        ).double()
    units = normalize(vectors, dim=1).cpu().numpy()
    truth = labels[chosen]
    counts = np.bincount(truth, minlength=model.head.out_features)
    sums = np.zeros((len(counts), units.shape[1]))
    np.add.at(sums, truth, units)
    means = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], units.mean(axis=0))
    scale = _best_scale(units, truth, means, counts)
    length = float(vectors.norm(dim=1).mean())
    head = model.head
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(2.0 * scale / length * means))
        head.bias.copy_(torch.from_numpy(-scale * (means**2).sum(axis=1)))


def _best_scale(units: FloatArray, truth: IntArray, means: FloatArray, counts: IntArray) -> float:
    """Return the scale of the logits with the least log loss, each row judged by the other ones' means."""
    judged = counts[truth] > 1
    if not judged.any():
        return _SCALE
    units, truth = units[judged], truth[judged]
    n = counts[truth][:, None]
    others = (n * means[truth] - units) / (n - 1)
    logits = 2.0 * units @ means.T - (means**2).sum(axis=1)
    logits[np.arange(len(units)), truth] = (2.0 * units * others - others**2).sum(axis=1)
    return 1.0 / fit_temperature(logits, truth).value
