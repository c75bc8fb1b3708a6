"""Strict CSV and TSV reader by RFC 4180: an unclosed quote makes its own row invalid and no other.

The csv module reads an open quote to the end of the file and does not report where a row started.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from synth_assets.record_files.records import (
    CELLS,
    NOT_CSV,
    TOO_LARGE,
    UNCLOSED_QUOTE,
    Record,
    RecordFileError,
    checked,
)
from synth_assets.record_files.streams import Line, Lines, open_bytes, split_suffix

DELIMITERS = (b",", b";", b"\t")
LOOK_AHEAD_BYTES = 8_388_608  # longest quoted cell; beyond it the quote counts as unclosed
QUOTE = b'"'
QUOTED = re.compile(rb'(?:[^"]++|"")*+')


class _BadRowError(ValueError):
    """A row is malformed; the message is a key of FAULTS."""


def delimited_rows(path: Path, names: Sequence[str] | None = None) -> Iterator[Record]:
    """Yield the record of each row below the header. TSV uses tabs; the delimiter of CSV is inferred from the header.

    Args:
        path: the file.
        names: column names of a comma-separated file without a header; None: the first row is the header.

    Raises:
        RecordFileError: the header cannot be read, or has a duplicate column.
    """
    with open_bytes(path) as file:
        lines = Lines(file, LOOK_AHEAD_BYTES)
        delimiter, names = _header(path, lines) if names is None else (b",", list(names))
        for line in lines:
            if not line.data.strip(b"\r\n"):
                continue
            try:
                cells = _row(line, lines, delimiter, len(names))
            except _BadRowError as fault:
                yield Record(line.number, {}, str(fault))
                continue
            yield checked(line.number, dict(zip(names, cells, strict=True)))


def _header(path: Path, lines: Lines) -> tuple[bytes, list[str]]:
    """Return the delimiter and the column names."""
    line = lines.next()
    delimiter = b"\t" if split_suffix(path)[0] == ".tsv" else b""
    if line and line.data.startswith(b"sep=") and len(line.data.strip()) == len(b"sep=,"):  # Excel's separator line
        delimiter, line = line.data.strip()[-1:], lines.next()
    if line is None or b"\r" in line.data.rstrip(b"\r\n"):
        raise RecordFileError(f"{path} has lines that end with only a carriage return; save it with line feeds")
    delimiter = delimiter or _most_frequent_delimiter(line.data)
    try:
        names = _row(line, lines, delimiter, None)
    except _BadRowError as fault:
        raise RecordFileError(f"{path}, line {line.number}: the header cannot be read ({fault})") from fault
    names = [name.strip() or f"unnamed column {position}" for position, name in enumerate(names, start=1)]
    if duplicates := [name for name, count in Counter(names).items() if count > 1]:
        raise RecordFileError(f"{path}: duplicate columns {', '.join(duplicates)} in the header; rename one of each")
    return delimiter, names


def _most_frequent_delimiter(header: bytes) -> bytes:
    """Return the most frequent delimiter outside quotes; the comma if there is none."""
    outside = b"".join(islice(header.split(QUOTE), 0, None, 2))
    return max(DELIMITERS, key=outside.count)


def _row(first: Line, lines: Lines, delimiter: bytes, width: int | None) -> list[str]:
    """Return the cells of the row that starts in `first`, reading its continuation lines.

    Raises:
        _BadRowError: the row is malformed; the lines after its first one are put back.
    """
    if first.too_long:
        raise _BadRowError(TOO_LARGE)
    row_lines, size = [first], len(first.data)
    row = _Cells(delimiter, bare_quotes=not first.again)
    try:
        while not row.add(row_lines[-1].data):
            line = lines.next() if size <= LOOK_AHEAD_BYTES else None
            if line is None:
                raise _BadRowError(UNCLOSED_QUOTE)
            row_lines.append(line)
            size += len(line.data)
        if width not in (None, len(row.cells)):
            raise _BadRowError(CELLS)
    except _BadRowError as fault:
        lines.put_back(row_lines[1:])
        raise _BadRowError(UNCLOSED_QUOTE if len(row_lines) > 1 else str(fault)) from None
    return [cell.decode("utf-8", "surrogateescape") for cell in row.cells]


class _Cells:
    """The cells of one row, read line by line while a quote is open."""

    def __init__(self, delimiter: bytes, *, bare_quotes: bool) -> None:
        self.cells: list[bytes] = []
        self._delimiter = delimiter
        self._bare_quotes = bare_quotes or delimiter == b"\t"  # text/tab-separated-values has no quoting
        self._open: bytearray | None = None  # the quoted cell so far

    def add(self, line: bytes) -> bool:
        """Add the next line and return whether the row is complete."""
        row_end = len(line.removesuffix(b"\n").removesuffix(b"\r"))
        if self._open is None and QUOTE not in line:
            self.cells = line[:row_end].split(self._delimiter)
            return True
        start = 0
        while start <= row_end:
            if self._open is None and line.startswith(QUOTE, start):
                self._open, start = bytearray(), start + 1
            start = self._unquoted(line, start, row_end) if self._open is None else self._quoted(line, start, row_end)
        return self._open is None

    def _unquoted(self, line: bytes, start: int, row_end: int) -> int:
        """Read an unquoted cell and return the start of the next one."""
        end = line.find(self._delimiter, start, row_end)
        end = row_end if end < 0 else end
        if not self._bare_quotes and QUOTE in line[start:end]:
            raise _BadRowError(NOT_CSV)
        self.cells.append(line[start:end])
        return end + 1

    def _quoted(self, line: bytes, start: int, row_end: int) -> int:
        """Read a quoted cell up to its closing quote or the end of the line, and return the start of the next one."""
        match = QUOTED.match(line, start)
        end = match.end() if match else start
        cell = self._open = (self._open or bytearray()) + line[start:end]
        if end == len(line):
            return end + 1
        if end + 1 < row_end and not line.startswith(self._delimiter, end + 1):
            raise _BadRowError(NOT_CSV)
        self.cells.append(bytes(cell).replace(QUOTE * 2, QUOTE))
        self._open = None
        return end + 2
