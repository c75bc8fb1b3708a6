"""Byte streams and lines of plain and compressed files."""

import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from synth_assets.record_files.records import RecordFileError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")


def _open_plain(path: Path) -> IO[bytes]:
    return path.open("rb")


def _open_gzip(path: Path) -> IO[bytes]:
    return io.BufferedReader(gzip.open(path, "rb"))


def _open_zstd(path: Path) -> IO[bytes]:
    import pyarrow as pa  # slow to load

    stream = pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")
    return io.BufferedReader(stream)  # pyright: ignore[reportArgumentType]  # implements the methods of a raw stream


COMPRESSIONS: dict[str, Callable[[Path], IO[bytes]]] = {".gz": _open_gzip, ".zst": _open_zstd}
READ_ERRORS = (OSError, EOFError, zlib.error)


def split_suffix(path: Path) -> tuple[str, str]:
    """Return the format suffix and the compression suffix in lower case, such as (".jsonl", ".gz")."""
    last = path.suffix.lower()
    if last in COMPRESSIONS:
        return Path(path.stem).suffix.lower(), last
    return last, ""


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading and decompress it if its name ends in a key of COMPRESSIONS.

    Raises:
        RecordFileError: the file is empty or UTF-16.
    """
    opener = COMPRESSIONS.get(split_suffix(path)[1], _open_plain)
    with opener(path) as file:
        start = file.read(len(BYTE_ORDER_MARK) + 1)
    if start.startswith(WIDE_MARKS):
        raise RecordFileError(f"{path} is UTF-16; save it as UTF-8")
    if not start.removeprefix(BYTE_ORDER_MARK):
        raise RecordFileError(f"{path} is empty")
    return opener(path)


class Line(NamedTuple):
    """A line with its line feed, and its number from 1."""

    number: int
    data: bytes
    too_long: bool = False  # truncated
    again: bool = False  # was pushed back


class Lines:
    """Lines of a file, ended by line feeds only; read on demand, with push-back."""

    def __init__(self, file: IO[bytes], limit: int) -> None:
        """Read from `file`; lines are truncated to `limit` bytes."""
        self._file, self._limit, self._number = file, limit, 0
        self._returned: list[Line] = []  # the next one last

    def __iter__(self) -> Iterator[Line]:
        """Iterate over the remaining lines."""
        while (line := self.next()) is not None:
            yield line

    def next(self) -> Line | None:
        """Return the next line, or None at the end of the file."""
        if self._returned:
            return self._returned.pop()
        data = self._file.readline(self._limit + 1)
        if not data:
            return None
        self._number += 1
        if self._number == 1:
            data = data.removeprefix(BYTE_ORDER_MARK)
        too_long = len(data) > self._limit
        rest = data
        while too_long and rest and not rest.endswith(b"\n"):
            rest = self._file.readline(self._limit)
        return Line(self._number, data, too_long)

    def put_back(self, lines: Sequence[Line]) -> None:
        """Push lines back, so that `next` returns them again in order."""
        self._returned.extend(line._replace(again=True) for line in reversed(lines))
