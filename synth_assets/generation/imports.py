"""Imports: a user's file becomes rows in the project's own tables, with a report of what was repaired and rejected."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from synth_assets.generation.formats import Chosen, RowFaultError, Turns, format_of, turns_of
from synth_assets.generation.readers import READERS, ImportFileError, Record, read_records
from synth_assets.generation.seeds import content_row_id
from synth_assets.generation.trees import conversations
from synth_assets.records import INSTRUCTIONS, PAIRS
from synth_assets.shards import temporary_beside, write_atomically

BATCH = "imported"
CHUNK_ROWS = 10_000
LOOK_AT_RECORDS = 100
LINES_SHOWN = 10
OPTIONS_SUFFIX = ".options.json"
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,119}")


@dataclass
class ImportReport:
    """What became of a file's records: counts are exact, line numbers the first LINES_SHOWN of each reason."""

    name: str
    format: str = ""
    gives: str = ""
    kept: int = 0
    repaired: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    lines: dict[str, list[int]] = field(default_factory=dict)

    def reject(self, reason: str, line: int) -> None:
        """Count a rejected record."""
        self.rejected[reason] += 1
        shown = self.lines.setdefault(reason, [])
        if len(shown) < LINES_SHOWN:
            shown.append(line)

    def facts(self) -> dict[str, Any]:
        """The report as JSON values."""
        facts = {"name": self.name, "format": self.format, "gives": self.gives, "kept": self.kept}
        return facts | {"repaired": dict(self.repaired), "rejected": dict(self.rejected), "lines": self.lines}


@dataclass(frozen=True)
class ImportOptions:
    """How a file is read, and where it is from.

    Attributes:
        format: a key of FORMATS; found by looking where None.
        columns: role -> column name, for files of other columns.
        origin: where a file of the hub is from: repository, revision, file, licence.
    """

    format: str | None = None
    columns: Mapping[str, str] | None = None
    origin: Mapping[str, str] | None = None


class Imported(NamedTuple):
    """A file's rows; one of the two tables is empty."""

    instructions: pl.LazyFrame
    preferences: pl.LazyFrame
    report: ImportReport


def read_file(
    path: Path,
    format: str | None = None,  # noqa: A002  (the word users type)
    columns: Mapping[str, str] | None = None,
    scratch: Path | None = None,
) -> Imported:
    """Every usable row of a file, as INSTRUCTIONS or PAIRS (rewards null).

    Args:
        path: JSON, JSONL, CSV or Parquet.
        format: a key of FORMATS; found by looking where None.
        columns: role -> column name, for files of other columns.
        scratch: folder for chunks of rows, so that memory does not grow with the file; held in memory where None.

    Raises:
        ImportFileError: the file cannot be read, or its columns fit no format; names the file and the remedy.
    """
    report = ImportReport(path.name)
    rows = _rows(path, format, columns, report)
    chunks: list[pl.LazyFrame] = []
    while chunk := list(islice(rows, CHUNK_ROWS)):
        chunks.append(_kept(pl.DataFrame(chunk, schema=_schema(report)), scratch))
    table = pl.concat(chunks) if chunks else pl.LazyFrame(schema=_schema(report))
    if report.gives == "preferences":
        return Imported(pl.LazyFrame(schema=INSTRUCTIONS), table, report)
    return Imported(table, pl.LazyFrame(schema=PAIRS), report)


def import_file(
    path: Path,
    folder: Path,
    options: ImportOptions | None = None,
    name: str | None = None,
) -> ImportReport:
    """Judge a file and copy it into the imports folder, its options and report beside it; returns the report.

    Args:
        path: the user's file.
        folder: where imports lie.
        options: how to read it, and where it is from.
        name: the file's name among the imports; its own where None. An import of that name is replaced.

    Raises:
        ImportFileError: the name is unsafe, the file cannot be read, or not one row of it is usable.
    """
    target = folder / safe_file_name(name or path.name)
    report, options = ImportReport(target.name), options or ImportOptions()
    for _ in _rows(path, options.format, options.columns, report):
        pass
    if not report.kept:
        raise ImportFileError(f"{path} holds no usable row; rejected: {dict(report.rejected)}")
    text = json.dumps({**asdict(options), "report": report.facts()}, sort_keys=True, ensure_ascii=False)
    write_atomically(options_path(target), lambda temporary: _write(temporary, text))
    write_atomically(target, lambda temporary: _copy(path, temporary))
    return report


