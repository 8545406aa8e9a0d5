"""What the use cases need from outside, as protocols.  Adapters implement them; fakes do in tests.

Files are named by ``pathlib.Path``; only adapters open them.
"""

from finetune.application.ports.artifacts import (
    ArtifactStore,
    ReportWriter,
    StoreOpener,
)
from finetune.application.ports.backends import Backend, BackendOpener, ModelExporter
from finetune.application.ports.data import (
    BadRow,
    DecisionSink,
    ExampleSource,
    RawRow,
    SinkOpener,
)
from finetune.application.ports.models import (
    DecisionModel,
    EncodedExample,
    EncoderOpener,
    LabelScorer,
    LabelScores,
    ModelIdentity,
    ModelOpener,
    PromptEncoder,
    RationaleWriter,
)
from finetune.application.ports.probabilities import (
    Inputs,
    ProbabilityFile,
    ProbabilityRows,
    ProbabilitySource,
)
from finetune.application.ports.progress import (
    Clock,
    Progress,
    ProgressTask,
)
from finetune.application.ports.search import (
    Direction,
    FinishedTrial,
    LogRange,
    Proposal,
    SearchStudy,
    Settings,
    Space,
    StudyOpener,
    Value,
)
from finetune.application.ports.training import (
    BEGUN,
    CHECKPOINTS,
    TRACKING,
    LogOpener,
    MetricsLog,
    Trainer,
    TrainingJob,
    TrainingOutcome,
)

__all__ = [
    "BEGUN",
    "CHECKPOINTS",
    "TRACKING",
    "ArtifactStore",
    "Backend",
    "BackendOpener",
    "BadRow",
    "Clock",
    "DecisionModel",
    "DecisionSink",
    "Direction",
    "EncodedExample",
    "EncoderOpener",
    "ExampleSource",
    "FinishedTrial",
    "Inputs",
    "LabelScorer",
    "LabelScores",
    "LogOpener",
    "LogRange",
    "MetricsLog",
    "ModelExporter",
    "ModelIdentity",
    "ModelOpener",
    "ProbabilityFile",
    "ProbabilityRows",
    "ProbabilitySource",
    "Progress",
    "ProgressTask",
    "PromptEncoder",
    "Proposal",
    "RationaleWriter",
    "RawRow",
    "ReportWriter",
    "SearchStudy",
    "Settings",
    "SinkOpener",
    "Space",
    "StoreOpener",
    "StudyOpener",
    "Trainer",
    "TrainingJob",
    "TrainingOutcome",
    "Value",
]
