"""Conformity scores: how strange each label would be as the true one, greater is stranger.

One :class:`Score` serves calibration and prediction, so that the two cannot disagree:

>>> import numpy as np
>>> rows, labels = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]]), np.array([1, 1])
>>> score = make_score("aps")
>>> score.of_labels(rows, labels).round(3)
array([1.609, 0.   ])
>>> score.sets(rows, 1.7)
array([[ True, True, False],
       [False,  True, False]])

``of_labels`` scores one label a row (calibration), ``sets`` compares with one threshold or one a row,
``label_sets`` with one threshold a label, ``matrix`` scores all labels.  They agree to the last bit:
``sets(rows, t)`` is ``matrix(rows) <= t[:, None]``, and ``of_labels`` picks from ``matrix``.  Rows must have
gone through ``checked_rows`` and labels through ``as_labels``; float32 stays float32, but is added up in
double precision.  In a randomised form all take u, one uniform number a row, shared by its labels.

The scores of LAC, APS and margin are minus logarithms: on the scale of probabilities the labels of a
saturated model all sit at 1 and cannot be told apart.  Those of RAPS (less 1), SAPS and top-k are those of
the papers.
"""

from finetune.domain.conformal.scores.base import Score
from finetune.domain.conformal.scores.factory import METHODS, conformal_scores, make_score

__all__ = ["METHODS", "Score", "conformal_scores", "make_score"]
