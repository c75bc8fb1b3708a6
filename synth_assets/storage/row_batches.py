"""Batches of rows bounded by row count and bytes, so that long rows do not use more memory."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

BATCH_BYTES = 16_777_216  # bytes of text; a reader or writer holds several batches at once


def row_batches(rows: pl.LazyFrame, at_most_rows: int, at_most_bytes: int = BATCH_BYTES) -> Iterator[pl.DataFrame]:
    """Yield the rows in order, in batches of at most `at_most_rows` rows and about `at_most_bytes` bytes of text.

    The engine reads at most a row group at a time; files with bounded row groups keep memory bounded.
    """
    waiting: list[pl.DataFrame] = []
    height, size = 0, 0
    for piece in rows.collect_batches(maintain_order=True):
        for part in _parts(piece, at_most_rows, at_most_bytes):
            part_bytes = text_bytes(part)
            if waiting and (height + part.height > at_most_rows or size + part_bytes > at_most_bytes):
                yield pl.concat(waiting)
                waiting, height, size = [], 0, 0
            waiting.append(part)
            height, size = height + part.height, size + part_bytes
    if waiting:
        yield pl.concat(waiting)


def text_bytes(rows: pl.DataFrame) -> int:
    """Return the bytes of all texts of a table, including those in lists and structs."""
    return sum(_bytes(column) for column in rows.get_columns())


def write_row_groups(rows: pl.LazyFrame, path: Path, at_most_rows: int) -> None:
    """Write a table as Parquet with bounded row groups. Raise OSError if the disk is full."""
    import pyarrow.parquet as pq  # slow to load

    schema = rows.collect_schema().to_frame().to_arrow().schema
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in row_batches(rows, at_most_rows):
            writer.write_table(batch.to_arrow().cast(schema), row_group_size=batch.height)


def _parts(piece: pl.DataFrame, at_most_rows: int, at_most_bytes: int) -> Iterator[pl.DataFrame]:
    """Split a piece into parts within both limits, assuming rows of equal length."""
    fitting_rows = piece.height * at_most_bytes // max(text_bytes(piece), 1)
    return piece.iter_slices(max(min(fitting_rows, at_most_rows), 1))


def _bytes(column: pl.Series) -> int:
    if column.dtype == pl.String:
        return int(column.str.len_bytes().sum() or 0)
    if column.dtype == pl.Binary:
        return int(column.bin.size().sum() or 0)
    if isinstance(column.dtype, pl.List):
        return _bytes(column.explode(empty_as_null=False)) if column.len() else 0
    if isinstance(column.dtype, pl.Struct):
        return sum(_bytes(field) for field in column.struct.unnest().get_columns())
    return 8 * column.len()
