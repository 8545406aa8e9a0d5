"""The run folder's ``README.md``: a model card that a hub can read and a person can check."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from finetune.application.config import ProjectConfig, is_hub_id
from finetune.application.labels_file import LabelsFile
from finetune.application.statements import NOT_PROMISED
from finetune.application.wording import count, decimal, describe_map, plural
from finetune.domain.labels import digest

Document = Mapping[str, Any]
_MAX_LABELS = 50


def render_model_card(
    config: ProjectConfig,
    labels: LabelsFile,
    *,
    training: Document | None = None,
    certificate: Document | None = None,
    evaluation: Document | None = None,
) -> str:
    """Write the card from whatever the run folder holds so far.

    Parameters
    ----------
    config, labels
        What the run was made with.
    training, certificate, evaluation
        ``training_metrics.json``, ``calibration.json`` and ``evaluation.json``; None where that step was not
        done, which the card then says.  An evaluation of another certificate is left out.

    Returns
    -------
    str
        Markdown with YAML front matter; text from the labels file is escaped.

    Examples
    --------
    >>> config = ProjectConfig(model_id="owner/base", data={"files": ["a.csv"]})
    >>> labels = LabelsFile(task="Sort the mail", labels=[{"name": "bill"}, {"name": "other"}])
    >>> print(render_model_card(config, labels).splitlines()[1])
    base_model: owner/base
    """
    if evaluation is not None and (
        certificate is None or evaluation["certificate"]["hash"] != digest(certificate)
    ):
        evaluation = None
    sections = [
        _front_matter(config),
        f"# {_plain(labels.task)}: {_kind(config)}",
        _decides(labels, certificate),
        _trained(config, training),
        _promises(certificate),
        _measured(evaluation),
        _limits(certificate),
        _loading(config),
    ]
    return "\n\n".join(sections) + "\n"


def _kind(config: ProjectConfig) -> str:
    if config.backend == "causal":
        return f"adapter for {_plain(config.model_id)}"
    return f"a model of the {config.backend} backend"


def _front_matter(config: ProjectConfig) -> str:
    lines = ["---"]
    if config.backend == "causal":
        if is_hub_id(config.model_id):
            lines.append(f"base_model: {config.model_id}")
        lines.append("library_name: peft")
    lines += [
        "pipeline_tag: text-classification",
        "tags:",
        *(["- lora"] if config.backend == "causal" else []),
        "- text-classification",
        "- selective-classification",
        "- conformal-prediction",
        "- calibration",
        "---",
    ]
    return "\n".join(lines)


def _decides(labels: LabelsFile, certificate: Document | None) -> str:
    shown = labels.labels[:_MAX_LABELS]
    lines = ["## What it decides", "", f"{plural(len(labels.labels), 'label')}:", ""]
    lines += [
        f"- **{_plain(entry.name)}**" + (f": {_plain(entry.description)}" if entry.description else "")
        for entry in shown
    ]
    if len(shown) < len(labels.labels):
        lines.append(f"- and {count(len(labels.labels) - len(shown))} more, see `labels.yaml`")
    if labels.abstain is not None:
        lines.append(f"- **abstain**: {_plain(labels.abstain.description) or 'not decidable from the text'}")
    if certificate is not None:
        lines += ["", "Where it is not sure enough, it hands the message to a person."]
    return "\n".join(lines)


def _trained(config: ProjectConfig, training: Document | None) -> str:
    lines = ["## Training", ""]
    revision = f" at revision `{config.revision}`" if config.revision else ""
    lines.append(
        f"LoRA adapter (r = {config.lora.r}, alpha = {config.lora.alpha:g}, dropout = "
        f"{config.lora.dropout:g}) on `{config.model_id}`{revision}; configuration in `config.yaml`."
        if config.backend == "causal"
        else f"Trained with `backend: {config.backend}`; configuration in `config.yaml`."
    )
    if training is None:
        return "\n".join([*lines, "", "No record of the training is in this folder."])
    lines.append("")
    lines += _table(
        ("", ""),
        [
            ("Steps (epochs)", f"{count(training['steps'])} ({decimal(training['epochs'])})"),
            ("Best step", count(training["best_step"])),
            ("Trainable parameters", _share(training["trainable_parameters"], training["total_parameters"])),
            ("Precision", str(training["precision"])),
            ("Texts shortened to fit", count(training["shortened_texts"])),
            *((f"Best {name}", decimal(value)) for name, value in sorted(training["best"].items())),
        ],
    )
    return "\n".join(lines)


def _promises(certificate: Document | None) -> str:
    if certificate is None:
        return "## What is promised\n\nNothing: the run was not calibrated. Run `finetune calibrate`."
    data = certificate["data"]
    lines = ["## What is promised", ""]
    parts = [certificate[part] for part in ("selective", "conformal", "scope") if certificate.get(part)]
    lines += [f"- {part['statement']}" for part in parts]
    basis = (
        f"Set on {plural(data['validation_rows'], 'validation row')} (calibration map: "
        f"{describe_map(certificate['map'])}) "
        f"and {count(data['conformal_rows'])} + "
        f"{count(data['selective_rows'])} calibration rows that training did not see; `calibration.json` "
        f"holds thresholds and hashes. It holds for exactly this base model, adapter, prompt and label set."
    )
    return "\n".join([*lines, "", basis, *_batch_effect(certificate.get("batch_effect"))])


def _batch_effect(effect: Document | None) -> list[str]:
    if effect is None:
        return []
    most = decimal(effect["total_variation"])
    text = (
        "Rounding makes probabilities depend on what is scored together. "
        f"{plural(effect['rows'], 'row')} scored alone and among others differed by at most {most}."
    )
    return ["", text]


def _measured(evaluation: Document | None) -> str:
    if evaluation is None:
        return "## Measured\n\nThe run was not evaluated. Run `finetune evaluate`."
    lines = [f"## Measured on {plural(evaluation['test']['rows'], 'test row')}", ""]
    lines += [f"- {finding['text']}" for finding in evaluation["summary"]]
    return "\n".join([*lines, "", "Everything else is in `report.html` and `evaluation.json`."])


def _limits(certificate: Document | None) -> str:
    limits = NOT_PROMISED if certificate is None else certificate["not_promised"]
    return "\n".join(["## What is not promised", "", *(f"- {text}" for text in limits)])


def _loading(config: ProjectConfig) -> str:
    return f"""## How to load it

With this library, which applies the certificate:

```sh
finetune predict --run {config.run_folder.as_posix()} --text "a message"
```{_with_peft(config)}"""


def _with_peft(config: ProjectConfig) -> str:
    if config.backend != "causal":
        return ""
    return f"""

The adapter alone, with plain PEFT (its answers then come without any promise):

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained({config.model_id!r}, revision={config.revision!r})
model = PeftModel.from_pretrained(base, "adapter")
tokenizer = AutoTokenizer.from_pretrained({config.tokenizer_id or config.model_id!r})
```"""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _share(part: int, whole: int) -> str:
    return f"{count(part)} of {count(whole)}"


def _plain(text: str) -> str:
    """Return text as one line in which no character means anything to Markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", " ".join(text.split()))
