"""Intervals, tests, multiplicity and resampling."""

from finetune.domain.statistics.differences import (
    LargestDifference,
    largest_difference,
    newcombe_interval,
    newcombe_paired_interval,
)
from finetune.domain.statistics.intervals import (
    Interval,
    binomial_upper_bound,
    clopper_pearson_interval,
    clopper_pearson_upper,
    wilson_interval,
)
from finetune.domain.statistics.multiplicity import (
    SequenceResult,
    adjusted_p_values,
    fallback_sequence,
    fixed_sequence,
    rejections,
)
from finetune.domain.statistics.permutation import (
    PermutationTest,
    paired_permutation_test,
    permutation_test,
)
from finetune.domain.statistics.resampling import (
    bootstrap_interval,
    bootstrap_mean_interval,
    cluster_bootstrap_interval,
    multinomial_interval,
)
from finetune.domain.statistics.sample_size import calibration_rows_needed

__all__ = [
    "Interval",
    "LargestDifference",
    "PermutationTest",
    "SequenceResult",
    "adjusted_p_values",
    "binomial_upper_bound",
    "bootstrap_interval",
    "bootstrap_mean_interval",
    "calibration_rows_needed",
    "clopper_pearson_interval",
    "clopper_pearson_upper",
    "cluster_bootstrap_interval",
    "fallback_sequence",
    "fixed_sequence",
    "largest_difference",
    "multinomial_interval",
    "newcombe_interval",
    "newcombe_paired_interval",
    "paired_permutation_test",
    "permutation_test",
    "rejections",
    "wilson_interval",
]
