"""One page for the document of each use case."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

from finetune.application.summary import VERDICTS
from finetune.application.wording import count, decimal, describe_estimate, describe_map, percent, plural
from finetune.cli.console import clock_text
from finetune.cli.page import Page, Table, shorten

if TYPE_CHECKING:
    from finetune.application.config import ProjectConfig

Document = Mapping[str, Any]
TEXT_WIDTH = 48
LABEL_WIDTH = 30
OUTCOMES_WIDTH = 100
MOST_LABELS = 20
EXAMPLE_WIDTH = 600


def initialised(document: Document) -> Page:
    """Return the page of a new project."""
    folder = Path(document["folder"])
    labels, skipped = document["labels"], document["skipped_rows"]
    found = _label_table(("label", "rows"), {label: (count(rows),) for label, rows in labels.items()})
    step_in = () if folder.resolve() == Path.cwd() else (f"cd {shlex.quote(str(folder))}",)
    return Page(
        f"Started a project in {folder}",
        tables=(found,) if labels else (),
        said=("Say in configs/labels.yaml what each label means: the model reads it.",),
        notes=(f"{plural(skipped, 'row')} without a label or unreadable",) if skipped else (),
        written=tuple(str(folder / name) for name in document["written"]),
        then=(*step_in, "finetune prepare"),
    )


def prepared(document: Document, config: ProjectConfig, options: str) -> Page:
    """Return the page of prepared data: what was kept and left out, splits by label, one example."""
    rows, duplicates, splits = document["rows"], document["duplicates"], document["splits"]
    lengths = document["tokens"]["train"]
    facts = (
        ("rows read", count(rows["read"])),
        ("kept", count(rows["kept"])),
        ("rejected", count(rows["rejected"])),
        ("duplicates removed", f"{count(duplicates['exact'])} exact, {count(duplicates['near'])} near"),
        ("tokens a training row", f"median {count(lengths['median'])}, at most {count(lengths['max'])}"),
        ("texts shortened to fit", count(sum(part["shortened"] for part in document["tokens"].values()))),
    )
    counts = {
        label: tuple(count(by_split[split]) for split in splits)
        for label, by_split in document["labels"].items()
    }
    total = ("all", *(count(number) for number in splits.values()))
    table = _label_table(("label", *splits), counts, total)
    example = document["example"]["text"]
    end = example if len(example) <= EXAMPLE_WIDTH else f"…{example[-EXAMPLE_WIDTH:]}"
    trained_on = any(counted for _, counted in document["example"]["tokens"])
    heading = "example; it is trained on what stands in [[ ]]" if trained_on else "text as the model reads it"
    return Page(
        f"Prepared {config.name}",
        facts,
        tables=(table,),
        said=(f"One training {heading}:\n{indent(end, '  ')}",),
        notes=tuple(document["notices"]),
        written=(document["folder"],),
        then=(f"finetune train{options}",),
    )


def trained(document: Document, config: ProjectConfig, options: str) -> Page:
    """Return the page of a training: what was tuned, and validation before and after."""
    trainable, total = document["trainable_parameters"], document["total_parameters"]
    share = f" ({percent(trainable / total)} of all)" if total else ""
    ended = "stopped early" if document["stopped_early"] else "all epochs"
    facts = (
        ("steps", f"{count(document['steps'])} ({decimal(document['epochs'])} epochs, {ended})"),
        ("best step", count(document["best_step"])),
        ("trained parameters", f"{count(trainable)}{share}"),
        ("precision", document["precision"]),
        ("texts shortened to fit", count(document["shortened_texts"])),
        ("time", clock_text(document["seconds"])),
    )
    first, best = document["first"], document["best"]
    rows = tuple(
        (name.replace("_", " "), decimal(first[name]) if name in first else "", decimal(value))
        for name, value in best.items()
    )
    table = Table(("validation", "before", "best step"), rows, frozenset({1, 2}))
    return Page(
        f"Trained {config.name}",
        facts,
        tables=(table,) if rows else (),
        written=(f"{document['run']}",),
        then=(f"finetune calibrate{options}",),
    )


def exported(document: Document) -> Page:
    """Return the page of an export: how far the merged weights are from base and adapter."""
    before, after = document["adapter"], document["merged"]
    rows = tuple(
        (name.replace("_", " "), decimal(before[name]), decimal(after[name]))
        for name in ("log_loss", "ece", "accuracy")
    )
    headings = (f"{plural(document['rows'], 'calibration row')}, before the map", "adapter", "merged")
    return Page(
        f"Merged in {document['precision']}",
        (("largest change of a probability", decimal(document["largest_difference"])),),
        tables=(Table(headings, rows, frozenset({1, 2})),),
        said=tuple(document["statements"]),
        written=(document["model"], document["run"]),
        then=(f"finetune predict --run {shlex.quote(document['run'])} --text '...'",),
    )


def backend_list(found: Sequence[Document]) -> Page:
    """Return the page of all backends: what each is, or why it cannot be used here."""
    rows = tuple((info["name"], info["problem"] or "ready", info["summary"]) for info in found)
    remedies = tuple(f"{info['name']}: {info['remedy']}" for info in found if info["remedy"])
    return Page(
        "Backends: what `backend` in the configuration may say",
        tables=(Table(("backend", "here", "what it is"), rows),),
        notes=remedies,
    )


def calibrated(document: Document, config: ProjectConfig, options: str) -> Page:
    """Return the page of a run's certificate."""
    written = (str(config.run_folder / "calibration.json"),)
    return _certificate(document, f"Calibrated {config.name}", written, f"finetune evaluate{options}")


