"""JSON Lines, and JSON arrays read element by element."""

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
    """Yield the record of each element of one array, holding one element in memory at a time.

    Raises:
        RecordFileError: the file is no array, or ends inside it.
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
    except ValueError:  # also for numbers of thousands of digits
        return Record(line, {}, NOT_JSON)
    return checked(line, value)


class _ArrayScanner:
    """Splits the bytes of an array into its elements by brackets and quotes alone, so that a bad element ends there."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path, self._file = path, file
        self._data = file.read(len(BYTE_ORDER_MARK)).removeprefix(BYTE_ORDER_MARK).lstrip()
        while not self._data and (data := file.read(READ_BYTES)):
            self._data = data.lstrip()
        self._at = 0  # where to go on in _data
        self._element: bytearray | None = bytearray()  # what the present element has so far; None: too large
        self._found = 0

    def elements(self) -> Iterator[bytes | None]:
        """Yield the bytes of each element, None for one that is too large."""
        if not self._data.startswith(b"["):
            kind = "object" if self._data.startswith(b"{") else "value"
            raise RecordFileError(
                f"{self._path} holds a JSON {kind}; expected an array of objects. "
                "A file with one object in each line must end in .jsonl"
            )
        self._at, depth = 1, 1
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
                self._found += 1
                if element is None or element[:-1].strip():
                    yield None if element is None else bytes(element[:-1])
                elif depth:
                    yield b""
        if (self._data[self._at :] + self._file.read(READ_BYTES)).strip():
            raise RecordFileError(f"{self._path} goes on after the end of its array; expected one array alone")

    def _next_mark(self) -> bytes:
        """Move behind the next character of STRUCTURE and return it."""
        while (match := STRUCTURE.search(self._data, self._at)) is None:
            self._more(len(self._data))
        self._take(match.end())
        return match[0]

    def _skip_string(self) -> None:
        """Move behind the quote that ends the string that begins here."""
        while (match := STRING_END.match(self._data, self._at)) is None:
            whole = STRING_PART.match(self._data, self._at)
            self._more(whole.end() if whole else self._at)
        self._take(match.end())

    def _take(self, end: int) -> None:
        if self._element is not None:
            self._element += self._data[self._at : end]
            if len(self._element) > MAX_RECORD_BYTES + 1:  # with the comma behind it
                self._element = None
        self._at = end

    def _more(self, end: int) -> None:
        """Take the data up to `end` and read more behind the rest."""
        self._take(end)
        data = self._file.read(READ_BYTES)
        if not data:
            raise RecordFileError(
                f"{self._path} is not one JSON array: it ends in element {self._found + 1}. "
                "Repair it, or write one object in each line of a file that ends in .jsonl"
            )
        self._data, self._at = self._data[self._at :] + data, 0
