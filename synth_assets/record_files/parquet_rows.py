"""Rows of a Parquet file, in memory that neither its row groups nor its dictionaries set.

A file of a few kB may stand for many GB: a dictionary holds a long text once and a page of indices repeats it, and
compressed pages may hold one byte a million times. So texts are read as dictionaries, the pages' sizes are looked at
before a row group is read, and a row is made of Python objects only after its size was measured.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from synth_assets.record_files.parquet_pages import Pages, pages_of
from synth_assets.record_files.records import MAX_RECORD_BYTES, TOO_LARGE, UNICODE, Record, RecordFileError, checked

GROUP_BYTES = 268_435_456  # a row group whose columns take more, decompressed, is read in batches
PAGES_BYTES = 268_435_456  # the largest page of each column together, decompressed; also of a batch at most
LIST_VALUES = 20_000_000  # of one column of one row group: a row may hold them all
FIXED_BYTES = 64  # of a value of fixed length: identifiers, decimals, hashes
BATCH_ROWS = 1_024
OBJECT_BYTES = 16_777_216  # of rows that are Python objects at the same time
SMALLER = "write it again with smaller row groups, such as row_group_size=10_000 of pyarrow"

Sizes = NDArray[np.int64]


def parquet_rows(path: Path) -> Iterator[Record]:
    """Yield the record of each row, numbered from 1.

    Raises:
        RecordFileError: a column or row group exceeds a limit, or the file is damaged; the message says which.
    """
    try:
        yield from _rows(path)
    except pa.ArrowException as error:
        raise RecordFileError(f"{path} cannot be read as .parquet: {error}") from error


def _rows(path: Path) -> Iterator[Record]:
    number = 0
    with path.open("rb") as raw, pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            plan = _plan(path, file, group, raw)
            with pq.ParquetFile(
                path, metadata=file.metadata, read_dictionary=plan.dictionaries, pre_buffer=False, buffer_size=65_536
            ) as reader:
                for batch in reader.iter_batches(batch_size=plan.rows, row_groups=[group]):
                    yield from _records(batch, file.schema_arrow, number)
                    number += batch.num_rows


class _Plan(NamedTuple):
    """How a row group is read."""

    rows: int  # at once
    dictionaries: list[str]  # columns read as dictionaries


def _plan(path: Path, file: pq.ParquetFile, group: int, raw: IO[bytes]) -> _Plan:
    """Plan the reading of a row group by the sizes of its pages, or raise RecordFileError where it exceeds a limit.

    A small group is read whole, its texts as dictionaries. Of a larger one, a batch takes at most PAGES_BYTES: no value
    is larger than a page. A list may lie in one row, so lists of a large group are refused.
    """
    where = f"{path}: row group {group + 1}"
    facts = file.metadata.row_group(group)
    largest, total, total_in_lists, prefixed = 0, 0, 0, False
    for place in range(facts.num_columns):
        column = file.schema.column(place)
        pages = _pages(f"{where}: column {column.path}", raw, facts.column(place), column)
        largest += pages.largest_bytes
        total += pages.bytes
        total_in_lists += pages.bytes if column.max_repetition_level else 0
        prefixed |= pages.prefixed
    if largest > PAGES_BYTES:
        raise RecordFileError(
            f"{where}: its pages take {largest:,} bytes at once, at most {PAGES_BYTES:,} are read; "
            "write it again with smaller pages, such as data_page_size=1_048_576 of pyarrow"
        )
    if total_in_lists > GROUP_BYTES:
        raise RecordFileError(
            f"{where}: its lists take {total_in_lists:,} bytes, at most {GROUP_BYTES:,} are read; {SMALLER}"
        )
    columns = [file.schema.column(place) for place in range(facts.num_columns)]
    texts = [column for column in columns if column.physical_type == "BYTE_ARRAY"]
    if total <= GROUP_BYTES and not prefixed:
        return _Plan(max(facts.num_rows, 1), [column.path for column in texts])
    rows = PAGES_BYTES // max(largest, 1) // (4 if prefixed else 1)  # decoding prefixes takes copies
    return _Plan(max(min(BATCH_ROWS, rows), 1), [column.path for column in texts if column.max_repetition_level])


def _pages(where: str, raw: IO[bytes], chunk: pq.ColumnChunkMetaData, column: pq.ColumnSchema) -> Pages:
    """Return the pages of a column, or raise RecordFileError where its values exceed a limit."""
    start = min(offset for offset in (chunk.dictionary_page_offset, chunk.data_page_offset) if offset)
    try:
        pages = pages_of(raw, start, chunk.total_compressed_size)
    except RecordFileError as error:
        raise RecordFileError(f"{where}: {error}") from error
    if column.max_repetition_level and pages.values > LIST_VALUES:
        raise RecordFileError(f"{where} has {pages.values:,} values, at most {LIST_VALUES:,} are read; {SMALLER}")
    if column.max_repetition_level and pages.prefixed:
        raise RecordFileError(
            f"{where} is encoded as DELTA_BYTE_ARRAY, which is not read in lists; use another encoding"
        )
    if column.physical_type == "FIXED_LEN_BYTE_ARRAY" and column.length > FIXED_BYTES:
        raise RecordFileError(
            f"{where} has values of {column.length:,} bytes each, at most {FIXED_BYTES} are read; "
            "leave the column out, or write it as text"
        )
    return pages


def _records(batch: pa.RecordBatch, schema: pa.Schema, number: int) -> Iterator[Record]:
    """Yield the records of a batch whose first row is row number + 1 of the file."""
    sizes = sum((_sizes(column) for column in batch.columns), np.zeros(batch.num_rows, np.int64))
    start = 0
    while start < batch.num_rows:
        if sizes[start] > MAX_RECORD_BYTES:
            yield Record(number + start + 1, {}, TOO_LARGE)
            start += 1
            continue
        fitting = np.cumsum(sizes[start:]) <= OBJECT_BYTES
        fitting &= sizes[start:] <= MAX_RECORD_BYTES
        end = batch.num_rows if fitting.all() else start + int(np.argmin(fitting))
        yield from _objects(batch.slice(start, end - start), schema, number + start)
        start = end


def _objects(rows: pa.RecordBatch, schema: pa.Schema, number: int) -> Iterator[Record]:
    try:
        values = rows.cast(schema).to_pylist()
    except (ValueError, OverflowError, pa.ArrowException) as error:
        if rows.num_rows == 1:
            yield Record(number + 1, {}, UNICODE if isinstance(error, UnicodeDecodeError) else "unreadable_value")
        else:
            for place in range(rows.num_rows):
                yield from _objects(rows.slice(place, 1), schema, number + place)
        return
    for place, value in enumerate(values, start=1):
        yield checked(number + place, value)


def _sizes(array: pa.Array) -> Sizes:
    """Return the bytes of each element, texts of a dictionary counted as often as they occur."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        lengths = _sizes(array.dictionary)
        indices = array.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return np.append(lengths, 0)[indices]
    if pa.types.is_struct(kind):
        return sum((_sizes(child) for child in array.flatten()), np.zeros(len(array), np.int64))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        return _list_sizes(array)
    if pa.types.is_fixed_size_list(kind):
        return _sizes(array.flatten()).sum() * np.ones(len(array), np.int64)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        return pc.call_function("binary_length", [array]).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return np.full(len(array), 8, np.int64)


def _list_sizes(array: pa.Array) -> Sizes:
    offsets = array.offsets.to_numpy().astype(np.int64)
    entries = (
        pa.StructArray.from_arrays([array.keys, array.items], ["key", "value"])
        if pa.types.is_map(array.type)
        else array.values
    )
    first, last = offsets[0], offsets[-1]
    ends = np.append(0, np.cumsum(_sizes(entries.slice(first, last - first)) + 1))
    return np.diff(ends[offsets - first])
