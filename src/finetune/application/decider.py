"""A calibrated model that turns texts into decision records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from finetune.application.certificate import Certificate
from finetune.application.config import ProjectConfig
from finetune.application.decision_rule import DecisionRule, certified_rule
from finetune.application.ports import DecisionModel, ModelOpener, ProgressTask, StoreOpener
from finetune.application.records import build_records, reference
from finetune.application.runs import open_run
from finetune.domain.decisions import DecisionRecord
from finetune.domain.errors import InvalidInput
from finetune.domain.labels import ABSTAIN


class Item(NamedTuple):
    """One input row: a text to decide on, or the reason why there is none."""

    id: str
    text: str
    reason: Literal["none", "too_long", "error"] = "none"
    problem: str = ""


def check_text(id: str, text: str, max_chars: int) -> Item:
    """Return the item of a text; a text that cannot be scored says why.

    Examples
    --------
    >>> check_text("7", " ", 100).problem
    'the text is empty'
    """
    if not text.strip():
        return Item(id, text, "error", "the text is empty")
    if len(text) > max_chars:
        return Item(id, text, "too_long", f"the text has {len(text):,} characters, more than {max_chars:,}")
    try:
        text.encode()
    except UnicodeEncodeError:
        return Item(id, text, "error", "the text is not valid Unicode (a lone surrogate)")
    return Item(id, text)


@dataclass(frozen=True)
class Decider:
    """The model, its certificate and the rule that the certificate describes.

    Parameters
    ----------
    model, certificate, rule
        They belong together: build a decider with :func:`open_decider`.
    """

    model: DecisionModel
    certificate: Certificate
    rule: DecisionRule

    def decide(
        self, items: Sequence[Item], *, rationale: bool, task: ProgressTask | None = None
    ) -> list[DecisionRecord]:
        """Return one record per item, in order.

        Parameters
        ----------
        items
            What came in.
        rationale
            Whether the model writes why, after the decision and without influence on it.  Only for its own
            decisions: why the rule hands a message over is said by the reason, and a text that the model
            made up would say something else.
        task
            Advanced by one for each item.
        """
        scored = [item for item in items if item.reason == "none"]
        if task is not None:
            task.advance(len(items) - len(scored))
        ordered = iter(self._scored(scored, rationale=rationale, task=task) if scored else ())
        return [self._unscored(item) if item.reason != "none" else next(ordered) for item in items]

    def _scored(
        self, items: Sequence[Item], *, rationale: bool, task: ProgressTask | None
    ) -> list[DecisionRecord]:
        texts = [item.text for item in items]
        scores = self.model.scorer.score(texts, task)
        rulings = self.rule.apply(scores)
        rationales: list[str | None] = [None] * len(items)
        if rationale and self.model.writer is not None:
            own = [i for i, why in enumerate(rulings.reasons) if why in ("none", "model_abstained")]
            written = self.model.writer.write([texts[i] for i in own], [rulings.decisions[i] for i in own])
            for i, text in zip(own, written, strict=True):
                rationales[i] = text
        return build_records(
            self.certificate,
            [item.id for item in items],
            rulings,
            label_mass=scores.label_mass,
            left_out=scores.left_out,
            rationales=rationales,
        )

    def _unscored(self, item: Item) -> DecisionRecord:
        return DecisionRecord(
            id=item.id,
            decision=ABSTAIN,
            abstain=True,
            abstain_reason=item.reason,
            confidence=0.0,
            probabilities={},
            model=reference(self.certificate),
        )


def open_decider(
    config: ProjectConfig, models: ModelOpener, stores: StoreOpener, *, rationale: bool = False
) -> Decider:
    """Open a calibrated run for decisions.

    Parameters
    ----------
    config
        The configuration of the run.
    models, stores
        The ports it works through.
    rationale
        Whether rationales will be asked for.

    Raises
    ------
    InvalidInput
        The run was not trained, or not calibrated, or its model cannot write the rationales asked for.
    IntegrityError
        The certificate belongs to another model, adapter, prompt or label set, or files are damaged.
    """
    run = open_run(config, stores)
    certificate = run.certificate()
    model = run.open_model(models)
    certificate.check(model.identity, run.labels)
    if rationale and model.writer is None:
        raise InvalidInput(
            f"models of the {config.backend} backend write no rationales",
            where="prediction.rationale",
            seen=True,
            remedy="ask for none, or train with backend: causal",
        )
    return Decider(model, certificate, certified_rule(certificate))
