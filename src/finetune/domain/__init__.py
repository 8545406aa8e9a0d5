"""Labels, decisions, calibration, conformal prediction and risk: pure functions of arrays and text.

Needs numpy, scipy and pydantic, and nothing else.

Examples
--------
>>> import numpy as np
>>> rng = np.random.default_rng(0)
>>> probs = rng.dirichlet([0.3, 0.3, 0.3], size=1000)
>>> labels = (probs.cumsum(axis=1) > rng.random((1000, 1))).argmax(axis=1)
>>> sets = ConformalPredictor("lac").calibrate(probs[:500], labels[:500], alpha=0.1).predict(probs[500:])
>>> sets.shape
(500, 3)
>>> decisions = RiskControlledPredictor().calibrate(probs[:500], labels[:500], risk_level=0.1).predict(probs)
>>> sorted(set(decisions.tolist()))
[-1, 0, 1, 2]
"""

from finetune.domain.calibration import (
    Temperature,
    compute_brier_score,
    compute_ece,
    compute_log_loss,
    compute_mce,
    fit_temperature,
)
from finetune.domain.conformal import ConformalPredictor, CoverageLaw, conformal_quantile, conformal_rank
from finetune.domain.decisions import DecisionRecord, Guarantee, ModelReference
from finetune.domain.errors import (
    FinetuneError,
    InfeasibleGuarantee,
    InsufficientData,
    IntegrityError,
    InvalidInput,
    LeakageDetected,
    MissingExtra,
)
from finetune.domain.examples import Example
from finetune.domain.labels import ABSTAIN, Abstention, Label, LabelSet
from finetune.domain.parsing import ParsedAnswer, parse_answer
from finetune.domain.prompts import PromptFormat, answer_text, default_prompt
from finetune.domain.risk import (
    RiskControlledPredictor,
    bayes_actions,
    cost_matrix,
    risk_coverage_curve,
    selective_threshold,
)
from finetune.domain.splits import assign_splits, detect_leakage, remove_duplicates
from finetune.domain.statistics import clopper_pearson_interval, wilson_interval

__all__ = [
    "ABSTAIN",
    "Abstention",
    "ConformalPredictor",
    "CoverageLaw",
    "DecisionRecord",
    "Example",
    "FinetuneError",
    "Guarantee",
    "InfeasibleGuarantee",
    "InsufficientData",
    "IntegrityError",
    "InvalidInput",
    "Label",
    "LabelSet",
    "LeakageDetected",
    "MissingExtra",
    "ModelReference",
    "ParsedAnswer",
    "PromptFormat",
    "RiskControlledPredictor",
    "Temperature",
    "answer_text",
    "assign_splits",
    "bayes_actions",
    "clopper_pearson_interval",
    "compute_brier_score",
    "compute_ece",
    "compute_log_loss",
    "compute_mce",
    "conformal_quantile",
    "conformal_rank",
    "cost_matrix",
    "default_prompt",
    "detect_leakage",
    "fit_temperature",
    "parse_answer",
    "remove_duplicates",
    "risk_coverage_curve",
    "selective_threshold",
    "wilson_interval",
]
