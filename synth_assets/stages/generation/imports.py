"""Read an imported file: convert its records to rows of INSTRUCTIONS and PAIRS, in chunks."""

import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from synth_assets.record_files.reading import read_records
from synth_assets.record_files.records import Record, RecordFileError
from synth_assets.record_files.streams import split_suffix
from synth_assets.schemas.tables import IMPORTED_BATCH, INSTRUCTIONS, PAIRS
from synth_assets.stages.generation.import_formats import Chosen, FormatChooser, Gives
from synth_assets.stages.generation.import_report import ImportReport
from synth_assets.stages.generation.message_trees import conversations
from synth_assets.stages.generation.occurrences import Occurrences
from synth_assets.stages.generation.seeds import content_row_id
from synth_assets.stages.generation.turns import RowFaultError, Turns, truth, turns_of

CHUNK_ROWS = 10_000
CHUNK_CHARACTERS = 8_388_608  # held in Python and in polars, up to 4 bytes each
SNIFF_RECORDS = 100
TEXT_CELLS = (".csv", ".tsv")
LABEL_COLUMNS = ("label", "kto_tag")
SCHEMAS: dict[Gives, pl.Schema] = {"instructions": INSTRUCTIONS, "preferences": PAIRS}


@dataclass(frozen=True)
class ImportOptions:
    """How a file is read, and its origin.

    Attributes:
        format: a key of FORMATS; chosen for each record by its columns if None.
        columns: column name by role, for other column names; an empty name: nothing has that role.
        origin: origin of a file from the Hub: repository, revision, file, licence.
    """

    format: str | None = None
    columns: Mapping[str, str] | None = None
    origin: Mapping[str, str] | None = None


class Imported(NamedTuple):
    """A file's rows as INSTRUCTIONS and as PAIRS (with null rewards); one of them is usually empty."""

    instructions: pl.LazyFrame
    preferences: pl.LazyFrame
    report: ImportReport


class ImportedRow(NamedTuple):
    """A usable row with its table and its line in the file."""

    line: int
    gives: Gives
    row: dict[str, Any]
    content: list[Any]  # hashed for the row's id
    characters: int


def read_file(
    path: Path, options: ImportOptions | None = None, *, name: str | None = None, scratch: Path | None = None
) -> Imported:
    """Return every usable row of a file.

    Args:
        path: a file that `read_records` can read.
        options: how to read it.
        name: name of the import, stored as source of its rows; the file's name if None.
        scratch: folder for chunks of rows, so that memory does not grow with the file; in memory if None.

    Raises:
        RecordFileError: the file cannot be read, or its columns match no format.
    """
    report = ImportReport(name or path.name)
    chunks: dict[Gives, list[pl.LazyFrame | Path]] = {gives: [] for gives in SCHEMAS}
    for chunk in chunks_of(path, options or ImportOptions(), report):
        for gives, rows in frames_of(chunk).items():
            chunks[gives].append(rows.lazy() if scratch is None else _write_chunk(rows, scratch))
    tables = {gives: _table(parts, SCHEMAS[gives]) for gives, parts in chunks.items()}
    return Imported(tables["instructions"], tables["preferences"], report)


def chunks_of(path: Path, options: ImportOptions, report: ImportReport) -> Iterator[list[ImportedRow]]:
    """Yield the usable rows of a file with their ids, in chunks of bounded size, and fill the report."""
    rows, occurrences = _usable_rows(path, options, report), Occurrences()
    chunk: list[ImportedRow] = []
    characters = 0
    for row in rows:
        chunk.append(row)
        characters += row.characters
        if len(chunk) >= CHUNK_ROWS or characters >= CHUNK_CHARACTERS:
            yield _with_ids(chunk, report.name, occurrences)
            chunk, characters = [], 0
    if chunk:
        yield _with_ids(chunk, report.name, occurrences)


def frames_of(chunk: Sequence[ImportedRow]) -> dict[Gives, pl.DataFrame]:
    """Return the rows of a chunk as INSTRUCTIONS and PAIRS; empty tables are left out."""
    parts: dict[Gives, list[dict[str, Any]]] = {gives: [] for gives in SCHEMAS}
    for each in chunk:
        parts[each.gives].append(each.row)
    return {gives: pl.DataFrame(rows, schema=SCHEMAS[gives]) for gives, rows in parts.items() if rows}


def _with_ids(chunk: list[ImportedRow], name: str, occurrences: Occurrences) -> list[ImportedRow]:
    """Set the id of each row; exact copies get distinct ids."""
    ids = [content_row_id(name, each.content, 0) for each in chunk]
    counts = occurrences.before([int(row_id, 16) for row_id in ids])
    for each, row_id, count in zip(chunk, ids, counts, strict=True):
        each.row["row_id"] = content_row_id(name, each.content, count) if count else row_id
        if each.gives == "preferences":
            each.row["pair_id"] = each.row["row_id"]
    return chunk


