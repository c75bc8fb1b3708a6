"""The one way to read a file of records, whatever its format and compression."""

from collections.abc import Callable, Iterator
from pathlib import Path

from synth_assets.record_files.delimited import delimited_rows
from synth_assets.record_files.json_files import json_array, json_lines
from synth_assets.record_files.records import FAULTS, Record, RecordFileError
from synth_assets.record_files.streams import COMPRESSIONS, READ_ERRORS, split_suffix


def _parquet(path: Path) -> Iterator[Record]:
    from synth_assets.record_files.parquet_rows import parquet_rows  # pyarrow is slow to load

    return parquet_rows(path)


READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": json_lines,
    ".json": json_array,
    ".csv": delimited_rows,
    ".tsv": delimited_rows,
    ".parquet": _parquet,
}


def readable(path: Path) -> bool:
    """Return whether the name ends in a format of READERS, compressed or not."""
    suffix, compression = split_suffix(path)
    return suffix in READERS and not (suffix == ".parquet" and compression)


def refuse_other_names(path: Path) -> None:
    """Raise RecordFileError if the name ends in no format of READERS."""
    if not readable(path):
        raise RecordFileError(
            f"{path}: expected a name that ends in {', '.join(READERS)}, all but .parquet also with "
            f"{' or '.join(COMPRESSIONS)} behind it; rename or convert the file"
        )


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of a file in order; one that cannot be read is a fault with its line.

    Bytes that are not UTF-8 arrive as lone surrogates in the texts, so that they spoil their own record alone.

    Raises:
        RecordFileError: the file does not exist, is empty, or is not what its name says.
    """
    refuse_other_names(path)
    try:
        yield from READERS[split_suffix(path)[0]](path)
    except READ_ERRORS as error:
        raise RecordFileError(f"{path} cannot be read as {''.join(split_suffix(path))}: {error}") from error


def read_strictly(path: Path) -> Iterator[Record]:
    """Yield the records of a file in order, none of which has a fault.

    Raises:
        RecordFileError: as `read_records`, or a record has a fault; names its line.
    """
    for record in read_records(path):
        if record.fault:
            raise RecordFileError(f"{path}, line {record.line}: {FAULTS[record.fault]} ({record.fault})")
        yield record
