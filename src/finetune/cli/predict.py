"""``finetune predict``: decisions on new texts, or on probabilities, under a certificate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.cli.options import Config, Json, Overrides, Quiet, Run
from finetune.cli.page import show
from finetune.cli.pages import decided, predicted
from finetune.cli.probabilities import (
    Certificate,
    Probabilities,
    ScoreInputs,
    predict_file,
    refuse_with,
    refuse_without,
)
from finetune.cli.session import Session, open_session, read_config

if TYPE_CHECKING:
    from finetune.domain.decisions import DecisionRecord

STDIN = Path("-")


def predict(
    context: typer.Context,
    texts: Annotated[
        list[str] | None, typer.Option("--text", "-t", metavar="TEXT", help="A text to decide. Repeatable.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--input", "-i", help="JSONL, CSV or Parquet; - reads one text a line from standard input."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSONL or CSV; an interrupted one is continued.")
    ] = None,
    rationale: Annotated[
        bool | None,
        typer.Option(
            "--rationale/--no-rationale",
            help="Write why, after each decision.",
            show_default="prediction.rationale of the configuration",
        ),
    ] = None,
    text_column: Annotated[
        str | None, typer.Option("--text-column", help="Column with the text.", show_default="as configured")
    ] = None,
    id_column: Annotated[
        str | None, typer.Option("--id-column", help="Column with the id.", show_default="as configured")
    ] = None,
    config: Config = None,
    overrides: Overrides = None,
    run: Run = None,
    probabilities: Probabilities = None,
    certificate: Certificate = None,
    inputs: ScoreInputs = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Decide new texts, or hand them over, with a guarantee."""
    refuse_without(probabilities, {"--certificate": certificate, "--inputs": inputs})
    refuse_with(
        probabilities,
        {
            "--text": texts or None,
            "--input": source,
            "--rationale": rationale,
            "--text-column": text_column,
            "--config": config,
            "--set": overrides or None,
            "--run": run,
        },
    )
    if probabilities is not None:
        session = open_session(context, as_json=as_json, quiet=quiet)
        predict_file(
            session,
            probabilities,
            certificate=certificate,
            output=output,
            id_column=id_column,
            inputs=inputs,
        )
        return
    files = _files(texts, source, output)
    session = open_session(context, as_json=as_json, quiet=quiet)
    settings = read_config(session, config, overrides, run)
    if files is None:
        lines = texts or _piped_lines()
        records = session.container.predict().text(settings, lines, rationale=rationale)
        _print_records(session, records, lines)
        return
    named = {"text": text_column, "id": id_column}
    columns = settings.data.columns.model_copy(update={key: name for key, name in named.items() if name})
    report = session.container.predict().file(settings, *files, rationale=rationale, columns=columns)
    document = report.document()
    session.finish(document, predicted(document))


def _files(texts: list[str] | None, source: Path | None, output: Path | None) -> tuple[Path, Path] | None:
    """Return input and output, or ``None`` where texts are typed or piped in."""
    if bool(texts) == (source is not None):
        raise typer.BadParameter("give either texts or a file", param_hint="--text / --input")
    if source is None or source == STDIN:
        if output is not None:
            raise typer.BadParameter(
                "it goes with --input FILE; print records with --json > FILE", param_hint="--output"
            )
        return None
    if output is None:
        raise typer.BadParameter("--input FILE needs a file to write to", param_hint="--output")
    return source, output


def _piped_lines() -> list[str]:
    from finetune.domain.errors import InvalidInput

    try:
        return [line.strip() for line in sys.stdin if line.strip()]
    except UnicodeDecodeError as error:
        raise InvalidInput(
            "this is no text in UTF-8",
            where="standard input",
            seen=error.object[error.start : error.end],
            remedy="convert it first, e.g. with iconv",
        ) from error


def _print_records(session: Session, records: list[DecisionRecord], texts: list[str]) -> None:
    if session.as_json:
        for record in records:  # JSON lines: the format that --output writes
            print(record.to_json())
    else:
        show(decided([record.model_dump() for record in records], texts))
