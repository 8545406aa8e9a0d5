"""Fitting the baseline."""

from __future__ import annotations

import math
import platform
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from finetune.adapters.baseline.features import NgramFeatures
from finetune.adapters.baseline.model import BaselineScorer, save
from finetune.application.balance import balance_rows
from finetune.application.metric_choice import Metric, greater_is_better
from finetune.application.ports import MetricsLog, Progress, TrainingJob, TrainingOutcome
from finetune.application.training_metrics import measures_of
from finetune.domain.errors import InsufficientData
from finetune.domain.examples import Example
from finetune.domain.labels import LabelSet

_MAX_ITERATIONS = 1000
# Of the gradient's largest entry: the third digit of a log loss is not touched by what is left.
_TOLERANCE = 1e-3


class BaselineTrainer:
    """Fits a multinomial logistic regression for each strength of regularisation, and keeps the best.

    The best one is so by ``training.early_stopping.metric`` on the validation rows.  A fit is a matter of
    seconds to a few minutes, so that an interrupted one begins again.
    """

    def train(self, job: TrainingJob, log: MetricsLog, progress: Progress) -> TrainingOutcome:
        """Fit, and leave the best model in ``adapter/``.

        Raises
        ------
        InsufficientData
            A label has no training rows: a linear model can say nothing of it.
        """
        began = time.monotonic()
        settings, outcomes = job.config.baseline, job.labels.outcomes
        truth = _indices(job.train, job.labels)
        _check_each_label_has_rows(truth, outcomes)
        balance = balance_rows(job)
        # To see a row twice as often and to let it count twice are the same here.
        weights = np.array(balance.weights if balance.shares is None else balance.shares)
        max_chars = job.config.data.max_text_chars
        features = NgramFeatures(settings, max_chars)
        with progress.task("counting n-grams", len(job.train)) as task:
            rows = features.fit([example.text for example in job.train])
            task.advance(len(job.train))
        assert features.weights is not None
        nothing = np.zeros((len(outcomes), settings.features), np.float32)
        first = _measure(job, BaselineScorer(outcomes, features, nothing, nothing[:, 0]))
        log.append("started", {"step": 0, **first})
        best, best_step, steps = dict(first), 0, 0
        kept = (features.weights, nothing, nothing[:, 0])
        with progress.task("fitting", len(settings.inverse_regularisation)) as task:
            for strength in sorted(settings.inverse_regularisation):
                coefficients, intercepts, taken = _fit(rows, truth, weights, strength, progress)
                steps += taken
                found = _measure(job, BaselineScorer(outcomes, features, coefficients, intercepts))
                log.append("evaluation", {"step": steps, "inverse_regularisation": strength, **found})
                task.advance()
                task.describe(f"validation log loss {found['log_loss']:.3f}")
                if _is_better(found, best, job.config.training.early_stopping.metric):
                    best, best_step = dict(found), steps
                    kept = (features.weights, coefficients, intercepts)
        new = job.folder / ".adapter.new"
        shutil.rmtree(new, ignore_errors=True)
        save(new, settings, max_chars, outcomes, kept)
        shutil.rmtree(job.folder / "adapter", ignore_errors=True)
        new.rename(job.folder / "adapter")
        parameters = len(outcomes) * (settings.features + 1)
        return TrainingOutcome(
            steps=steps,
            epochs=float(steps),
            best_step=best_step,
            best=best,
            first=first,
            stopped_early=False,
            trainable_parameters=parameters,
            total_parameters=parameters,
            adapted_modules={},
            precision="fp32",
            shortened_texts=sum(features.removed(example.text) > 0 for example in job.train),
            seconds=time.monotonic() - began,
            versions={
                "python": platform.python_version(),
                **{name: version(name) for name in ("scikit-learn", "scipy", "numpy")},
            },
            path="sparse",
            path_reason="A linear model reads the n-grams of a text and nothing else.",
        )


def _fit(
    rows: csr_matrix,
    truth: NDArray[np.int64],
    weights: NDArray[np.float64],
    strength: float,
    progress: Progress,
) -> tuple[NDArray[np.float32], NDArray[np.float32], int]:
    """Return coefficients, intercepts and the number of iterations."""
    model = LogisticRegression(C=strength, max_iter=_MAX_ITERATIONS, tol=_TOLERANCE)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(rows, truth, sample_weight=weights)
    for warning in caught:
        if not issubclass(warning.category, ConvergenceWarning):
            warnings.warn(warning.message, stacklevel=2)
    taken = int(np.max(model.n_iter_))
    if taken >= _MAX_ITERATIONS:
        progress.say(f"the fit with inverse_regularisation {strength:g} ended after {taken} iterations")
    coefficients, intercepts = model.coef_, model.intercept_
    if len(coefficients) == 1:
        # Of two labels scikit-learn keeps the second one's log-odds.
        coefficients, intercepts = (
            np.concatenate([-part / 2, part / 2]) for part in (coefficients, intercepts)
        )
    return coefficients.astype(np.float32), intercepts.astype(np.float32), taken


def _measure(job: TrainingJob, scorer: BaselineScorer) -> Mapping[str, float]:
    scores = scorer.score([example.text for example in job.validation])
    return measures_of(job.config)(scores.log_probabilities, _indices(job.validation, job.labels))


def _is_better(found: Mapping[str, float], best: Mapping[str, float], metric: Metric) -> bool:
    worst = -math.inf if greater_is_better(metric) else math.inf
    one, other = found.get(metric, worst), best.get(metric, worst)
    return one > other if greater_is_better(metric) else one < other


def _indices(examples: Sequence[Example], labels: LabelSet) -> NDArray[np.int64]:
    return np.array([labels.index(str(example.label)) for example in examples], dtype=np.int64)


def _check_each_label_has_rows(truth: NDArray[np.int64], outcomes: tuple[str, ...]) -> None:
    counts = Counter(truth.tolist())
    without = [name for index, name in enumerate(outcomes) if not counts[index]]
    if without:
        raise InsufficientData(
            "these labels have no training rows, so the baseline could never choose them",
            where="train.jsonl",
            seen=without,
            remedy="add rows, or take the labels out of labels.yaml",
        )
