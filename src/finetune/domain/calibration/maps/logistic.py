"""Binary logistic regression on a few features, for soft targets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from finetune.domain.calibration.maps.newton import Expansion, minimise, solve_dense
from finetune.domain.checks import FloatArray

_RIDGE = 1e-9


def fit_logistic(features: FloatArray, targets: FloatArray) -> tuple[FloatArray, float]:
    """Weights and intercept of the logistic regression of targets on features.

    A ridge of 1e-9 on the weights of the standardised features makes the optimum exist and be the only one:
    a feature that does not vary gets the weight 0, and rows that are told apart perfectly finite weights.

    Parameters
    ----------
    features
        Shape (n, d), finite.
    targets
        Shape (n,), in [0, 1].

    Returns
    -------
    tuple of FloatArray and float
        Weights, shape (d,), and the intercept.

    Examples
    --------
    >>> weights, intercept = fit_logistic(np.array([[0.0], [1.0]]), np.array([0.5, 0.75]))
    >>> weights.round(4), round(abs(intercept), 4)  # the line through log-odds 0 and log 3
    (array([1.0986]), 0.0)
    """
    centre = features.mean(axis=0)
    unit = features.std(axis=0)
    unit[unit <= 1e-50 + 1e-12 * np.abs(centre)] = np.inf
    extended = np.hstack([(features - centre) / unit, np.ones((len(features), 1))])
    theta = minimise(_LogisticLoss(extended, targets), np.zeros(extended.shape[1]))
    weights = theta[:-1] / unit
    return weights, float(theta[-1] - weights @ centre)


def logistic_loss(log_odds: FloatArray, targets: FloatArray) -> float:
    """Mean log loss of the log-odds of an event against soft targets.

    Examples
    --------
    >>> round(logistic_loss(np.array([0.0]), np.array([0.5])), 4)
    0.6931
    """
    with np.errstate(under="ignore"):
        return float(np.mean(np.logaddexp(0.0, log_odds) - targets * log_odds))


@dataclass(frozen=True)
class _LogisticLoss:
    features: FloatArray
    targets: FloatArray

    def value(self, theta: FloatArray) -> float:
        return logistic_loss(self.features @ theta, self.targets) + _RIDGE / 2 * float(theta @ theta)

    def expand(self, theta: FloatArray) -> Expansion:
        x, n = self.features, len(self.features)
        p = expit(x @ theta)
        gradient = x.T @ (p - self.targets) / n + _RIDGE * theta
        hessian = (x.T * (p * (1.0 - p))) @ x / n
        hessian[np.diag_indices_from(hessian)] += _RIDGE
        return Expansion(gradient, solve_dense(hessian))
