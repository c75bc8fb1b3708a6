"""Tables in batches that are bounded by rows and by bytes, so that long rows take no more memory than short ones."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

BATCH_BYTES = 16_777_216  # of texts; a reader or writer holds several batches at once


def row_batches(rows: pl.LazyFrame, at_most_rows: int, at_most_bytes: int = BATCH_BYTES) -> Iterator[pl.DataFrame]:
    """Yield the rows in order, in batches of `at_most_rows` rows; smaller ones where their texts take more bytes.

    The engine gives the rows in pieces of at most a row group; files with groups of bounded size keep memory bounded.
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
    """Return the bytes of all texts of a table, also of those in lists and structs."""
    return sum(_bytes(column) for column in rows.get_columns())


def write_row_groups(rows: pl.LazyFrame, path: Path, at_most_rows: int) -> None:
    """Write a table as Parquet with row groups of bounded size; OSError where the disk is full."""
    import pyarrow.parquet as pq  # slow to load

    schema = rows.collect_schema().to_frame().to_arrow().schema
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in row_batches(rows, at_most_rows):
            writer.write_table(batch.to_arrow().cast(schema), row_group_size=batch.height)


def _parts(piece: pl.DataFrame, at_most_rows: int, at_most_bytes: int) -> Iterator[pl.DataFrame]:
    """Cut a piece into parts that are within both limits if its rows are equally long."""
    at_once = piece.height * at_most_bytes // max(text_bytes(piece), 1)
    return piece.iter_slices(max(min(at_once, at_most_rows), 1))


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
