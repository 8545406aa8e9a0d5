"""What is timed: each task as this package, plain numpy and the peers do it.

A side is made from float32 probabilities and labels, and returns a function of no arguments.  What it does
before (tensors, wrappers) is not timed; what the function does is.  Packages are imported when a side is
made, so that the memory of one is not counted for another.  All are deterministic where they can be.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from benchmarks.peers import Array, Identity, mapie_classifier, torchcp, torchcp_predictor

ALPHA = 0.1
PENALTY, K_REG = 0.01, 2
N_BINS = 15
Rows = Any  # an array, or one that was checked before
Run = Callable[[], Any]
Side = Callable[[Rows, Array, Rows, Array], Run]


def checked(side: Side) -> Side:
    """The same side with rows that were checked before, as a service has them that uses them repeatedly."""

    def make(cal: Array, cal_labels: Array, new: Array, new_labels: Array) -> Run:
        from finetune.domain import CheckedRows

        return side(CheckedRows(cal), cal_labels, CheckedRows(new), new_labels)

    return make


def ours(method: str, cal: Rows, cal_labels: Array, new: Rows, _: Array, **options: float) -> Run:
    from finetune.domain.conformal import ConformalPredictor

    def run() -> Array:
        return ConformalPredictor(method, **options).calibrate(cal, cal_labels, ALPHA).predict(new)

    return run


def ours_by_class(cal: Rows, cal_labels: Array, new: Rows, _: Array) -> Run:
    from finetune.domain.conformal import ClassConditionalPredictor

    return lambda: ClassConditionalPredictor("lac").calibrate(cal, cal_labels, ALPHA).predict(new)


def ours_ece(_: Rows, __: Array, new: Rows, new_labels: Array) -> Run:
    from finetune.domain.calibration import compute_ece

    return lambda: compute_ece(new, new_labels, N_BINS)


def numpy_lac(cal: Array, cal_labels: Array, new: Array, _: Array) -> Run:
    def run() -> Array:
        threshold = _quantile(1.0 - cal[np.arange(len(cal)), cal_labels])
        return 1.0 - new <= threshold

    return run


def numpy_aps(cal: Array, cal_labels: Array, new: Array, _: Array, penalty: float = 0.0) -> Run:
    rank_penalty = penalty * np.maximum(np.arange(1, cal.shape[1] + 1) - K_REG, 0).astype(cal.dtype)

    def scores(rows: Array) -> Array:
        order = np.argsort(-rows, axis=1)
        masses = np.cumsum(np.take_along_axis(rows, order, axis=1), axis=1) + rank_penalty
        of_labels = np.empty_like(rows)
        np.put_along_axis(of_labels, order, masses, axis=1)
        return of_labels

    return lambda: scores(new) <= _quantile(scores(cal)[np.arange(len(cal)), cal_labels])


def numpy_by_class(cal: Array, cal_labels: Array, new: Array, _: Array) -> Run:
    def run() -> Array:
        scores = 1.0 - cal[np.arange(len(cal)), cal_labels]
        return 1.0 - new <= [_quantile(scores[cal_labels == label]) for label in range(cal.shape[1])]

    return run


def numpy_ece(_: Array, __: Array, new: Array, new_labels: Array) -> Run:
    edges = np.linspace(0.0, 1.0, N_BINS + 1)

    def run() -> float:
        confidence, hits = new.max(axis=1), new.argmax(axis=1) == new_labels
        index = np.searchsorted(edges, confidence) - 1
        gaps = np.bincount(index, weights=hits) - np.bincount(index, weights=confidence)
        return float(np.abs(gaps).sum() / len(new))

    return run


def torchcp_sets(
    score: str,
    cal: Array,
    cal_labels: Array,
    new: Array,
    _: Array,
    kind: str = "SplitPredictor",
    **options: Any,
) -> Run:
    import torch

    tensors = [torch.from_numpy(array) for array in (cal, cal_labels, new)]
    predictor = torchcp_predictor(getattr(torchcp().score, score)("identity", **options), kind)

    def run() -> Any:
        predictor.calculate_threshold(tensors[0], tensors[1], ALPHA)
        return predictor.predict_with_logits(tensors[2])

    return run


def mapie_sets(score: str, cal: Array, cal_labels: Array, new: Array, _: Array) -> Run:
    def run() -> Array:
        classifier = mapie_classifier(score, cal.shape[1], 1.0 - ALPHA)
        classifier.conformalize(cal, cal_labels)
        return np.asarray(classifier.predict_set(new)[1])

    return run


def crepes_sets(cal: Array, cal_labels: Array, new: Array, _: Array, class_cond: bool = False) -> Run:
    from crepes import WrapClassifier

    def run() -> Array:
        classifier = WrapClassifier(Identity(cal.shape[1]))
        classifier.calibrate(cal, cal_labels, class_cond=class_cond)
        return np.asarray(classifier.predict_set(new, labels=False, confidence=1.0 - ALPHA, smoothing=False))

    return run


def torchmetrics_ece(_: Array, __: Array, new: Array, new_labels: Array) -> Run:
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    rows, labels = torch.from_numpy(new), torch.from_numpy(new_labels)
    return lambda: float(multiclass_calibration_error(rows, labels, new.shape[1], N_BINS))


def netcal_ece(_: Array, __: Array, new: Array, new_labels: Array) -> Run:
    from netcal.metrics import ECE

    return lambda: float(ECE(N_BINS).measure(new, new_labels))


def mapie_ece(_: Array, __: Array, new: Array, new_labels: Array) -> Run:
    from mapie.metrics.calibration import expected_calibration_error

    def run() -> float:
        hits = (new.argmax(axis=1) == new_labels).astype(int)
        return float(expected_calibration_error(hits, new, num_bins=N_BINS + 1, split_strategy="uniform"))

    return run


def uncertainty_calibration_ece(_: Array, __: Array, new: Array, new_labels: Array) -> Run:
    from calibration import get_ece

    return lambda: float(get_ece(new, new_labels, num_bins=N_BINS))


def relplot_ece(_: Array, __: Array, new: Array, new_labels: Array) -> Run:
    from relplot.metrics import binnedECE, multiclass_logits_to_confidences

    def run() -> float:
        return float(binnedECE(*multiclass_logits_to_confidences(new, new_labels, probs=True), nbins=N_BINS))

    return run


def _quantile(scores: Array) -> float:
    rank = math.ceil((len(scores) + 1) * (1 - ALPHA))
    return float(np.partition(scores, rank - 1)[rank - 1]) if rank <= len(scores) else math.inf


OURS, CHECKED, NUMPY = "finetune", "finetune, rows checked before", "numpy"
TASKS: dict[str, dict[str, Side]] = {
    "lac": {
        OURS: partial(ours, "lac"),
        CHECKED: checked(partial(ours, "lac")),
        NUMPY: numpy_lac,
        "TorchCP": partial(torchcp_sets, "LAC"),
        "MAPIE": partial(mapie_sets, "lac"),
        "crepes": crepes_sets,
    },
    "aps": {
        OURS: partial(ours, "aps"),
        CHECKED: checked(partial(ours, "aps")),
        NUMPY: numpy_aps,
        "TorchCP": partial(torchcp_sets, "APS", randomized=False),
        "MAPIE": partial(mapie_sets, "aps"),
    },
    "raps": {
        OURS: partial(ours, "raps", penalty=PENALTY, k_reg=K_REG),
        CHECKED: checked(partial(ours, "raps", penalty=PENALTY, k_reg=K_REG)),
        NUMPY: partial(numpy_aps, penalty=PENALTY),
        "TorchCP": partial(torchcp_sets, "RAPS", randomized=False, penalty=PENALTY, kreg=K_REG),
        "MAPIE": partial(mapie_sets, "raps"),
    },
    "class-conditional": {
        OURS: ours_by_class,
        CHECKED: checked(ours_by_class),
        NUMPY: numpy_by_class,
        "TorchCP": partial(torchcp_sets, "LAC", kind="ClassConditionalPredictor"),
        "crepes": partial(crepes_sets, class_cond=True),
    },
    "ece": {
        OURS: ours_ece,
        CHECKED: checked(ours_ece),
        NUMPY: numpy_ece,
        "torchmetrics": torchmetrics_ece,
        "netcal": netcal_ece,
        "MAPIE": mapie_ece,
        "uncertainty-calibration": uncertainty_calibration_ece,
        "relplot": relplot_ece,
    },
}
