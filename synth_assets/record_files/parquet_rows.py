"""Read Parquet rows in bounded memory, whatever the size of row groups and dictionaries.

A file of a few kB can expand to many GB: a dictionary stores a long text once and a page of indices repeats it, and
compressed pages can repeat one byte a million times. So texts are read as dictionaries, page sizes are checked before
a row group is read, and the size of a row is measured before Python objects are created.
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

GROUP_BYTES = 268_435_456  # decompressed; larger row groups are read in batches
PAGES_BYTES = 268_435_456  # sum of each column's largest page, decompressed; also the limit of a batch
LIST_VALUES = 20_000_000  # per column and row group; they may all be in one row
FIXED_BYTES = 64  # fixed-length values: identifiers, decimals, hashes
BATCH_ROWS = 1_024
OBJECT_BYTES = 16_777_216  # rows held as Python objects
SMALLER = "write it with smaller row groups, such as row_group_size=10_000 in pyarrow"

Sizes = NDArray[np.int64]


def parquet_rows(path: Path) -> Iterator[Record]:
    """Yield the record of each row, numbered from 1.

    Raises:
        RecordFileError: a column or row group exceeds a limit, or the file is damaged.
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
    """How to read a row group."""

    rows: int  # per batch
    dictionaries: list[str]  # columns read as dictionaries


def _plan(path: Path, file: pq.ParquetFile, group: int, raw: IO[bytes]) -> _Plan:
    """Choose how to read a row group by its page sizes. Raise RecordFileError if it exceeds a limit.

    A small group is read whole, its texts as dictionaries. A batch of a larger one takes at most PAGES_BYTES, as no
    value is larger than a page. A list may be all in one row, so a large group must not have large lists.
    """
    where = f"{path}: row group {group + 1}"
    metadata = file.metadata.row_group(group)
    largest, total, total_in_lists, prefixed = 0, 0, 0, False
    for index in range(metadata.num_columns):
        column = file.schema.column(index)
        pages = _pages(f"{where}: column {column.path}", raw, metadata.column(index), column)
        largest += pages.largest_bytes
        total += pages.bytes
        total_in_lists += pages.bytes if column.max_repetition_level else 0
        prefixed |= pages.prefixed
    if largest > PAGES_BYTES:
        raise RecordFileError(
            f"{where}: its pages take {largest:,} bytes, the limit is {PAGES_BYTES:,}; "
            "write it with smaller pages, such as data_page_size=1_048_576 in pyarrow"
        )
    if total_in_lists > GROUP_BYTES:
        raise RecordFileError(
            f"{where}: its lists take {total_in_lists:,} bytes, the limit is {GROUP_BYTES:,}; {SMALLER}"
        )
    columns = [file.schema.column(index) for index in range(metadata.num_columns)]
    texts = [column for column in columns if column.physical_type == "BYTE_ARRAY"]
    if total <= GROUP_BYTES and not prefixed:
        return _Plan(max(metadata.num_rows, 1), [column.path for column in texts])
    rows = PAGES_BYTES // max(largest, 1) // (4 if prefixed else 1)  # decoding prefixes makes copies
    return _Plan(max(min(BATCH_ROWS, rows), 1), [column.path for column in texts if column.max_repetition_level])


def _pages(where: str, raw: IO[bytes], chunk: pq.ColumnChunkMetaData, column: pq.ColumnSchema) -> Pages:
    """Return the page sizes of a column. Raise RecordFileError if its values exceed a limit."""
    start = min(offset for offset in (chunk.dictionary_page_offset, chunk.data_page_offset) if offset)
    try:
        pages = pages_of(raw, start, chunk.total_compressed_size)
    except RecordFileError as error:
        raise RecordFileError(f"{where}: {error}") from error
    if column.max_repetition_level and pages.values > LIST_VALUES:
        raise RecordFileError(f"{where} has {pages.values:,} values, the limit is {LIST_VALUES:,}; {SMALLER}")
    if column.max_repetition_level and pages.prefixed:
        raise RecordFileError(
            f"{where} is encoded as DELTA_BYTE_ARRAY, which is not supported in lists; use another encoding"
        )
    if column.physical_type == "FIXED_LEN_BYTE_ARRAY" and column.length > FIXED_BYTES:
        raise RecordFileError(
            f"{where} has values of {column.length:,} bytes each, the limit is {FIXED_BYTES}; "
            "drop the column, or write it as text"
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
            for index in range(rows.num_rows):
                yield from _objects(rows.slice(index, 1), schema, number + index)
        return
    for index, value in enumerate(values, start=1):
        yield checked(number + index, value)


def _sizes(array: pa.Array) -> Sizes:
    """Return the bytes of each element; a dictionary text counts at each occurrence."""
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
