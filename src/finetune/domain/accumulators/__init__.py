"""Counts and sums over rows that come in parts: on one machine, on many workers, in any order.

Every accumulator has ``update`` (adds rows), ``merge`` (adds two up), ``result``, and ``to_dict`` and
``from_dict`` for the way between processes.
"""

from finetune.domain.accumulators.base import Accumulator
from finetune.domain.accumulators.calibration import (
    ClasswiseAccumulator,
    ReliabilityAccumulator,
    SmoothErrorAccumulator,
)
from finetune.domain.accumulators.counts import AccuracyAccumulator, Confusion, ConfusionAccumulator
from finetune.domain.accumulators.coverage import Coverage, CoverageAccumulator
from finetune.domain.accumulators.estimates import Mean, Proportion
from finetune.domain.accumulators.grouped import GroupedAccumulator, GroupedResult
from finetune.domain.accumulators.scores import BrierAccumulator, LogLossAccumulator
from finetune.domain.accumulators.selection import Selection, SelectionAccumulator

__all__ = [
    "Accumulator",
    "AccuracyAccumulator",
    "BrierAccumulator",
    "ClasswiseAccumulator",
    "Confusion",
    "ConfusionAccumulator",
    "Coverage",
    "CoverageAccumulator",
    "GroupedAccumulator",
    "GroupedResult",
    "LogLossAccumulator",
    "Mean",
    "Proportion",
    "ReliabilityAccumulator",
    "Selection",
    "SelectionAccumulator",
    "SmoothErrorAccumulator",
]
