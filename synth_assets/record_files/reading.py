"""Read a file of records of any supported format and compression."""

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
    """Return whether the file name has a supported format and compression."""
    suffix, compression = split_suffix(path)
    return suffix in READERS and not (suffix == ".parquet" and compression)


def refuse_other_names(path: Path) -> None:
    """Raise RecordFileError if the file name has no supported format."""
    if not readable(path):
        raise RecordFileError(
            f"{path}: expected a name that ends in {', '.join(READERS)}, optionally compressed (except .parquet) as "
            f"{' or '.join(COMPRESSIONS)}; rename or convert the file"
        )


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of a file in order; an unreadable record has a fault and its line.

    Bytes that are not UTF-8 become lone surrogates in the texts, so that they invalidate only their own record.

    Raises:
        RecordFileError: the file is missing, empty, or not of the format of its name.
    """
    refuse_other_names(path)
    try:
        yield from READERS[split_suffix(path)[0]](path)
    except READ_ERRORS as error:
        raise RecordFileError(f"{path} cannot be read as {''.join(split_suffix(path))}: {error}") from error


def read_strictly(path: Path) -> Iterator[Record]:
    """Yield the records of a file in order; every record must be readable.

    Raises:
        RecordFileError: as `read_records`, or a record has a fault; names its line.
    """
    for record in read_records(path):
        if record.fault:
            raise RecordFileError(f"{path}, line {record.line}: {FAULTS[record.fault]} ({record.fault})")
        yield record
