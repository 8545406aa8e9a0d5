"""Prediction sets whose coverage holds within clusters of labels that behave alike."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import BoolArray, IntArray, as_count, as_generator, as_level
from finetune.domain.conformal.categories import (
    calibrate_categories,
    shorten,
    state_categories,
    warn_of_unseen,
)
from finetune.domain.conformal.category_predictor import (
    MondrianCalibration,
    MondrianPredictor,
    MondrianRecord,
)
from finetune.domain.conformal.clustering import cluster_labels
from finetune.domain.conformal.quantile import fewest_rows
from finetune.domain.errors import InvalidInput

_NULL = "null"
_UNSEEN = "unseen"
# With K labels, K / (K + 75) of the rows cluster: the paper's heuristic (appendix B.1).
_HEURISTIC = 75


class _Record(MondrianRecord):
    clusters: list[int | Literal["null", "unseen"]]


class ClusteredPredictor(MondrianPredictor):
    """Prediction sets that cover each cluster of labels by itself, for many labels with few rows each.

    Labels whose scores are distributed alike are joined on one part of the calibration rows; the other part
    gives one threshold a cluster.  Labels with fewer rows in the first part than a threshold needs are
    joined to none (the null cluster): they have the threshold of all rows of the second part.

    Parameters
    ----------
    method, inputs, randomized, rng, **options
        As of :class:`~finetune.domain.conformal.split.ConformalPredictor`.
    n_clusters
        At least 1.  None: half the rows of the rarest label that is clustered.
    clustering_fraction
        Part of the rows that the labels are joined on, in (0, 1).  None: K / (K + 75).

    Raises
    ------
    InvalidInput
        If a parameter is not as above.

    Notes
    -----
    Holds within each cluster if calibration rows and new rows are exchangeable.  It does not hold for each
    label, but nearly where the labels of a cluster are alike, and not for the labels of the null cluster
    by themselves.  A label that calibration never saw is in every set.

    References
    ----------
    Ding, Angelopoulos, Bates, Jordan, Tibshirani (2023). Class-conditional conformal prediction with many
    classes. NeurIPS, algorithm 1, prop. 1.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels = rng.integers(0, 20, size=4000)
    >>> logits = rng.normal(size=(4000, 20))
    >>> logits[np.arange(4000), labels] += np.where(labels < 10, 1.0, 4.0)
    >>> predictor = ClusteredPredictor(inputs="logits", n_clusters=2).calibrate(logits, labels, 0.1, rng=rng)
    >>> hard, easy = predictor.clusters[:10], predictor.clusters[10:]
    >>> len(set(hard)), len(set(easy)), hard[0] != easy[0]
    (1, 1, True)
    """

    kind = "clustered_predictor"
    record = _Record

    def __init__(
        self,
        method: str = "lac",
        *,
        inputs: str = "probabilities",
        randomized: bool = False,
        rng: np.random.Generator | None = None,
        n_clusters: int | None = None,
        clustering_fraction: float | None = None,
        **options: float,
    ) -> None:
        super().__init__(method, inputs=inputs, randomized=randomized, rng=rng, **options)
        self._n_clusters = None if n_clusters is None else as_count(n_clusters, name="n_clusters")
        self._fraction = (
            None if clustering_fraction is None else as_level(clustering_fraction, name="clustering_fraction")
        )
        self._clusters: tuple[int | str, ...] = ()

    def calibrate(
        self,
        cal_probs: npt.ArrayLike,
        cal_labels: npt.ArrayLike,
        alpha: float = 0.1,
        *,
        rng: np.random.Generator,
    ) -> ClusteredPredictor:
        """Find the clusters and the threshold of each.

        Parameters
        ----------
        cal_probs
            Shape (n, K).
        cal_labels
            Shape (n,): label indices.
        alpha
            Miscoverage allowed in each cluster, in (0, 1).
        rng
            Divides the rows and starts the search for clusters.

        Returns
        -------
        ClusteredPredictor
            This object.

        Raises
        ------
        InvalidInput
            If the input is not as above.

        Warns
        -----
        CoverageWarning
            If a label has no calibration row, or a cluster none in the second part; they are in every set.
        """
        alpha, rng = as_level(alpha, name="alpha"), as_generator(rng)
        k, labels, scores = self._scorer.of_labels(cal_probs, cal_labels)
        n = len(labels)
        fraction = k / (k + _HEURISTIC) if self._fraction is None else self._fraction
        first, second = np.split(rng.permutation(n), [int(fraction * n)])
        cluster_of = self._join(scores[first], labels[first], k, alpha, rng)
        n_clusters = int(cluster_of.max()) + 1
        kept = second[cluster_of[labels[second]] >= 0]
        categories = calibrate_categories(scores[kept], cluster_of[labels[kept]], range(n_clusters), alpha)
        categories += calibrate_categories(
            scores[second], np.zeros(len(second), dtype=np.int64), [_NULL], alpha
        )
        seen = np.bincount(labels, minlength=k) > 0
        self._calibration = MondrianCalibration(k, alpha, categories)
        self._clusters = tuple(
            _UNSEEN if not known else _NULL if cluster < 0 else cluster
            for cluster, known in zip(cluster_of.tolist(), seen.tolist(), strict=True)
        )
        warn_of_unseen(np.flatnonzero(~seen).tolist(), "labels", "they are in every set")
        empty = [category.name for category in categories if not category.n]
        warn_of_unseen(empty, "clusters", "their labels are in every set")
        return self

    def _join(
        self,
        scores: npt.NDArray[np.float64],
        labels: IntArray,
        k: int,
        alpha: float,
        rng: np.random.Generator,
    ) -> IntArray:
        """Cluster of each label, -1 for none; decided by these rows alone."""
        counts = np.bincount(labels, minlength=k)
        frequent = np.flatnonzero(counts >= fewest_rows(alpha))
        clusters = np.full(k, -1)
        if frequent.size:
            wanted = (
                max(1, int(counts[frequent].min()) // 2) if self._n_clusters is None else self._n_clusters
            )
            clusters[frequent] = cluster_labels(
                scores, labels, frequent, alpha, min(wanted, len(frequent)), rng
            )
        return clusters

    def predict(self, test_probs: npt.ArrayLike) -> BoolArray:
        """Prediction sets, shape (n, K), of rows of the same labels as in calibration.

        Raises
        ------
        InvalidInput
            If the predictor is not calibrated or the rows are not as in calibration.
        """
        thresholds = {category.name: category.threshold for category in self.categories}
        thresholds[_UNSEEN] = np.inf
        return self._label_sets(test_probs, np.array([thresholds[cluster] for cluster in self._clusters]))

    @property
    def clusters(self) -> tuple[int | str, ...]:
        """Cluster of each label: a number, ``"null"`` (too few rows) or ``"unseen"`` (none).

        Raises
        ------
        InvalidInput
            If the predictor is not calibrated.
        """
        _ = self.calibration
        return self._clusters

    @property
    def statement(self) -> str:
        """The guarantee in words."""
        *clusters, null = self.categories
        members = {
            name: [label for label, cluster in enumerate(self._clusters) if cluster == name]
            for name in (_NULL, _UNSEEN)
        }
        text = state_categories(
            clusters or [null],
            self.alpha,
            promise=(
                "For each cluster of labels, found on other calibration cases: the set given for a new case "
                "whose true label is in the cluster contains it"
                if clusters
                else "On average over all labels: the set given for a new case contains its true label"
            ),
            noun="clusters",
            consequence="Their labels are in every set.",
        )
        if members[_NULL]:
            text += (
                f" The labels {shorten(members[_NULL])} had too few cases to be in a cluster. They have the "
                f"threshold that holds for all {null.n} calibration cases on average; nothing is promised "
                f"for such labels by themselves."
            )
        if members[_UNSEEN]:
            text += (
                f" Calibration saw no case of the labels {shorten(members[_UNSEEN])}: they are in every set."
            )
        return text + (" It does not hold for each label of a cluster by itself." if clusters else "")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready record; infinite thresholds are written as ``"+inf"``."""
        return {**super().to_dict(), "clusters": list(self._clusters)}

    def _restore(self, record: _Record) -> None:
        names = [category.name for category in record.categories]
        valid = {*names, _UNSEEN}
        if (
            names != [*range(len(names) - 1), _NULL]
            or len(record.clusters) != record.n_labels
            or not valid.issuperset(record.clusters)
        ):
            raise InvalidInput(
                "the clusters of the record contradict its categories", seen=names, remedy="calibrate again"
            )
        self._clusters = tuple(record.clusters)
