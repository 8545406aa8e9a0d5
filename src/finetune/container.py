"""Composition root: the only place that names adapters.

Every adapter and use case is imported when it is first asked for.  To put another adapter in its place::

    container = Container(progress=SilentProgress())
    container.models.override(MyModelOpener())
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dependency_injector import containers, providers

from finetune.base_models import resolve_model

if TYPE_CHECKING:
    from finetune.application.calibrate import Calibrate
    from finetune.application.calibrate_probabilities import CalibrateProbabilities
    from finetune.application.config import ProjectConfig
    from finetune.application.demo import Demo, ProjectWriter
    from finetune.application.evaluate import Evaluate
    from finetune.application.evaluate_probabilities import EvaluateProbabilities
    from finetune.application.export import Export
    from finetune.application.initialise import Init
    from finetune.application.labels_file import LabelsFile
    from finetune.application.ports import (
        BackendOpener,
        Clock,
        EncoderOpener,
        ExampleSource,
        LogOpener,
        ModelOpener,
        ProbabilitySource,
        Progress,
        ReportWriter,
        SinkOpener,
        StoreOpener,
        StudyOpener,
        Trainer,
    )
    from finetune.application.predict import Predict
    from finetune.application.predict_probabilities import PredictProbabilities
    from finetune.application.prepare import Prepare
    from finetune.application.settings import GuaranteeConfig
    from finetune.application.sweep import Sweep
    from finetune.application.train import Train
    from finetune.backends import BackendInfo


def _read_config(path: Path, overrides: Sequence[str] = ()) -> ProjectConfig:
    from finetune.adapters.files.settings import load_config

    return load_config(path, overrides)


def _read_run_config(run_folder: Path, overrides: Sequence[str] = ()) -> ProjectConfig:
    from finetune.adapters.files.settings import load_run_config

    return load_run_config(run_folder, overrides)


def _read_guarantee_config(path: Path | None = None, overrides: Sequence[str] = ()) -> GuaranteeConfig:
    from finetune.adapters.files.settings import load_guarantee_config

    return load_guarantee_config(path, overrides)


def _read_labels(path: Path) -> LabelsFile:
    from finetune.adapters.files.settings import load_labels

    return load_labels(path)


def _source() -> ExampleSource:
    from finetune.adapters.data.sources import FileSource

    return FileSource()


def _probabilities() -> ProbabilitySource:
    from finetune.adapters.data.probabilities import ProbabilityFiles

    return ProbabilityFiles()


def _sinks() -> SinkOpener:
    from finetune.adapters.data.sinks import open_sink

    return open_sink


def _stores() -> StoreOpener:
    from finetune.adapters.files.store import FolderStore

    return FolderStore


def _logs() -> LogOpener:
    from finetune.adapters.files.log import JsonlLog

    return JsonlLog


def _clock() -> Clock:
    from finetune.adapters.files.clock import SystemClock

    return SystemClock()


def _report() -> ReportWriter:
    from finetune.adapters.reports.html import HtmlReport

    return HtmlReport()


def _project() -> ProjectWriter:
    from finetune.adapters.embedded.project import EmbeddedProject

    return EmbeddedProject()


def _backends(resolve: Callable[[str], str]) -> BackendOpener:
    from finetune.backends import opener

    return opener(resolve)


def _list_backends() -> list[BackendInfo]:
    from finetune.backends import list_backends

    return list_backends()


def _trainer(backends: BackendOpener) -> Trainer:
    from finetune.application.backends import BackendTrainer

    return BackendTrainer(backends)


def _models(backends: BackendOpener) -> ModelOpener:
    from finetune.application.backends import BackendModels

    return BackendModels(backends)


def _encoders(backends: BackendOpener) -> EncoderOpener:
    from finetune.application.backends import BackendEncoders

    return BackendEncoders(backends)


def _studies() -> StudyOpener:
    from finetune.adapters.search.study import open_study

    return open_study


def _init(**ports: Any) -> Init:
    from finetune.application.initialise import Init

    return Init(**ports)


def _prepare(**ports: Any) -> Prepare:
    from finetune.application.prepare import Prepare

    return Prepare(**ports)


def _train(**ports: Any) -> Train:
    from finetune.application.train import Train

    return Train(**ports)


def _sweep(**ports: Any) -> Sweep:
    from finetune.application.sweep import Sweep

    return Sweep(**ports)


def _calibrate(**ports: Any) -> Calibrate:
    from finetune.application.calibrate import Calibrate

    return Calibrate(**ports)


def _evaluate(**ports: Any) -> Evaluate:
    from finetune.application.evaluate import Evaluate

    return Evaluate(**ports)


def _predict(**ports: Any) -> Predict:
    from finetune.application.predict import Predict

    return Predict(**ports)


def _export(**ports: Any) -> Export:
    from finetune.application.export import Export

    return Export(**ports)


def _calibrate_probabilities(**ports: Any) -> CalibrateProbabilities:
    from finetune.application.calibrate_probabilities import CalibrateProbabilities

    return CalibrateProbabilities(**ports)


def _evaluate_probabilities(**ports: Any) -> EvaluateProbabilities:
    from finetune.application.evaluate_probabilities import EvaluateProbabilities

    return EvaluateProbabilities(**ports)


def _predict_probabilities(**ports: Any) -> PredictProbabilities:
    from finetune.application.predict_probabilities import PredictProbabilities

    return PredictProbabilities(**ports)


def _demo(**ports: Any) -> Demo:
    from finetune.application.demo import Demo

    return Demo(**ports)


class Container(containers.DeclarativeContainer):
    """Adapters and use cases, wired; ``progress`` must be given."""

    progress: providers.Provider[Progress] = providers.Dependency()
    resolve_model = providers.Object(resolve_model)

    read_config = providers.Callable(_read_config)
    read_run_config = providers.Callable(_read_run_config)
    read_guarantee_config = providers.Callable(_read_guarantee_config)
    read_labels = providers.Callable(_read_labels)

    source = providers.Factory(_source)
    probabilities = providers.Factory(_probabilities)
    sinks = providers.Factory(_sinks)
    stores = providers.Factory(_stores)
    logs = providers.Factory(_logs)
    clock = providers.Factory(_clock)
    report = providers.Factory(_report)
    project = providers.Factory(_project)
    studies = providers.Factory(_studies)
    backends = providers.Factory(_backends, resolve_model)
    list_backends = providers.Callable(_list_backends)
    trainer = providers.Factory(_trainer, backends)
    models = providers.Factory(_models, backends)
    encoders = providers.Factory(_encoders, backends)

    init = providers.Factory(_init, source=source, stores=stores)
    prepare = providers.Factory(
        _prepare, source=source, stores=stores, encoders=encoders, progress=progress, clock=clock
    )
    train = providers.Factory(
        _train, trainer=trainer, stores=stores, logs=logs, progress=progress, clock=clock
    )
    sweep = providers.Factory(_sweep, train=train, studies=studies, stores=stores, progress=progress)
    calibrate = providers.Factory(_calibrate, models=models, stores=stores, progress=progress, clock=clock)
    evaluate = providers.Factory(
        _evaluate, models=models, stores=stores, report=report, progress=progress, clock=clock
    )
    predict = providers.Factory(
        _predict, models=models, stores=stores, source=source, sinks=sinks, progress=progress
    )
    export = providers.Factory(
        _export, backends=backends, models=models, stores=stores, progress=progress, clock=clock
    )
    calibrate_probabilities = providers.Factory(
        _calibrate_probabilities, source=probabilities, stores=stores, progress=progress, clock=clock
    )
    evaluate_probabilities = providers.Factory(
        _evaluate_probabilities,
        source=probabilities,
        stores=stores,
        report=report,
        progress=progress,
        clock=clock,
    )
    predict_probabilities = providers.Factory(
        _predict_probabilities, source=probabilities, stores=stores, sinks=sinks, progress=progress
    )
    demo = providers.Factory(
        _demo,
        project=project,
        prepare=prepare,
        train=train,
        calibrate=calibrate,
        evaluate=evaluate,
        predict=predict,
        progress=progress,
    )
