"""Intervals and resampling."""

from finetune.domain.statistics.intervals import (
    Interval,
    binomial_upper_bound,
    clopper_pearson_interval,
    clopper_pearson_upper,
    wilson_interval,
)
from finetune.domain.statistics.resampling import bootstrap_interval, bootstrap_mean_interval

__all__ = [
    "Interval",
    "binomial_upper_bound",
    "bootstrap_interval",
    "bootstrap_mean_interval",
    "clopper_pearson_interval",
    "clopper_pearson_upper",
    "wilson_interval",
]
