"""A record of a file, its limits, and the error for a file that cannot be read at all."""

from typing import Any, NamedTuple

MAX_RECORD_BYTES = 262_144  # 64k tokens at about 4 bytes each; no trainer here takes a longer row
MAX_DEPTH = 32  # a conversation with tool schemas nests about 10 deep

TOO_LARGE, TOO_DEEP, NOT_JSON, NOT_CSV = "too_large", "too_deep", "not_json", "not_csv"
UNCLOSED_QUOTE, CELLS, UNICODE = "unclosed_quote", "wrong_number_of_cells", "invalid_unicode"

FAULTS = {
    TOO_LARGE: f"a record holds more than {MAX_RECORD_BYTES:,} bytes: split or shorten it",
    TOO_DEEP: f"a record nests more than {MAX_DEPTH} levels: flatten it",
    NOT_JSON: "the record is not valid JSON",
    "not_an_object": "the record is not an object with named columns",
    NOT_CSV: "text follows a closing quote: write a quote inside a quoted cell twice",
    UNCLOSED_QUOTE: "a quote opens a cell and does not close it: quote the whole cell, write quotes inside it twice",
    CELLS: "the row has more or fewer cells than the header: quote cells that contain the delimiter",
    UNICODE: "the bytes are not UTF-8: save the file as UTF-8",
    "unreadable_value": "a cell cannot be converted to a plain value: cast the column to text",
}
"""Reason -> what it means and what to do."""


class RecordFileError(ValueError):
    """A file cannot be read as it is; the message names the file and the remedy."""


class Record(NamedTuple):
    """One record of a file: its columns, or why it could not be read."""

    line: int  # counted from 1: the line where a record of JSONL, CSV or TSV starts, else the record's number
    columns: dict[str, Any]
    fault: str = ""  # a key of FAULTS


def checked(line: int, value: object) -> Record:
    """Return the record of a decoded value, with a fault if it is no object, too large or nested too deep."""
    if not isinstance(value, dict):
        return Record(line, {}, "not_an_object")
    fault = _excess(value)
    return Record(line, {}, fault) if fault else Record(line, value)


def _excess(value: object) -> str:
    """Return the fault of a value that exceeds a limit. The size counts the characters of all texts."""
    size, level = 0, [value]
    for _ in range(MAX_DEPTH):
        inner: list[object] = []
        for part in level:
            if isinstance(part, str | bytes):
                size += len(part)
            elif isinstance(part, dict):
                inner.extend(part.values())
            elif isinstance(part, list | tuple):
                inner.extend(part)
        if size > MAX_RECORD_BYTES:
            return TOO_LARGE
        if not inner:
            return ""
        level = inner
    return TOO_DEEP