def calibrated_probabilities(document: Document, output: Path, following: str) -> Page:
    """Return the page of a certificate of probabilities from a file."""
    names = document["outcomes"]
    listed = ("outcomes", f"{count(len(names))}: {shorten(', '.join(names), OUTCOMES_WIDTH)}")
    title = f"Calibrated {document['model']['source']}"
    return _certificate(document, title, (str(output),), following, listed)


def _certificate(
    document: Document, title: str, written: tuple[str, ...], following: str, *first: tuple[str, str]
) -> Page:
    fitted, sets, risk = document["map"], document["conformal"], document["selective"]
    scope = document.get("scope")
    answers = (
        f"{count(risk['answered'])}, {count(risk['errors'])} of them wrong" if risk["feasible"] else "none"
    )
    rows = "" if fitted["kind"] == "identity" else f", fitted on {plural(fitted['n'], 'row')}"
    facts = (
        *first,
        ("calibration map", f"{describe_map(fitted)}{rows}"),
        ("shortlists", f"{sets['method']}, fitted on {plural(sets['n'], 'row')}"),
        ("answers", f"{answers}, of {plural(risk['n'], 'row')}"),
    )
    notes = [fitted["note"], None if risk["feasible"] else risk["reason"]]
    return Page(
        title,
        facts,
        said=(risk["statement"], sets["statement"], *((scope["statement"],) if scope else ())),
        notes=tuple(note for note in notes if note),
        written=written,
        then=(following,),
    )


def evaluated(document: Document, config: ProjectConfig, options: str) -> Page:
    """Return the page of a run's evaluation."""
    written = tuple(str(config.run_folder / name) for name in ("evaluation.json", "report.html"))
    return _evaluation(
        document, f"Evaluated {config.name}", written, f"finetune predict{options} --text '...'"
    )


def evaluated_probabilities(document: Document, written: tuple[Path, ...], following: str) -> Page:
    """Return the page of an evaluation of probabilities from a file."""
    return _evaluation(document, f"Evaluated {document['run']}", tuple(map(str, written)), following)


