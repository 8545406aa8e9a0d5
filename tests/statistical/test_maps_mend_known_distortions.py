"""Each map undoes the distortion that it is made for: on new rows its log loss is that of the truth."""

import numpy as np
import pytest
from scipy.special import expit, log_softmax

from finetune.domain.calibration.maps import MAPS, choose_map

ROWS, NEW = 20_000, 200_000


def labels_of(rng, log_probs):
    return (log_probs + rng.gumbel(size=log_probs.shape)).argmax(axis=1)


def truth(rng, n, k):
    return log_softmax(rng.normal(0, 1.5, size=(n, k)), axis=1)


def hot(z):
    return 3.0 * z


def offset(z):
    return (z - np.linspace(-1, 1, z.shape[1])) / np.linspace(0.5, 1.5, z.shape[1])


def mixed(z):
    k = z.shape[1]
    return z @ np.linalg.inv(np.eye(k) + 0.2 * np.roll(np.eye(k), 1, axis=1)).T + 0.3 * np.arange(k)


def tilted(z):
    """Log-odds of label 1 times 2, plus 1."""
    return np.column_stack([np.zeros(len(z)), 2 * (z[:, 1] - z[:, 0]) + 1])


def squeezed(z):
    """Log-odds of label 1: the truth is a beta curve of what is shown."""
    shown = np.linspace(-30, 30, 200_001)
    curve = 0.5 * np.log(expit(shown)) - 1.5 * np.log(expit(-shown)) - 0.4
    return np.column_stack([np.zeros(len(z)), np.interp(z[:, 1] - z[:, 0], curve, shown)])


def bent(z):
    """Rising, and in no parametric family."""
    return np.column_stack([np.zeros(len(z)), np.arcsinh(z[:, 1] - z[:, 0]) ** 3])


CASES = [  # kind, labels, distortion, numbers that are fitted (None: a curve without a formula)
    ("temperature", 5, hot, 1),
    ("platt", 2, hot, 2),
    ("platt", 2, tilted, 2),
    ("vector", 5, hot, 10),
    ("vector", 5, offset, 10),
    ("matrix", 5, mixed, 30),
    ("matrix", 5, offset, 30),
    ("dirichlet", 5, hot, 30),
    ("beta", 2, tilted, 3),
    ("isotonic", 2, squeezed, None),
    ("isotonic", 2, bent, None),
    ("histogram", 2, bent, None),
]
# No multiple of these log-odds is in a parametric family.
CURVES = [("dirichlet", 2, squeezed, 6), ("beta", 2, squeezed, 3)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "k", "distort", "parameters", "scale"),
    [(*case, scale) for case in CASES for scale in (1.0, 40.0)] + [(*case, 1.0) for case in CURVES],
)
def test_the_loss_on_new_rows_is_that_of_the_truth(kind, k, distort, parameters, scale):
    rng = np.random.default_rng([k, len(kind), int(scale)])
    z, z_new = truth(rng, ROWS, k), truth(rng, NEW, k)
    options = {"n_bins": 30} if kind == "histogram" else {}
    fitted = MAPS[kind].fit(scale * distort(z), labels_of(rng, z), **options)
    labels = labels_of(rng, z_new)
    log_probs = fitted.apply(scale * distort(z_new))
    excess = (z_new - log_probs)[np.arange(NEW), labels]
    # A fit of d numbers to n rows costs d / (2 n) on average, and seldom 2.5 times that.  Curves without a
    # formula cost some n^(-2/3) = 0.0014, or what 30 steps lose.
    allowed = 0.003 if parameters is None else 2.5 * parameters / (2 * ROWS)
    assert excess.mean() <= allowed + 4 * excess.std() / np.sqrt(NEW)
    untouched = (z_new - log_softmax(scale * distort(z_new), axis=1))[np.arange(NEW), labels].mean()
    assert untouched > 5 * allowed


@pytest.mark.slow
@pytest.mark.parametrize("distort", [np.array, hot, offset, mixed])
def test_the_choice_is_never_clearly_worse_than_the_best_candidate(distort):
    rng = np.random.default_rng(0)
    z, z_new = truth(rng, 3000, 4), truth(rng, NEW, 4)
    labels, new = labels_of(rng, z), labels_of(rng, z_new)
    rows, rows_new = distort(z), distort(z_new)

    def loss(fitted):
        return -fitted.apply(rows_new)[np.arange(NEW), new].mean()

    chosen = choose_map(rows, labels, rng)
    assert loss(chosen.map) < min(loss(MAPS[kind].fit(rows, labels)) for kind in MAPS) + 0.005
