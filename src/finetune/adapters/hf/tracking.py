"""Sending what is measured to TensorBoard, Weights & Biases, MLflow or trackio as well."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from transformers.integrations import TensorBoardCallback, get_available_reporting_integrations

from finetune.application.ports import TRACKING
from finetune.domain.errors import MissingExtra

_NAMES = {
    "tensorboard": "TensorBoard",
    "wandb": "Weights & Biases",
    "mlflow": "MLflow",
    "trackio": "trackio",
}
_TENSORBOARD = "TENSORBOARD_LOGGING_DIR"


def check_trackers(names: Sequence[str]) -> None:
    """Check that the packages of trackers are installed.

    Raises
    ------
    MissingExtra
        One is not; with the line that installs it.
    """
    available = get_available_reporting_integrations() if names else []
    for name in names:
        if name not in available:
            raise MissingExtra(name, f"training.report_to with {_NAMES[name]}")


@contextmanager
def trackers_in(run: Path, names: Sequence[str], *, name: str, main: bool) -> Iterator[None]:
    """Have trackers write into a run folder, for as long as the context lasts.

    What the environment says already goes first: a server, or another folder.  trackio has one folder for
    each process, and keeps it.

    Parameters
    ----------
    run
        The run folder.
    names
        The trackers.
    name
        What W&B calls the run.
    main
        Whether this is the process that reports.
    """
    folder = (run / TRACKING).resolve()
    places = {
        "tensorboard": {_TENSORBOARD: str(folder / "tensorboard")},
        "mlflow": {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"},
    }
    added = {
        variable: value
        for tracker in names
        for variable, value in places.get(tracker, {}).items()
        if variable not in os.environ
    }
    if main and names:
        folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(added)
    try:
        with _wandb_run(folder, name) if main and "wandb" in names else nullcontext():
            yield
    finally:
        for variable in added:
            os.environ.pop(variable, None)


def _wandb_run(folder: Path, name: str) -> AbstractContextManager[Any]:
    """Open the W&B run that transformers will find, unless the caller has one open.

    transformers would not close its own, and a second training of the same process would go on in it.
    """
    import wandb

    if wandb.run is not None:
        return nullcontext()
    project = os.environ.get("WANDB_PROJECT", "finetune")
    return wandb.init(dir=os.environ.get("WANDB_DIR", str(folder)), project=project, name=name)


def open_tensorboard(step: int) -> TensorBoardCallback:
    """Return transformers' callback, which would not say that a training goes on from a step.

    TensorBoard then hides what a killed training wrote after that step.
    """
    from torch.utils.tensorboard import SummaryWriter

    return TensorBoardCallback(SummaryWriter(os.environ[_TENSORBOARD], purge_step=step + 1))
