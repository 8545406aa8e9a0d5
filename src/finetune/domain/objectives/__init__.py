"""Training objectives as functions of label log-probabilities: one loss a row, in double precision.

These are the references that the torch forms are held against.  Each docstring states the formula, the
gradient with respect to the logits z (log p = log_softmax(z)), and what becomes of an undecidable example:
one whose label is drawn from a posterior pi, so that it is moved by the mean of the gradient over that draw.
"""

from finetune.domain.objectives.abstention import GATE_WIDTH, abstention_gate, abstention_loss
from finetune.domain.objectives.conformal_training import LOG_OFFSET, conformal_training_loss, threshold_rank
from finetune.domain.objectives.cross_entropy import cross_entropy_loss, focal_loss
from finetune.domain.objectives.expected_cost import expected_cost_loss, relative_costs
from finetune.domain.objectives.rows import LOWEST

__all__ = [
    "GATE_WIDTH",
    "LOG_OFFSET",
    "LOWEST",
    "abstention_gate",
    "abstention_loss",
    "conformal_training_loss",
    "cross_entropy_loss",
    "expected_cost_loss",
    "focal_loss",
    "relative_costs",
    "threshold_rank",
]