def _usable_rows(path: Path, options: ImportOptions, report: ImportReport) -> Iterator[ImportedRow]:
    """Yield the usable rows of a file, without ids, and fill the report."""
    records = read_records(path)
    first = list(islice(records, SNIFF_RECORDS))
    chooser = _chooser(path, first, options)
    all_records = chain(first, records)
    flattened = chooser.main.name == "tree"
    if flattened:
        all_records, chooser = (
            _flattened(path, all_records, chooser.main, report),
            FormatChooser(["messages"], "messages"),
        )
    for record in all_records:
        try:
            row = _imported_row(record, chooser, report, flattened=flattened)
        except RowFaultError as fault:
            report.reject(str(fault), record.line)
            continue
        report.kept[row.gives] += 1
        yield row


def _chooser(path: Path, first: Sequence[Record], options: ImportOptions) -> FormatChooser:
    """Return the formats of a file by the columns of its first records."""
    seen = list(dict.fromkeys(column for record in first for column in record.columns))
    if not first:
        raise RecordFileError(f"{path} has no records")
    if not seen:
        counts = Counter(record.fault or "no columns" for record in first)
        reasons = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
        raise RecordFileError(f"{path}: none of the first {len(first)} records can be read: {reasons}")
    filled = [column for column in seen if any(record.columns.get(column) is not None for record in first)]
    no_labels = [
        name
        for name in LABEL_COLUMNS
        if any((label := record.columns.get(name)) is not None and truth(label) is None for record in first)
    ]
    own = options.columns or {}
    columns = [column for column in seen if column in filled or column in own.values()]
    text_cells = split_suffix(path)[0] in TEXT_CELLS
    try:
        return FormatChooser(columns or seen, options.format, own, no_labels=no_labels, text_cells=text_cells)
    except ValueError as error:
        raise RecordFileError(f"{path}: {error}") from error


def _flattened(path: Path, records: Iterator[Record], tree: Chosen, report: ImportReport) -> Iterator[Record]:
    """Yield the conversations of a message tree, and count its messages in the report."""

    def counted() -> Iterator[Record]:
        for record in records:
            if not record.fault:
                report.read(record.columns, _non_null(record), tree)
            yield record

    try:
        yield from conversations(counted())
    except RecordFileError as error:
        raise error if str(path) in str(error) else RecordFileError(f"{path}: {error}") from error


def _imported_row(record: Record, chooser: FormatChooser, report: ImportReport, *, flattened: bool) -> ImportedRow:
    if record.fault:
        raise RowFaultError(record.fault)
    present = _non_null(record)
    chosen = chooser.of(present)
    if not flattened:
        report.read(record.columns, present, chosen)
    turns = turns_of(record.columns, chosen)
    row = _preference(turns) if chosen.gives == "preferences" else _instruction(turns)
    row["source"] = report.name
    report.repaired.update(turns.repairs)
    report.count_fields(turns.unused_fields)
    content = [[[t["role"], t["content"]] for t in turns.history], turns.instruction, *turns.responses]
    characters = sum(len(t["content"]) for t in turns.history) + len(turns.instruction) + sum(map(len, turns.responses))
    return ImportedRow(record.line, chosen.gives, row, content, characters)


def _non_null(record: Record) -> list[str]:
    return [name for name, value in record.columns.items() if value is not None]


def _instruction(turns: Turns) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(INSTRUCTIONS.names())
    row |= {"batch": IMPORTED_BATCH, "history": turns.history}
    return row | {"instruction": turns.instruction, "response": turns.responses[0]}


def _preference(turns: Turns) -> dict[str, Any]:
    chosen, rejected = turns.responses
    if chosen == rejected:
        raise RowFaultError("chosen_equals_rejected")
    row: dict[str, Any] = dict.fromkeys(PAIRS.names())
    row |= {"history": turns.history, "instruction": turns.instruction}
    return row | {"chosen": chosen, "rejected": rejected}


def _write_chunk(rows: pl.DataFrame, scratch: Path) -> Path:
    path = scratch / f"rows-{uuid.uuid4().hex}.parquet"
    rows.write_parquet(path, compression="zstd")
    return path


def _table(parts: Sequence[pl.LazyFrame | Path], schema: pl.Schema) -> pl.LazyFrame:
    files = [part for part in parts if isinstance(part, Path)]
    frames = [part for part in parts if isinstance(part, pl.LazyFrame)]
    if files:
        return pl.scan_parquet(files, glob=False)
    return pl.concat(frames) if frames else pl.LazyFrame(schema=schema)
