"""Decompressed sizes of the pages of a Parquet column, from the page headers alone.

The footer has only sums, and a reader allocates the size in a page header. A header is a struct in Thrift's compact
protocol without lists (parquet-format, parquet.thrift: PageHeader).
"""

from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from synth_assets.record_files.records import RecordFileError

UNCOMPRESSED, COMPRESSED, DATA, DATA_V2 = 2, 3, 5, 8  # fields of PageHeader
VALUES, ENCODINGS = 1, {DATA: 2, DATA_V2: 4}  # fields of the headers of data pages
DELTA_BYTE_ARRAY = 7
MAX_NESTING = 8


class Pages(NamedTuple):
    """Sums over the page headers of a column chunk."""

    bytes: int  # all pages, decompressed
    largest_bytes: int  # largest page, decompressed
    values: int  # of all data pages; each list element counts
    prefixed: bool  # has DELTA_BYTE_ARRAY pages, whose texts share prefixes


def pages_of(file: IO[bytes], start: int, size: int) -> Pages:
    """Read the page headers of the column chunk at `start`. Raise RecordFileError if one is damaged."""
    total, largest, values, prefixed, position = 0, 0, 0, False, start
    while position < start + size:
        file.seek(position)
        header: dict[int, Any] = dict(_fields(file, 0))
        compressed, uncompressed = header.get(COMPRESSED), header.get(UNCOMPRESSED)
        if not isinstance(compressed, int) or not isinstance(uncompressed, int) or min(compressed, uncompressed) < 0:
            raise RecordFileError("a page header is damaged")
        total += uncompressed
        largest = max(largest, uncompressed)
        for kind, encoding in ENCODINGS.items():
            data = header.get(kind, {})
            if not isinstance(data, dict):
                raise RecordFileError("a page header is damaged")
            values += data.get(VALUES, 0)
            prefixed |= data.get(encoding) == DELTA_BYTE_ARRAY
        position = file.tell() + compressed
    return Pages(total, largest, values, prefixed)


def _fields(file: IO[bytes], nesting: int) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each field of a struct; the value of a text is None."""
    if nesting > MAX_NESTING:
        raise RecordFileError("a page header is damaged")
    number = 0
    while kind := _byte(file):
        step, kind = kind >> 4, kind & 0x0F
        number = number + step if step else _integer(file)
        yield number, _value(file, kind, nesting)


def _value(file: IO[bytes], kind: int, nesting: int) -> Any:  # noqa: ANN401
    if kind in (1, 2):  # true, false: in the header of the field
        return kind == 1
    if kind == 3:
        return _byte(file)
    if kind in (4, 5, 6):  # i16, i32, i64
        return _integer(file)
    if kind in (7, 8):  # double, binary
        file.seek(8 if kind == 7 else _varint(file), 1)
        return None
    if kind == 12:
        return dict(_fields(file, nesting + 1))
    raise RecordFileError("a page header is damaged")


def _integer(file: IO[bytes]) -> int:
    value = _varint(file)
    return (value >> 1) ^ -(value & 1)


def _varint(file: IO[bytes]) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = _byte(file)
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
    raise RecordFileError("a page header is damaged")


def _byte(file: IO[bytes]) -> int:
    data = file.read(1)
    if not data:
        raise RecordFileError("a page header is damaged")
    return data[0]