def _evaluation(document: Document, title: str, written: tuple[str, ...], following: str) -> Page:
    selective, coverage, cost = document["selective"], document["coverage"], document["cost"]
    facts = (
        ("test rows", count(document["test"]["rows"])),
        ("answered", describe_estimate(selective["share"])),
        ("wrong among answered", describe_estimate(selective["error"])),
        ("truth on the shortlist", describe_estimate(coverage["observed"])),
        ("  of those answered", describe_estimate(coverage["answered"])),
        ("  of those handed over", describe_estimate(coverage["handed_over"])),
        ("outcomes on a shortlist", describe_estimate(coverage["mean_size"], as_percent=False)),
        *(
            [(f"cost of a {document['unit']}", describe_estimate(cost["rule"], as_percent=False))]
            if cost
            else []
        ),
        ("accuracy if it answered all", describe_estimate(document["accuracy"])),
        ("calibration error (ECE)", describe_estimate(document["calibration"]["after"]["ece"])),
        *(
            [("accuracy without adapter", describe_estimate(document["base"]["accuracy"]))]
            if document["base"]
            else []
        ),
    )
    # What was promised comes with a verdict; the other sentences say in words what stands above.
    promises = [
        item for item in document["summary"] if item["verdict"] != "info" or item["topic"] == "answers"
    ]
    alarming = [item for item in promises if item["verdict"] in ("doubtful", "broken")]
    broken = any(item["verdict"] == "broken" for item in alarming)
    return Page(
        title,
        facts,
        said=tuple(item["text"] for item in promises if item not in alarming),
        notes=tuple(f"{VERDICTS[item['verdict']]}. {item['text']}" for item in alarming),
        written=written,
        then=() if broken else (following,),  # nobody is told to decide by a promise that has just failed
    )


def decided(records: Sequence[Document], texts: Sequence[str]) -> Page:
    """Return the page of decisions on texts that were typed in."""
    rows = tuple(
        (
            shorten(text, TEXT_WIDTH),
            record["decision"],
            "" if record["abstain_reason"] == "none" else record["abstain_reason"],
            percent(record["confidence"]),
            ", ".join(record["prediction_set"] or ()),
        )
        for text, record in zip(texts, records, strict=True)
    )
    said = [
        f"{shorten(text, TEXT_WIDTH)}: {record['rationale']}"
        for text, record in zip(texts, records, strict=True)
        if record["rationale"]
    ]
    # The guarantees of all answers are one sentence, and so are those of all abstentions.
    statements = dict.fromkeys(record["guarantee"]["statement"] for record in records if record["guarantee"])
    table = Table(("text", "decision", "reason", "confidence", "shortlist"), rows, frozenset({3}))
    return Page(f"Decided {plural(len(records), 'text')}", tables=(table,), said=(*said, *statements))


def predicted(document: Document) -> Page:
    """Return the page of a file of predictions; rejected rows were named as they were met."""
    reasons = tuple((f"  {reason}", count(rows)) for reason, rows in document["abstentions"].items())
    rejects = len(document["rejects"])
    return Page(
        f"Decided {plural(document['rows'], 'row')}",
        (
            *([("kept from an earlier call", count(document["continued"]))] if document["continued"] else []),
            ("answered", count(document["answered"])),
            ("handed over", count(sum(document["abstentions"].values()))),
            *reasons,
        ),
        notes=(f"{plural(rejects, 'row')} could not be read or scored; see above",) if rejects else (),
        written=(document["output"],),
    )


def _label_table(
    headings: tuple[str, ...], rows: Mapping[str, tuple[str, ...]], *last: tuple[str, ...]
) -> Table:
    listed = [(shorten(label, LABEL_WIDTH), *cells) for label, cells in rows.items()]
    if len(listed) > MOST_LABELS:
        rest = f"and {plural(len(listed) - MOST_LABELS, 'more label')}"
        listed = [*listed[:MOST_LABELS], (rest, *[""] * (len(headings) - 1))]
    return Table(headings, (*listed, *last), frozenset(range(1, len(headings))))
