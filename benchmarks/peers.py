"""How the peers are asked for what finetune.domain gives.  Needs the environment of tests/crosscheck."""

from __future__ import annotations

import sys
import warnings
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# TorchCP imports these for graphs, language models and a training loss; torchsort would have to be compiled.
_NOT_USED = (
    "torchsort",
    "torch_geometric",
    "torch_geometric.nn",
    "torch_geometric.loader",
    "torch_geometric.utils",
    "torch_geometric.utils.convert",
    "transformers",
)


class _StandIn(ModuleType):
    __path__: list[str] = []  # noqa: RUF012

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def torchcp() -> ModuleType:
    """Import TorchCP's classification package, with stand-ins for the packages that it does not use."""
    import sklearn.cluster  # noqa: F401  It looks for packages itself, and must not see the stand-ins.
    import torch  # noqa: F401

    absent = [name for name in _NOT_USED if name not in sys.modules]
    sys.modules.update({name: _StandIn(name) for name in absent})
    try:
        import torchcp.classification as package
        import torchcp.classification.predictor
        import torchcp.classification.score  # noqa: F401
    finally:
        for name in absent:
            del sys.modules[name]
    return package


def torchcp_predictor(score: Any, kind: str = "SplitPredictor", **options: Any) -> Any:
    """Make a TorchCP predictor around a score; the deprecation notice of each construction is dropped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(torchcp().predictor, kind)(score, **options)


class Identity:
    """A fitted classifier in the manner of scikit-learn whose features are its probabilities."""

    def __init__(self, n_labels: int) -> None:
        self.classes_ = np.arange(n_labels)
        self.n_features_in_ = n_labels

    def fit(self, *_: Array) -> Identity:
        return self

    def predict_proba(self, X: Array) -> Array:
        return X

    def predict(self, X: Array) -> Array:
        return np.asarray(X.argmax(axis=1))

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        from sklearn.base import BaseEstimator, ClassifierMixin

        return type("Tags", (ClassifierMixin, BaseEstimator), {})().__sklearn_tags__()


def mapie_classifier(score: Any, n_labels: int, confidence: float, seed: int = 0) -> Any:
    """Make a MAPIE classifier around probabilities that are there already."""
    from mapie.classification import SplitConformalClassifier

    return SplitConformalClassifier(
        Identity(n_labels), confidence_level=confidence, conformity_score=score, random_state=seed
    )
