"""Which backends there are: those of this package, and those that others register by entry point.

A package registers one in its ``pyproject.toml``::

    [project.entry-points."finetune.backends"]
    mine = "my_package.backend:MyBackend"

The object is called without arguments and returns a :class:`~finetune.application.ports.Backend`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any, NamedTuple, cast

from finetune.application.ports import Backend
from finetune.domain.errors import FinetuneError, InvalidInput, MissingExtra

GROUP = "finetune.backends"


class BuiltIn(NamedTuple):
    """A backend of this package: where it is, what it needs, and which extra brings that."""

    summary: str
    factory: str
    extra: str
    modules: tuple[str, ...]

    def missing(self) -> list[str]:
        """Return the modules that are not installed; nothing is imported."""
        return [name for name in self.modules if find_spec(name) is None]


BUILT_IN = {
    "causal": BuiltIn(
        "a language model with a LoRA adapter; scores labels as token trees, writes rationales",
        "finetune.adapters.hf.backend:CausalBackend",
        "hf",
        ("torch", "transformers", "peft", "accelerate", "safetensors", "jinja2"),
    ),
    "encoder": BuiltIn(
        "an encoder such as BERT or MiniLM with a LoRA adapter and a classification head",
        "finetune.adapters.hf.classifier_backend:EncoderBackend",
        "hf",
        ("torch", "transformers", "peft", "accelerate", "safetensors"),
    ),
    "remote": BuiltIn(
        "a model behind an HTTP server: vLLM, SGLang, transformers serve, or a hosted one",
        "finetune.adapters.remote.backend:RemoteBackend",
        "remote",
        ("httpx2",),
    ),
    "baseline": BuiltIn(
        "logistic regression on character n-grams: what a language model has to beat",
        "finetune.adapters.baseline.backend:BaselineBackend",
        "baseline",
        ("sklearn",),
    ),
}


class BackendInfo(NamedTuple):
    """A line of ``finetune backends``.

    Parameters
    ----------
    name, summary
        What to write into the configuration, and what it is.
    origin
        The distribution that brings it.
    problem
        Why it cannot be used here; None where it can.
    remedy
        What to do about that.
    """

    name: str
    summary: str
    origin: str
    problem: str | None = None
    remedy: str | None = None


def open_backend(name: str, resolve: Callable[[str], str]) -> Backend:
    """Return a backend by the name that the configuration gives it.

    Parameters
    ----------
    name
        Of this package or registered by another; this package's names cannot be taken.
    resolve
        Turns a model id into what is loaded; handed to the backends of this package.

    Raises
    ------
    InvalidInput
        There is no such backend, or that of another package cannot be loaded.
    MissingExtra
        Its packages are not installed.
    """
    built_in = BUILT_IN.get(name)
    if built_in is not None:
        if built_in.missing():
            raise MissingExtra(built_in.extra, f"the {name} backend")
        return cast(Backend, _attribute(built_in.factory)(resolve))
    registered = _registered()
    if name not in registered:
        raise InvalidInput(
            "there is no such backend",
            where="backend",
            seen=name,
            remedy=f"choose one of {', '.join([*BUILT_IN, *registered])}, or install the package that has it",
        )
    return cast(Backend, _load(registered[name])())


def list_backends() -> list[BackendInfo]:
    """Return all backends, usable here or not, those of this package first."""
    found = []
    for name, built_in in BUILT_IN.items():
        info = BackendInfo(name, built_in.summary, "finetune-decisions")
        if missing := built_in.missing():
            info = info._replace(
                problem=f"not installed: {', '.join(missing)}",
                remedy=f"pip install 'finetune-decisions[{built_in.extra}]'",
            )
        found.append(info)
    for name, point in _registered().items():
        origin = point.dist.name if point.dist is not None else "unknown"
        try:
            summary = (_load(point).__doc__ or "").strip().partition("\n")[0]
        except FinetuneError as error:
            found.append(BackendInfo(name, "", origin, problem=error.what, remedy=error.remedy))
        else:
            found.append(BackendInfo(name, summary, origin))
    return found


def _registered() -> dict[str, EntryPoint]:
    """Return what other packages registered, by name; names of this package are theirs in vain."""
    points = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    return {point.name: point for point in points if point.name not in BUILT_IN}


def _load(point: EntryPoint) -> Callable[[], Any]:
    try:
        return cast(Callable[[], Any], point.load())
    except Exception as error:
        raise InvalidInput(
            f"the backend cannot be loaded: {type(error).__name__}: {error}",
            where=f"entry point {point.name} = {point.value}",
            remedy="install what the package needs, or ask those who made it",
        ) from error


def _attribute(path: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    return cast(Callable[..., Any], getattr(import_module(module), name))


def opener(resolve: Callable[[str], str]) -> Callable[[str], Backend]:
    """Return :func:`open_backend` with the models of this installation."""
    return partial(open_backend, resolve=resolve)
