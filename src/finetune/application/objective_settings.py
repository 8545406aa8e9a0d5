"""What training minimises: the sections of the configuration, and what they come to together."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import Field

from finetune.application.settings import Probability, Section

ObjectiveName = Literal["cross_entropy", "focal", "abstention", "expected_cost", "conformal"]

# They have next to no gradient where the model is sure and wrong, so the label's cross-entropy stays.
_NEED_CROSS_ENTROPY = ("expected_cost", "conformal")
_SHARE = 0.5
# All of them are run with each row: 77 can be several times as many tokens as all the rest.
_MOST_LABELS = 10
_WITHOUT_TRAINING_STEPS = ("baseline", "remote")


class ConformalTraining(Section):
    """Options of the objective ``conformal``."""

    alpha: Probability = 0.1
    temperature: float = Field(0.1, gt=0.0)
    size_weight: float = Field(1.0, ge=0.0, le=100.0)
    target_size: float = Field(1.0, ge=0.0)


class ObjectiveConfig(Section):
    """What is asked of the label probabilities, beside the loss of the answer itself."""

    name: ObjectiveName = "cross_entropy"
    weight: float | None = Field(None, ge=0.0, le=1.0)
    label_smoothing: float = Field(0.0, ge=0.0, lt=1.0)
    gamma: float = Field(2.0, ge=0.0, le=100.0)
    conformal: ConformalTraining = ConformalTraining()  # type: ignore[call-arg]


class AbstentionLoss(Section):
    """Options of the objective ``abstention``; ``enabled`` is the same as naming it."""

    enabled: bool = False
    confidence_threshold: float = Field(0.7, ge=0.0, le=1.0)
    abstention_penalty: float = Field(0.3, ge=0.0, le=100.0)
    uncertainty_weight: float = Field(0.1, ge=0.0, le=100.0)


class ChosenObjective(NamedTuple):
    """The objective of a run.

    Parameters
    ----------
    name
        Which.
    weight
        Its share w of the loss of a step, (1 - w) times the loss of the answer plus w times the objective;
        0: it is not computed.  None: that depends on the number of labels.
    """

    name: ObjectiveName
    weight: float | None

    def share(self, labels: int) -> float:
        """Return the weight for a number of labels.

        Examples
        --------
        >>> usual = ChosenObjective("cross_entropy", None)
        >>> usual.share(6), usual.share(77)
        (0.5, 0.0)
        """
        if self.weight is not None:
            return self.weight
        return _SHARE if labels <= _MOST_LABELS else 0.0


def resolve_objective(
    backend: str, objective: ObjectiveConfig, abstention: AbstentionLoss
) -> ChosenObjective:
    """Return the objective that the two sections come to.

    Parameters
    ----------
    backend
        Name of the backend.  The loss of the answer is that of its tokens where it is ``causal``, and the
        cross-entropy of the label elsewhere.
    objective, abstention
        The sections ``objective`` and ``abstention_loss``.

    Raises
    ------
    ValueError
        They contradict each other or the backend.

    Notes
    -----
    Where no weight is given, it is 0.5 for ``causal``; but cross-entropy without smoothing, which the loss of
    the answer holds after a fashion, is left to it where there are more than 10 labels, for the time that all
    of them take.  Elsewhere it is 1, but 0.5 for ``expected_cost`` and ``conformal``, which have no gradient
    where a model is sure and wrong.

    Examples
    --------
    >>> focal, none = ObjectiveConfig(name="focal"), AbstentionLoss()
    >>> resolve_objective("causal", focal, none), resolve_objective("encoder", focal, none).weight
    (ChosenObjective(name='focal', weight=0.5), 1.0)
    """
    name = "abstention" if abstention.enabled else objective.name
    if abstention.enabled and objective.name not in ("cross_entropy", "abstention"):
        raise ValueError(
            f"objective.name asks for {objective.name} and abstention_loss.enabled for abstention; choose one"
        )
    if objective.label_smoothing and name != "cross_entropy":
        raise ValueError(
            f"objective.label_smoothing is an option of the objective cross_entropy, not of {name}"
        )
    if name == "abstention" and not abstention.abstention_penalty:
        raise ValueError(
            "abstention_loss.abstention_penalty must be greater than 0: what is below the threshold would "
            "never be learnt"
        )
    plain = name == "cross_entropy" and not objective.label_smoothing
    if objective.weight == 0.0 and not plain:
        raise ValueError(
            "objective.weight 0 leaves the objective out; give it a share of the loss, or set objective.name "
            "to cross_entropy, without smoothing, and abstention_loss.enabled to false"
        )
    if backend in _WITHOUT_TRAINING_STEPS:
        if not plain or objective.weight is not None:
            raise ValueError(
                f"the {backend} backend has no objective to choose; set objective.name to cross_entropy, "
                "without weight or smoothing, and abstention_loss.enabled to false"
            )
        return ChosenObjective(name, 0.0)
    usual: float | None
    if backend == "causal":
        if objective.weight == 1.0:
            raise ValueError(
                "objective.weight must be less than 1 with the causal backend: nothing would teach the model "
                "to write its answer"
            )
        usual = None if plain else _SHARE
    else:
        usual = _SHARE if name in _NEED_CROSS_ENTROPY else 1.0
    return ChosenObjective(name, usual if objective.weight is None else objective.weight)
