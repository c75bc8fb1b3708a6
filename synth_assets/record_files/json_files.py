"""Readers of JSON Lines, and of JSON arrays element by element."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from synth_assets.record_files.records import (
    MAX_RECORD_BYTES,
    NOT_JSON,
    TOO_DEEP,
    TOO_LARGE,
    Record,
    RecordFileError,
    checked,
)
from synth_assets.record_files.streams import BYTE_ORDER_MARK, Lines, open_bytes

READ_BYTES = 65_536
STRUCTURE = re.compile(rb'["\[\]{},]')
STRING_END = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
STRING_PART = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)


def json_lines(path: Path) -> Iterator[Record]:
    """Yield the record of each line that is not blank."""
    with open_bytes(path) as file:
        for line in Lines(file, MAX_RECORD_BYTES):
            if line.too_long:
                yield Record(line.number, {}, TOO_LARGE)
            elif line.data.strip():
                yield _decoded(line.number, line.data)


def json_array(path: Path) -> Iterator[Record]:
    """Yield the record of each element of a JSON array, holding one element in memory at a time.

    Raises:
        RecordFileError: the file is not an array, or is truncated.
    """
    with open_bytes(path) as file:
        scanner = _ArrayScanner(path, file)
        for number, element in enumerate(scanner.elements(), start=1):
            yield Record(number, {}, TOO_LARGE) if element is None else _decoded(number, element)


def _decoded(line: int, data: bytes) -> Record:
    try:
        value = json.loads(data.decode("utf-8", "surrogateescape"))
    except RecursionError:
        return Record(line, {}, TOO_DEEP)
    except ValueError:  # also raised for numbers of thousands of digits
        return Record(line, {}, NOT_JSON)
    return checked(line, value)


class _ArrayScanner:
    """Split the bytes of an array into elements by brackets and quotes only, so that an invalid element is isolated."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path, self._file = path, file
        self._data = file.read(len(BYTE_ORDER_MARK)).removeprefix(BYTE_ORDER_MARK).lstrip()
        while not self._data and (data := file.read(READ_BYTES)):
            self._data = data.lstrip()
        self._position = 0  # position in _data
        self._element: bytearray | None = bytearray()  # current element so far; None: too large
        self._count = 0

    def elements(self) -> Iterator[bytes | None]:
        """Yield the bytes of each element, None for one that is too large."""
        if not self._data.startswith(b"["):
            kind = "object" if self._data.startswith(b"{") else "value"
            raise RecordFileError(
                f"{self._path} is a JSON {kind}; expected an array of objects. "
                "The name of a file with one object per line must end in .jsonl"
            )
        self._position, depth = 1, 1
        while depth:
            mark = self._next_mark()
            if mark in b"[{":
                depth += 1
            elif mark in b"]}":
                depth -= 1
            elif mark == b'"':
                self._skip_string()
            if depth == 0 or (depth == 1 and mark == b","):
                element, self._element = self._element, bytearray()
                self._count += 1
                if element is None or element[:-1].strip():
                    yield None if element is None else bytes(element[:-1])
                elif depth:
                    yield b""
        if (self._data[self._position :] + self._file.read(READ_BYTES)).strip():
            raise RecordFileError(f"{self._path} has content after the end of its array; expected a single array")

    def _next_mark(self) -> bytes:
        """Move past the next character of STRUCTURE and return it."""
        while (match := STRUCTURE.search(self._data, self._position)) is None:
            self._more(len(self._data))
        self._take(match.end())
        return match[0]

    def _skip_string(self) -> None:
        """Move past the closing quote of the current string."""
        while (match := STRING_END.match(self._data, self._position)) is None:
            whole = STRING_PART.match(self._data, self._position)
            self._more(whole.end() if whole else self._position)
        self._take(match.end())

    def _take(self, end: int) -> None:
        if self._element is not None:
            self._element += self._data[self._position : end]
            if len(self._element) > MAX_RECORD_BYTES + 1:  # including the comma
                self._element = None
        self._position = end

    def _more(self, end: int) -> None:
        """Consume the data up to `end` and read more."""
        self._take(end)
        data = self._file.read(READ_BYTES)
        if not data:
            raise RecordFileError(
                f"{self._path} is not a complete JSON array: it ends in element {self._count + 1}. "
                "Repair it, or write one object per line to a .jsonl file"
            )
        self._data, self._position = self._data[self._position :] + data, 0