def imported_files(folder: Path) -> list[Path]:
    """The files of the imports folder that can be read, by name."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return [p for p in files if p.suffix.lower() in READERS and not p.name.endswith(OPTIONS_SUFFIX)]


def read_import(path: Path, scratch: Path | None = None) -> Imported:
    """A file of the imports folder, read with the options beside it, where there are any."""
    return read_file(path, *_options(path), scratch)


def line_of(path: Path, row_id: str) -> int | None:
    """The line (or the number of the record) that a row of an import came from; None where it holds no such row."""
    rows = _numbered_rows(path, *_options(path), ImportReport(path.name))
    return next((line for line, row in rows if row["row_id"] == row_id), None)


def options_path(path: Path) -> Path:
    """Where the options of an imported file lie."""
    return path.with_name(path.name + OPTIONS_SUFFIX)


def safe_file_name(name: str) -> str:
    """The name, or ImportFileError where it could leave the folder, hide, or pass for something else."""
    if not FILE_NAME.fullmatch(name) or name.endswith(OPTIONS_SUFFIX):
        raise ImportFileError(
            f"{name!r} cannot name an import: letters, digits, space, dot, dash and underscore, "
            "beginning with a letter or digit, at most 120 characters"
        )
    return name


def _options(path: Path) -> tuple[str | None, Mapping[str, str] | None]:
    """The format and the column names that a file was imported with."""
    beside = options_path(path)
    if not beside.is_file():
        return None, None
    try:
        options = json.loads(beside.read_text("utf-8"))
    except ValueError as error:
        raise ImportFileError(f"{beside} is not JSON ({error}); import {path.name} again") from error
    return options.get("format"), options.get("columns")


def _rows(
    path: Path, name: str | None, columns: Mapping[str, str] | None, report: ImportReport
) -> Iterator[dict[str, Any]]:
    """The usable rows of a file, while the report is filled."""
    return (row for _, row in _numbered_rows(path, name, columns, report))


def _numbered_rows(
    path: Path, name: str | None, columns: Mapping[str, str] | None, report: ImportReport
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each usable row with its line, while the report is filled."""
    records = read_records(path)
    first = list(islice(records, LOOK_AT_RECORDS))
    found = list(dict.fromkeys(column for record in first for column in record.columns))
    if not found:
        reasons = dict(Counter(record.fault for record in first))
        raise ImportFileError(f"{path}: none of the first {len(first)} records can be read: {reasons}")
    try:
        chosen = format_of(found, name, columns)
    except ValueError as error:
        raise ImportFileError(f"{path}: {error}") from error
    report.format, report.gives = chosen.name, chosen.gives
    seen: Counter[str] = Counter()
    every = chain(first, records)
    if chosen.name == "tree":
        every, chosen = conversations(every), format_of(["messages"], "messages")
    for record in every:
        try:
            row = _row(record, chosen, report, seen)
        except RowFaultError as fault:
            report.reject(str(fault), record.line)
            continue
        report.kept += 1
        yield record.line, row


def _row(record: Record, chosen: Chosen, report: ImportReport, seen: Counter[str]) -> dict[str, Any]:
    if record.fault:
        raise RowFaultError(record.fault)
    turns = turns_of(record.columns, chosen)
    content = [[[t["role"], t["content"]] for t in turns.history], turns.instruction, *turns.responses]
    key = content_row_id(report.name, content, 0)
    row_id = content_row_id(report.name, content, seen[key])
    row = _preference(turns, row_id) if chosen.gives == "preferences" else _instruction(turns, row_id)
    row["source"] = report.name
    seen[key] += 1
    report.repaired.update(turns.repairs)
    return row


def _instruction(turns: Turns, row_id: str) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(INSTRUCTIONS.names())
    row |= {"row_id": row_id, "batch": BATCH, "history": turns.history}
    return row | {"instruction": turns.instruction, "response": turns.responses[0]}


def _preference(turns: Turns, row_id: str) -> dict[str, Any]:
    chosen, rejected = turns.responses
    if chosen == rejected:
        raise RowFaultError("chosen_equals_rejected")
    row: dict[str, Any] = dict.fromkeys(PAIRS.names())
    row |= {"pair_id": row_id, "row_id": row_id, "history": turns.history, "instruction": turns.instruction}
    return row | {"chosen": chosen, "rejected": rejected}


def _schema(report: ImportReport) -> pl.Schema:
    return PAIRS if report.gives == "preferences" else INSTRUCTIONS


def _kept(frame: pl.DataFrame, scratch: Path | None) -> pl.LazyFrame:
    if scratch is None:
        return frame.lazy()
    path = temporary_beside(scratch / "rows.parquet")
    frame.write_parquet(path, compression="zstd")
    return pl.scan_parquet(path, glob=False)


def _write(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
