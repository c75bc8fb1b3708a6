"""Records of a file, their limits, and the error for an unreadable file."""

from typing import Any, NamedTuple

MAX_RECORD_BYTES = 262_144  # 64k tokens at about 4 bytes each; longer than any supported training context
MAX_DEPTH = 32  # a conversation with tool schemas has about 10 levels

TOO_LARGE, TOO_DEEP, NOT_JSON, NOT_CSV = "too_large", "too_deep", "not_json", "not_csv"
UNCLOSED_QUOTE, CELLS, UNICODE = "unclosed_quote", "wrong_number_of_cells", "invalid_unicode"

FAULTS = {
    TOO_LARGE: f"a record has more than {MAX_RECORD_BYTES:,} bytes: split or shorten it",
    TOO_DEEP: f"a record is nested more than {MAX_DEPTH} levels: flatten it",
    NOT_JSON: "the record is not valid JSON",
    "not_an_object": "the record is not an object with named columns",
    NOT_CSV: "text follows a closing quote: double the quotes inside a quoted cell",
    UNCLOSED_QUOTE: "a quote opens a cell and does not close it: quote the whole cell and double the quotes inside it",
    CELLS: "the row has more or fewer cells than the header: quote cells that contain the delimiter",
    UNICODE: "the bytes are not UTF-8: save the file as UTF-8",
    "unreadable_value": "a cell cannot be converted to a plain value: cast the column to text",
}
"""Fault -> description and remedy."""


class RecordFileError(ValueError):
    """A file cannot be read; the message names the file and the remedy."""


class Record(NamedTuple):
    """One record of a file: its columns, or the fault that makes it unreadable."""

    line: int  # first line of a record of JSONL, CSV or TSV, else the record's number; from 1
    columns: dict[str, Any]
    fault: str = ""  # a key of FAULTS


def checked(line: int, value: object) -> Record:
    """Return the record of a decoded value, with a fault if it is not an object, too large or nested too deeply."""
    if not isinstance(value, dict):
        return Record(line, {}, "not_an_object")
    fault = _excess(value)
    return Record(line, {}, fault) if fault else Record(line, value)


def _excess(value: object) -> str:
    """Return the fault of a value that exceeds a limit, or an empty string. The size is the length of all texts."""
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
