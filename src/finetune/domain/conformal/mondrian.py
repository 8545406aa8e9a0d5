"""Prediction sets whose coverage holds within each label, or within each group of cases."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from finetune.domain.checks import BoolArray, as_level
from finetune.domain.conformal.categories import calibrate_categories, state_categories, warn_of_unseen
from finetune.domain.conformal.category_predictor import (
    MondrianCalibration,
    MondrianPredictor,
    MondrianRecord,
)
from finetune.domain.conformal.groups import as_groups, group_codes
from finetune.domain.errors import InvalidInput


class ClassConditionalPredictor(MondrianPredictor):
    """Prediction sets that cover each label by itself: P(Y in set | Y = y) >= 1 - alpha for every y.

    Parameters
    ----------
    method, inputs, randomized, rng, **options
        As of :class:`~finetune.domain.conformal.split.ConformalPredictor`.

    Notes
    -----
    Holds if the calibration rows of a label and new rows of it are exchangeable; how frequent the labels are
    may change.  A label with fewer than 1 / alpha - 1 calibration rows is in every set: with many rare
    labels, see :class:`~finetune.domain.conformal.clustered.ClusteredPredictor`.

    References
    ----------
    Vovk, V. (2012). Conditional validity of inductive conformal predictors. ACML, sec. 4.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels = rng.choice(2, p=[0.9, 0.1], size=2000)
    >>> logits = rng.normal(size=(2000, 2)) + np.eye(2)[labels]
    >>> predictor = ClassConditionalPredictor(inputs="logits").calibrate(logits[:1000], labels[:1000], 0.1)
    >>> inside = predictor.predict(logits[1000:])[np.arange(1000), labels[1000:]]
    >>> [bool(inside[labels[1000:] == label].mean() > 0.85) for label in (0, 1)]
    [True, True]
    """

    kind = "class_conditional_predictor"

    def calibrate(
        self, cal_probs: npt.ArrayLike, cal_labels: npt.ArrayLike, alpha: float = 0.1
    ) -> ClassConditionalPredictor:
        """Find the threshold of each label.

        Parameters
        ----------
        cal_probs
            Shape (n, K).
        cal_labels
            Shape (n,): label indices.
        alpha
            Miscoverage allowed for each label, in (0, 1).

        Returns
        -------
        ClassConditionalPredictor
            This object.

        Raises
        ------
        InvalidInput
            If the input is not as above.

        Warns
        -----
        CoverageWarning
            If a label has no calibration row; it is in every set.
        """
        alpha = as_level(alpha, name="alpha")
        k, labels, scores = self._scorer.of_labels(cal_probs, cal_labels)
        categories = calibrate_categories(scores, labels, range(k), alpha)
        self._calibration = MondrianCalibration(k, alpha, categories)
        warn_of_unseen([c.name for c in categories if not c.n], "labels", "they are in every set")
        return self

    def predict(self, test_probs: npt.ArrayLike) -> BoolArray:
        """Prediction sets, shape (n, K), of rows of the same labels as in calibration.

        Raises
        ------
        InvalidInput
            If the predictor is not calibrated or the rows are not as in calibration.
        """
        return self._label_sets(test_probs, np.array([c.threshold for c in self.categories]))

    @property
    def statement(self) -> str:
        """The guarantee in words."""
        return state_categories(
            self.categories,
            self.alpha,
            promise="For each label: the set given for a new case whose true label it is contains it",
            noun="labels",
            consequence="They are in every set.",
        )

    def _restore(self, record: MondrianRecord) -> None:
        names = [category.name for category in record.categories]
        if len(names) != record.n_labels or names != list(range(len(names))):
            raise InvalidInput(
                "the record has not one category for each label",
                seen=len(record.categories),
                remedy="calibrate again",
            )


class GroupConditionalPredictor(MondrianPredictor):
    """Prediction sets that cover each group of cases by itself: P(Y in set | group) >= 1 - alpha.

    Parameters
    ----------
    method, inputs, randomized, rng, **options
        As of :class:`~finetune.domain.conformal.split.ConformalPredictor`.

    Notes
    -----
    Holds if the calibration rows of a group and new rows of it are exchangeable; how frequent the groups are
    may change.  A group must be known before the label is.  A case of a group with fewer than 1 / alpha - 1
    calibration rows, or of one that calibration did not see, gets every label.

    References
    ----------
    Vovk, V. (2012). Conditional validity of inductive conformal predictors. ACML, sec. 4.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> logits, groups = rng.normal(size=(60, 4)), np.repeat(["north", "south"], [50, 10])
    >>> labels = logits.argmax(axis=1)
    >>> predictor = GroupConditionalPredictor(inputs="logits").calibrate(logits, labels, groups, 0.1)
    >>> [(category.name, category.n, category.rank) for category in predictor.categories]
    [('north', 50, 46), ('south', 10, 10)]
    """

    kind = "group_conditional_predictor"

    def calibrate(
        self, cal_probs: npt.ArrayLike, cal_labels: npt.ArrayLike, groups: npt.ArrayLike, alpha: float = 0.1
    ) -> GroupConditionalPredictor:
        """Find the threshold of each group.

        Parameters
        ----------
        cal_probs
            Shape (n, K).
        cal_labels
            Shape (n,): label indices.
        groups
            Shape (n,): the group of each row, all whole numbers or all strings.
        alpha
            Miscoverage allowed in each group, in (0, 1).

        Returns
        -------
        GroupConditionalPredictor
            This object.

        Raises
        ------
        InvalidInput
            If the input is not as above.
        """
        alpha = as_level(alpha, name="alpha")
        k, labels, scores = self._scorer.of_labels(cal_probs, cal_labels)
        names, codes = np.unique(as_groups(groups, n_rows=len(labels), name="groups"), return_inverse=True)
        categories = calibrate_categories(scores, codes, names.tolist(), alpha)
        self._calibration = MondrianCalibration(k, alpha, categories)
        return self

    def predict(self, test_probs: npt.ArrayLike, groups: npt.ArrayLike) -> BoolArray:
        """Prediction sets.

        Parameters
        ----------
        test_probs
            Shape (n, K), the same labels in the same order as in calibration.
        groups
            Shape (n,): the group of each row.

        Returns
        -------
        BoolArray
            Shape (n, K): whether the label is in the set.

        Raises
        ------
        InvalidInput
            If the predictor is not calibrated or the input is not as above.

        Warns
        -----
        CoverageWarning
            If calibration saw no row of a group; its cases get every label.
        """
        fitted = self.calibration
        rows = self._scorer.rows(test_probs, name="test_probs", n_labels=fitted.n_labels)
        given = as_groups(groups, n_rows=len(rows), name="groups")
        codes = group_codes(given, [category.name for category in fitted.categories], name="groups")
        unseen = np.unique(given[codes == len(fitted.categories)]).tolist()
        warn_of_unseen(unseen, "groups", "their cases get every label")
        thresholds = np.array([*(category.threshold for category in fitted.categories), np.inf])
        return self._scorer.score.sets(rows, thresholds[codes], self._scorer.draws(len(rows)))

    @property
    def statement(self) -> str:
        """The guarantee in words."""
        text = state_categories(
            self.categories,
            self.alpha,
            promise="For each group: the set given for a new case of it contains the true label",
            noun="groups",
            consequence="Their cases get every label.",
        )
        return text + " A case of a group that calibration did not see gets every label."

    def _restore(self, record: MondrianRecord) -> None:
        names = [category.name for category in record.categories]
        same_type = len({type(name) for name in names}) == 1
        if not same_type or names != np.unique(names).tolist():
            raise InvalidInput(
                "the groups of the record are not in ascending order", seen=names, remedy="calibrate again"
            )
