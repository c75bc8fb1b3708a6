"""Files that users bring, read record by record: a bad record is a fault with its line, never the end of the file."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

MAX_RECORD_BYTES = 262_144  # 64k tokens at about 4 bytes each; no trainer here takes a longer row
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
PARQUET_ROWS = 1_024


class ImportFileError(ValueError):
    """A file cannot be imported as it is; the message names it and the remedy."""


class Record(NamedTuple):
    """One record of a file: its columns, or why it could not be read."""

    line: int  # counted from 1; for JSON and Parquet the number of the record
    columns: dict[str, Any]
    fault: str = ""


def read_records(path: Path) -> Iterator[Record]:
    """The records of a JSON, JSONL, CSV or Parquet file, in order.

    Bytes that are not UTF-8 arrive as lone surrogates in the texts, so that only their own record is spoilt.

    Raises:
        ImportFileError: the file is not there, is empty, or is not what its suffix says.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ImportFileError(f"{path}: imports end in {', '.join(READERS)}; rename or convert the file")
    try:
        _refuse_empty_or_wide(path)
        yield from reader(path)
    except (OSError, pa.ArrowException, csv.Error) as error:
        raise ImportFileError(f"{path} cannot be read as {path.suffix}: {error}") from error


def _refuse_empty_or_wide(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise ImportFileError(f"{path} is empty")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ImportFileError(f"{path} is UTF-16; save it as UTF-8")


def _json_lines(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        line = 0
        while data := file.readline(MAX_RECORD_BYTES + 1):
            line += 1
            if len(data) > MAX_RECORD_BYTES:
                while not data.endswith(b"\n") and data:
                    data = file.readline(MAX_RECORD_BYTES)
                yield Record(line, {}, "too_large")
                continue
            if line == 1:
                data = data.removeprefix(BYTE_ORDER_MARK)
            if data.strip():
                yield _from_json_line(line, data)


def _from_json_line(line: int, data: bytes) -> Record:
    try:
        value = json.loads(data.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):  # ValueError also for numbers of thousands of digits
        return Record(line, {}, "not_json")
    return _checked(line, value)


def _json_array(path: Path) -> Iterator[Record]:
    data = path.read_bytes().removeprefix(BYTE_ORDER_MARK)
    try:
        value = json.loads(data.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise ImportFileError(f"{path} is not one JSON array: {error}; one object a line is called .jsonl") from error
    if not isinstance(value, list):
        raise ImportFileError(f"{path} holds a JSON {type(value).__name__}; wanted is an array of objects")
    for number, entry in enumerate(value, start=1):
        yield _checked(number, entry)


def _csv_rows(path: Path) -> Iterator[Record]:
    csv.field_size_limit(2**31 - 1)  # larger rows are rejected one by one, below
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.reader(file)
        names = next(rows)
        while True:
            line = rows.line_num + 1
            try:
                cells = next(rows)
            except StopIteration:
                return
            except csv.Error:
                yield Record(line, {}, "not_csv")
                continue
            if not cells:
                continue
            if len(cells) != len(names):
                yield Record(line, {}, "wrong_number_of_cells")
                continue
            yield _checked(line, dict(zip(names, cells, strict=True)))


def _parquet_rows(path: Path) -> Iterator[Record]:
    number = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=PARQUET_ROWS):
            for at in range(batch.num_rows):
                number += 1
                try:
                    yield _checked(number, batch.slice(at, 1).to_pylist()[0])
                except UnicodeDecodeError:
                    yield Record(number, {}, "invalid_unicode")


def _checked(line: int, value: object) -> Record:
    if not isinstance(value, dict):
        return Record(line, {}, "not_an_object")
    if _size(value) > MAX_RECORD_BYTES:
        return Record(line, {}, "too_large")
    return Record(line, value)


def _size(value: object) -> int:
    """Characters in all texts of a record; at most its bytes."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(_size(inner) for inner in value.values())
    return sum(_size(inner) for inner in value) if isinstance(value, list) else 0


READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": _json_lines,
    ".json": _json_array,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}
